"""Output streams whose reader may end: `zoo train | head`, or a closed terminal."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

LOST_READER = (errno.EPIPE, errno.EIO)
"""Errors of writing to a closed pipe (EPIPE) and to a closed terminal (EIO)."""


class WatchedStream:
    """A text stream that reports once that its reader has ended; what is written afterwards is dropped.

    Args:
        left: called when the reader has ended; if it raises an error, so does the write.
    """

    def __init__(self, stream: Any, left: Callable[[], None]) -> None:
        self._stream, self._left = stream, left

    def __getattr__(self, name: str) -> Any:
        """Take every other attribute from the stream."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, which is dropped if the reader has ended."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless the reader has ended."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        if error.errno not in LOST_READER:
            raise error
        self._left()
        silence(self._stream)


def silence(stream: Any) -> None:
    """Drop everything that is written to a stream from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
