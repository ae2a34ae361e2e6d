"""Images that stay in their shards: where each of them is, and how their encoded bytes are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from zoo.data.files.decode import Rule
from zoo.data.files.image_files import FileImages, Files
from zoo.data.files.reading import Span, decode_content
from zoo.data.shards.shuffle import Shuffle
from zoo.data.types import Images, Labels

READERS = 4
"""Threads that read blocks at the same time."""

HELD = 64 << 20
"""Bytes of encoded images after which reading in stored order takes a new part."""

SAMPLED = 16
"""Blocks that a sample of the images is taken from."""

CHUNK = 256


class Store(Protocol):
    """Reads what blocks hold."""

    def read(self, block: int, rows: Labels) -> list[bytes]:
        """The encoded images of some rows of a block; rows are int64, numbers among all images.

        Raises:
            DataError: the shard cannot be read, or was changed.
        """

    def span(self, row: int) -> Span:
        """Where an image is in a local file; only for stores with `is_local`."""

    def where(self, row: int) -> str:
        """What messages call an image: its shard, and its name or row there."""

    @property
    def is_local(self) -> bool:
        """Whether each image is a part of a local file, which can be read by itself at any place."""


@dataclass(frozen=True)
class Packed(Files):
    """Images inside shards, in place of files.

    Attributes:
        names, ends: of the images; or of the shards, where an image has no name of its own. sizes: int64 (N,), encoded
            bytes of each image, or an even share of its block's.
        blocks: int64 (N,), ascending, the block of each image: what is read at once.
    """

    blocks: Labels = field(repr=False)
    store: Store = field(repr=False)
    shuffle: Shuffle = field(default_factory=Shuffle)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.sizes)

    def where(self, row: int) -> str:
        """What messages call one image."""
        return self.store.where(row)

    def items(self, rows: Labels) -> list[bytes]:
        """The encoded images of some rows, in their order; each block is read once.

        Raises:
            DataError: as `Store.read`.
        """
        return self.read(rows)

    def read(self, rows: Labels, threads: ThreadPoolExecutor | None = None) -> list[bytes]:
        """As `items`; by several threads, if they are given."""
        contents: list[bytes] = [b""] * len(rows)
        order = np.argsort(rows, kind="stable")
        blocks = self.blocks[rows[order]]
        ends = np.flatnonzero(np.diff(blocks, append=-1))
        parts = [order[start : end + 1] for start, end in zip([0, *(ends[:-1] + 1)], ends, strict=True)]

        def fill(places: Labels) -> None:
            chosen = rows[places]
            read = self.store.read(int(self.blocks[chosen[0]]), chosen)
            for place, content in zip(places.tolist(), read, strict=True):
                contents[place] = content

        for _ in threads.map(fill, parts) if threads else map(fill, parts):
            pass
        return contents


@dataclass(frozen=True)
class ShardImages(FileImages):
    """The images of a split that lie in shards, as an array that decodes what is read from it."""

    files: Packed

    @property
    def shuffle(self) -> Shuffle:
        """The numbers of the rule for an epoch's order."""
        return self.files.shuffle

    @property
    def blocks(self) -> Labels:
        """int64 (N,), the block of each image of the split."""
        return self.files.blocks[self.rows]

    @property
    def sizes(self) -> Labels:
        """int64 (N,), the encoded bytes of each image of the split."""
        return self.files.sizes[self.rows]

    def evenly(self, count: int, most: int = SAMPLED) -> Labels:
        """Rows of evenly spaced blocks, as many of each: int64, ascending.

        Args:
            count: how many rows, about. most: blocks that are read, at most.
        """
        starts = np.flatnonzero(np.diff(self.blocks, prepend=-1))
        if count >= len(self) and len(starts) <= most:
            return np.arange(len(self))
        ends = np.append(starts[1:], len(self))
        used = np.arange(min(most, len(starts))) * len(starts) // min(most, len(starts))
        each = -(-count // len(used))
        parts = []
        for start, end in zip(starts[used].tolist(), ends[used].tolist(), strict=True):
            taken = min(each, end - start)
            parts.append(start + np.arange(taken) * (end - start) // taken)
        return np.concatenate(parts)

    def __getitem__(self, key: int | slice | Labels) -> Images:
        """Decode one image, or several, in this process.

        Raises:
            DataError: as `decode_content`, or a shard cannot be read.
        """
        if isinstance(key, int | np.integer):
            return self.several(np.array([key]))[0]
        return self.several(np.arange(len(self))[key])

    def __iter__(self) -> Iterator[Images]:
        """Decode one after another; each block is read once where the images are in stored order."""
        for start in range(0, len(self), CHUNK):
            yield from self[start : start + CHUNK]

    def several(self, rows: Labels) -> Images:
        """Decode several images: uint8 (n, 3, H, W)."""
        chosen = self.rows[rows]
        contents = self.files.read(chosen)
        out = np.empty((len(chosen), *self.shape[1:]), np.uint8)

        def decode(place: int) -> None:
            where = self.files.where(int(chosen[place]))
            out[place] = decode_content(contents[place], where, self.rule, self.size, self.rule.colours)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            list(threads.map(decode, range(len(chosen))))
        return out

    def _decoded(self, row: int) -> Images:
        return self.several(np.array([row]))[0]


def images_in(files: Files, rows: Labels, rule: Rule, size: tuple[int, int]) -> FileImages:
    """The images of a split: files, or parts of shards.

    Args:
        rows: int64 (N,), which of the files.
    """
    return ShardImages(files, rows, rule, size) if isinstance(files, Packed) else FileImages(files, rows, rule, size)


def blocks_of(shards: Labels, sizes: Labels, shuffle: Shuffle) -> Labels:
    """The blocks of images in tar files: int64 (N,), ascending.

    A block is a run of images of one shard: `shuffle.block` of them, or fewer where `shuffle.block_mb` are reached.

    Args:
        shards: int64 (N,), ascending, the shard of each image. sizes: int64 (N,), bytes.
    """
    blocks = np.empty(len(sizes), np.int64)
    block, count, held, before, most = -1, 0, 0, -1, shuffle.block_mb << 20
    for row, (shard, size) in enumerate(zip(shards.tolist(), sizes.tolist(), strict=True)):
        if shard != before or count == shuffle.block or held + size > most:
            block, count, held, before = block + 1, 0, 0, shard
        count, held = count + 1, held + size
        blocks[row] = block
    return blocks


def part_ends(blocks: Labels, sizes: Labels, most: int = HELD) -> Labels:
    """Where a sequence of images is cut so that parts hold about `most` bytes, and no block is in two parts.

    Args:
        blocks, sizes: int64 (n,), of the images in the sequence.
    Returns:
        int64: the end of each part; the last is n.
    """
    ends, held = [], 0
    last = np.flatnonzero(np.diff(blocks, append=-1)) + 1
    begin = 0
    sums = np.concatenate([[0], np.cumsum(sizes)])
    for end in last.tolist():
        held += int(sums[end] - sums[begin])
        begin = end
        if held >= most:
            ends.append(end)
            held = 0
    if len(blocks) and (not ends or ends[-1] < len(blocks)):
        ends.append(len(blocks))
    return np.array(ends, np.int64)
