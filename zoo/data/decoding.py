"""Decodes one split into a file of images, a chunk at a time: memory stays bounded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from zoo.base.text import plural
from zoo.data.files.decode import Rule, array_image, image_array
from zoo.data.sources.source import Rows, Show
from zoo.data.types import Chunk, Images, Item, Labels
from zoo.errors import DataError, SizesError

AT_ONCE = 256 << 20
"""Bytes of decoded images that are held before they are written."""

_Found = Images | list[Images | None]


class Decoding:
    """Decodes one split into a .npy file, a chunk at a time: memory stays bounded."""

    def __init__(
        self, rows: Rows, rule: Rule, show: Show, title: str, skip_bad: bool, size: tuple[int, int] | None
    ) -> None:
        self.rows, self.rule, self.show, self.title, self.skip_bad = rows, rule, show, title, skip_bad
        self.size = size
        self.first = "the images of the other split"
        self.bad: list[str] = []

    def run(self, path: Path) -> Labels:
        """Write the images to `path`; returns the rows that could be read (int64, ascending)."""
        total = len(self.rows.labels)
        out: Images | None = None
        readable: list[int] = []
        done = 0
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for images, good, count in self._decoded(pool):
                if good:
                    out = _allocate(path, (total, *images.shape[1:])) if out is None else out
                    out[len(readable) : len(readable) + len(good)] = images
                    readable += [done + i for i in good]
                done += count
                self.show(self.title, done, total)
        if done != total:
            raise DataError(f"{self.title}: found {plural(done, 'image')} for {plural(total, 'label')}")
        if not readable and self.skip_bad:
            raise DataError(f"{self.title}: none of {plural(total, 'image')} can be read")
        if not readable:
            return np.empty(0, np.int64)
        if isinstance(out, np.memmap):
            out.flush()
        del out
        _shorten(path, len(readable), total)
        _sync(path)
        return np.asarray(readable, np.int64)

    def _decoded(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Images, Sequence[int], int]]:
        """Per chunk: the readable images (n, 3, H, W), their places in the chunk, the chunk's length."""
        start = 0
        for chunk in self.rows.chunks():
            place = 0
            while place < len(chunk):
                part = chunk[place : place + self._fitting()]
                decoded = self._chunk(pool, part, start + place)
                good = [i for i, image in enumerate(decoded) if image is not None]
                self._check_size(decoded, good, start + place)
                images = decoded if isinstance(decoded, np.ndarray) else _stacked(decoded)
                yield images, good, len(part)
                place += len(part)
            start += len(chunk)

    def _fitting(self) -> int:
        """How many images may be decoded before they are written: one, as long as their size is not known."""
        return max(1, AT_ONCE // (3 * self.size[0] * self.size[1])) if self.size else 1

    def _chunk(self, pool: ThreadPoolExecutor, chunk: Chunk, start: int) -> _Found:
        if isinstance(chunk, np.ndarray) and not self.rule:
            return chunk
        items: Sequence[Item]
        items = [partial(array_image, p) for p in chunk] if isinstance(chunk, np.ndarray) else chunk
        # A task of many images: handing over each one costs as much as decoding a small one.
        step = max(1, len(items) // 16)
        spans = [(i, items[i : i + step]) for i in range(0, len(items), step)]

        def decode(span: tuple[int, Sequence[Item]]) -> list[Images | None]:
            return [self._one(item, start + span[0] + k) for k, item in enumerate(span[1])]

        results = pool.map(decode, spans)
        return [image for part in results for image in part]

    def _one(self, item: Item, row: int) -> Images | None:
        try:
            image = image_array(item, self.rule, self.rows.where(row))
        except DataError as error:
            self.bad.append(str(error))
            return None
        if self.size is not None:  # before many of them are held
            self._check_size([image], [0], row)
        return image

    def _check_size(self, decoded: _Found, good: Sequence[int], start: int) -> None:
        for i in good:
            _, height, width = np.shape(cast(Images, decoded[i]))
            if self.size is None:
                self.size, self.first = (height, width), self.rows.where(start + i)
            if (height, width) != self.size:
                raise SizesError(
                    f"images differ in size: {self.first} has {_wide(self.size)}, "
                    f"{self.rows.where(start + i)} has {_wide((height, width))}; give --image-size N"
                )


def _wide(size: tuple[int, int] | None) -> str:
    return f"{size[1]}x{size[0]}" if size else "no size"


def _allocate(path: Path, shape: tuple[int, ...]) -> Images:
    needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"the decoded images need {needed / 1e9:.1f} GB in {path.parent}, {free / 1e9:.1f} GB are free; "
            "set ZOO_CACHE_DIR to another disk or use a smaller --image-size"
        )
    made: Images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    return made


def _stacked(decoded: Sequence[Images | None]) -> Images:
    good = [image for image in decoded if image is not None]
    return np.stack(good) if good else np.empty((0, 3, 1, 1), np.uint8)


def _shorten(path: Path, used: int, total: int) -> None:
    """Rewrite the file without the unused rows at its end."""
    if used == total:
        return
    source: Any = np.load(path, mmap_mode="r")
    short = path.with_suffix(".short.tmp")
    target: Any = np.lib.format.open_memmap(short, mode="w+", dtype=np.uint8, shape=(used, *source.shape[1:]))
    for start in range(0, used, 4096):
        target[start : start + 4096] = source[start : min(start + 4096, used)]
    target.flush()
    del source, target
    os.replace(short, path)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
