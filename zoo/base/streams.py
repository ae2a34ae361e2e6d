"""Output streams: those whose reader may end (`zoo train | head`, a closed terminal), and prints that go elsewhere."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

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


# ---- prints of one thread ----------------------------------------------------------------------------

IN_TURN = threading.Lock()
"""Held while it changes what stdout is."""


class _Place(NamedTuple):
    """Where a thread prints, and those that it begins: all but the others that were there."""

    stream: Any
    thread: int
    others: frozenset[int | None]


class _Divided:
    """Stands for stdout while some threads print elsewhere."""

    def __init__(self, usual: Any) -> None:
        self.usual = usual
        self.places: tuple[_Place, ...] = ()

    def _now(self) -> Any:
        me = threading.get_ident()
        found = (place.stream for place in reversed(self.places) if me == place.thread or me not in place.others)
        return next(found, self.usual)

    def write(self, text: str) -> int:
        """Write text to where this thread prints."""
        stream = self._now()
        return len(text) if stream is None else int(stream.write(text))

    def flush(self) -> None:
        """Flush where this thread prints; without a console that is nowhere."""
        if (stream := self._now()) is not None:
            stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Take every other attribute from where this thread prints."""
        return getattr(self._now(), name)


@contextmanager
def printing_to(stream: Any) -> Iterator[None]:
    """Inside, what this thread prints to stdout, and threads that begin inside, goes to a stream.

    `contextlib.redirect_stdout` would take the lines of the program's other threads too, and two of them that overlap
    would leave stdout as the first one had set it.
    """
    me = threading.get_ident()
    place = _Place(stream, me, frozenset(thread.ident for thread in threading.enumerate()) - {me})
    with IN_TURN:
        shown = sys.stdout
        divided = shown if isinstance(shown, _Divided) else _Divided(shown)
        divided.places = (*divided.places, place)
        sys.stdout = divided
    try:
        yield
    finally:
        with IN_TURN:
            divided.places = tuple(other for other in divided.places if other is not place)
            if not divided.places and sys.stdout is divided:
                sys.stdout = divided.usual
