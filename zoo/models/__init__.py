"""From a tree to a torch module, on a device: composing, counting, comparing with a file's header."""
