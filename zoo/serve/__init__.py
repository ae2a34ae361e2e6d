"""A model behind HTTP: one page to drop images on, one endpoint, limits on all that a client can send."""
