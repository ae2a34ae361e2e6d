"""Progress on stderr, as commands show it: not at all where -q was given."""

from __future__ import annotations

from zoo.cli.shared.table import is_quiet
from zoo.train import display
from zoo.train.display import make_display

__all__ = ["DecodeBar", "make_display"]


class DecodeBar(display.DecodeBar):
    """A progress bar for decoding, shown only if there is something to decode."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet or is_quiet())
