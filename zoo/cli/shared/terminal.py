"""What a call says while it works, on stderr, as the commands print it."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING

from zoo.base.reporter import Reporter
from zoo.cli.shared.messages import say_problems
from zoo.cli.shared.table import clean, is_quiet, say

if TYPE_CHECKING:
    from zoo.cli.shared.display import DecodeBar


class Terminal(Reporter):
    """Hints, warnings and bars on stderr.

    Args:
        quiet: neither hints nor bars. verbose: also the automatic choices and their reasons.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet or is_quiet(), verbose

    @cached_property
    def bar(self) -> DecodeBar:
        """The bar of the images that are decoded, imported when there are any: most calls decode none."""
        from zoo.cli.shared.display import DecodeBar

        return DecodeBar(self.quiet)

    def say(self, line: str) -> None:
        """Print a hint."""
        if not self.quiet:
            say(line)

    def note(self, line: str) -> None:
        """Print an automatic choice and its reason."""
        if self.verbose:
            print(f"  {clean(line)}", file=sys.stderr)

    def warn(self, line: str) -> None:
        """Print a warning."""
        say_problems([line])

    def progress(self, what: str, done: int, total: int, /) -> None:
        """Move a bar."""
        self.bar(what, done, total)

    def close(self) -> None:
        """Remove the bars."""
        if "bar" in vars(self):
            self.bar.close()
