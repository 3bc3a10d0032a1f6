"""An HTTP service over an index and its compressor, and its page; no torch."""
