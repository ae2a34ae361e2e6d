"""What a long call tells while it works: messages, warnings, progress. The call itself prints nothing."""

from __future__ import annotations

import sys


class Reporter:
    """Receives what a call has to say. This one is for programs; the command line has one that writes on stderr.

    Messages go to the logger "zoo" of the standard library, warnings to `warnings`, progress nowhere. A subclass
    overrides the methods that it needs. (`logging` is imported when there is something to say: `zoo list` passes here.)
    """

    def say(self, line: str) -> None:
        """Receive a message: what was chosen, what to do next."""
        import logging

        logging.getLogger("zoo").info(line)

    def note(self, line: str) -> None:
        """Receive a detail: an automatic choice and its reason."""
        import logging

        logging.getLogger("zoo").debug(line)

    def warn(self, line: str) -> None:
        """Receive a warning: something is probably wrong."""
        import warnings

        from zoo.errors import ZooWarning

        warnings.warn(line, ZooWarning, stacklevel=callers())

    def progress(self, what: str, done: int, total: int, /) -> None:
        """Receive how much of something is done, such as images decoded."""

    def close(self) -> None:
        """Called when the work has ended, however it ended."""


def callers() -> int:
    """The `stacklevel` of a warning that names the line of the caller's own code, and not one of ours."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "zoo":
        frame, level = frame.f_back, level + 1
    return level
