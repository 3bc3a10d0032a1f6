"""Hand an index over to another database."""
