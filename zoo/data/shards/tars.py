"""Images in tar files: on this machine, where any image is read by itself, or at an address, by ranges."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from zoo.data.files.reading import Span, Stamp, read_span
from zoo.data.shards.packed import Packed, blocks_of
from zoo.data.shards.shuffle import Shuffle
from zoo.data.shards.tar_index import TarIndex
from zoo.data.types import Labels
from zoo.errors import DataError

Stretch = tuple[int, int]
"""Offset and size."""


class Tar(Protocol):
    """One tar file."""

    @property
    def path(self) -> str:
        """Its path or address."""

    @property
    def stamp(self) -> Stamp:
        """As it was indexed; `time` may stand for a version."""

    @property
    def is_local(self) -> bool:
        """Whether `path` is a file of this machine."""

    def read(self, stretches: Sequence[Stretch]) -> list[bytes]:
        """Read some parts of it, ascending.

        Raises:
            DataError: it cannot be read, or was changed.
        """


@dataclass(frozen=True)
class LocalTar:
    """A tar file on this machine.

    Attributes:
        path: what messages call it. file: where it is.
    """

    path: str
    stamp: Stamp
    file: str

    is_local = True

    @classmethod
    def at(cls, file: str, path: str = "") -> LocalTar:
        """The tar as it is now.

        Args:
            path: what messages call it, if not by its place.
        Raises:
            DataError: it cannot be looked at.
        """
        try:
            status = os.stat(file)
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from None
        return cls(path or file, Stamp(status.st_size, status.st_mtime_ns), file)

    def read(self, stretches: Sequence[Stretch]) -> list[bytes]:
        """Read some parts of it."""
        return [read_span(Span(os.fsencode(self.file), self.stamp, *stretch)) for stretch in stretches]


@dataclass(frozen=True)
class TarStore:
    """The tars of a dataset; rows are counted through all of them."""

    tars: Sequence[Tar]
    indices: Sequence[TarIndex] = field(repr=False)
    starts: Labels = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether all of them are files of this machine."""
        return all(tar.is_local for tar in self.tars)

    def place(self, row: int) -> tuple[int, int]:
        """The tar of an image, and its row there."""
        tar = int(np.searchsorted(self.starts, row, side="right")) - 1
        return tar, row - int(self.starts[tar])

    def read(self, block: int, rows: Labels) -> list[bytes]:
        """Some images of a block, which lies in one tar."""
        tar, _ = self.place(int(rows[0]))
        index, inside = self.indices[tar], rows - self.starts[tar]
        return self.tars[tar].read(list(zip(index.offsets[inside].tolist(), index.sizes[inside].tolist(), strict=True)))

    def span(self, row: int) -> Span:
        """Where an image is in its file."""
        tar, inside = self.place(row)
        its, index = self.tars[tar], self.indices[tar]
        assert isinstance(its, LocalTar)
        return Span(os.fsencode(its.file), its.stamp, int(index.offsets[inside]), int(index.sizes[inside]))

    def where(self, row: int) -> str:
        """The tar, and the image's name in it."""
        tar, inside = self.place(row)
        return f"{self.tars[tar].path}/{self.indices[tar].name(inside)}"


def packed_tars(root: str, tars: Sequence[Tar], indices: Sequence[TarIndex], shuffle: Shuffle) -> Packed:
    """The images of several tars, in their order.

    Args:
        root: the folder or address that all lie below.
    """
    counts = [len(index) for index in indices]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    names, ends, length = [], [], 0
    for tar, index in zip(tars, indices, strict=True):
        head = os.fsencode(tar.path.removeprefix(root).lstrip(f"/{os.sep}"))
        names += [np.frombuffer(head + b"/", np.uint8), index.names]  # before the name of the first of its images
        ends.append(index.ends + length + len(head) + 1)
        length += len(head) + 1 + len(index.names)
    sizes = np.concatenate([index.sizes for index in indices])
    shards = np.repeat(np.arange(len(tars)), counts)
    times = np.repeat(np.array([tar.stamp.time for tar in tars], np.int64), counts)
    return Packed(
        Path(root),
        np.concatenate(names),
        np.concatenate(ends),
        sizes,
        times,
        blocks_of(shards, sizes, shuffle),
        TarStore(tuple(tars), tuple(indices), starts),
        shuffle,
    )
