"""Encoded images of a sequence of rows, read by threads a part ahead of where they are needed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from threading import Lock

import numpy as np

from zoo.data.shards.packed import READERS, Packed
from zoo.data.types import Labels


class Ahead:
    """Reads the shards of a sequence part by part, and gives the encoded images one after another.

    While one part is given out, the next one is read: at most two parts are held.

    Attributes:
        held, most: bytes that are held now, and the most that were.
    """

    def __init__(self, files: Packed, rows: Labels, ends: Labels) -> None:
        """Prepare; nothing is read before the first image is asked for.

        Args:
            rows: int64 (n,), numbers of images among all of `files`. ends: where each part ends; the last is n.
        """
        self.files, self.rows = files, rows
        self.parts = deque(pairwise([0, *ends.tolist()]))
        self.next: Future[list[bytes]] | None = None
        self.now: deque[bytes] = deque()
        self.held = self.most = 0
        self.lock = Lock()
        self.coordinator: ThreadPoolExecutor | None = None
        self.readers: ThreadPoolExecutor | None = None

    def take(self, count: int) -> list[bytes]:
        """The next images of the sequence.

        Raises:
            DataError: a shard cannot be read.
        """
        taken: list[bytes] = []
        while len(taken) < count:
            if not self.now:
                self._turn()
            content = self.now.popleft()
            with self.lock:
                self.held -= len(content)
            taken.append(content)
        return taken

    def close(self) -> None:
        """Read nothing more."""
        for threads in (self.coordinator, self.readers):
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)
        self.coordinator = self.readers = None
        self.parts.clear()
        self.now.clear()

    def _turn(self) -> None:
        """The part that was read ahead is the one that is given now; the one after it is begun."""
        if self.coordinator is None:
            self.coordinator = ThreadPoolExecutor(1, thread_name_prefix="zoo-shards")
            self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="zoo-shards")
            self._begin()
        assert self.next is not None  # no more images are asked for than the sequence has
        self.now = deque(self.next.result())
        self.next = None
        if self.parts:
            self._begin()

    def _begin(self) -> None:
        begin, end = self.parts.popleft()
        assert self.coordinator is not None
        self.next = self.coordinator.submit(self._read, self.rows[begin:end])

    def _read(self, rows: Labels) -> list[bytes]:
        contents = self.files.read(rows, self.readers)
        with self.lock:
            self.held += sum(map(len, contents))
            self.most = max(self.most, self.held)
        return contents


def runs(numbers: Labels) -> Labels:
    """Where each run of equal numbers ends: int64, ascending."""
    return np.flatnonzero(np.diff(numbers, append=-1)) + 1
