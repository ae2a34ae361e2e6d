"""Image files: finding, decoding, and the processes that decode."""
