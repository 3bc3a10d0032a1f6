"""Recall and cost of a compressor and of its peers at equal bytes, and the report on them."""
