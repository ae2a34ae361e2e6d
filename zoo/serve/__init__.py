"""A model behind HTTP: one page to drop images on, one endpoint, limits on all that a client can send."""

from zoo.serve.limits import Limits
from zoo.serve.server import listen, run

__all__ = ["Limits", "listen", "run"]
