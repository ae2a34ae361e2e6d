"""What the pixels of a split say, read once: equal and similar images, blank ones, and those that cannot be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from zoo.data.duplicates import Hashes, perceptual_hashes
from zoo.data.split import Split
from zoo.data.types import Images, Labels
from zoo.errors import BadImagesError, DataError, SizesError

NEARLY_BLACK = 32
"""An image without a value of this or more, of 255, is one that a wrong white made, or shows next to nothing."""

BLANK = 8
"""An image whose values in each channel lie within fewer than so many steps of 255 shows nothing."""

AT_ONCE = 32 << 20
"""Bytes of images that are held decoded."""

Progress = Callable[[int], None]
"""Receives how many images of the split were looked at."""


@dataclass(frozen=True)
class Looks:
    """What the images of a split look like; rows are those of the split, without altered copies.

    Attributes:
        digests: a hash of each image's pixels; empty of one that cannot be read.
        hashes: uint64 (N,), see `zoo.data.duplicates`; all zero if they were not asked for.
        black, blank: rows of images that are nearly black, or show a single colour.
        unreadable: rows with the reason; only files that are decoded while they are looked at.
    """

    digests: list[bytes]
    hashes: Hashes = field(repr=False)
    black: list[int]
    blank: list[int]
    unreadable: dict[int, str]

    def comparable(self) -> Labels:
        """The rows whose perceptual hash says something, int64."""
        without = {*self.black, *self.blank, *self.unreadable}
        return np.array([row for row in range(len(self.digests)) if row not in without], np.int64)


def looked_at(split: Split, progress: Progress = lambda done: None, *, similar: bool = False) -> Looks:
    """Look at every image of a split once.

    Args:
        similar: whether perceptual hashes are wanted, which takes about 50 µs an image of 32x32.
    Raises:
        SizesError: the images are files that differ in size.
    """
    count = len(split) // split.copies
    looks = Looks([], np.zeros(count, np.uint64), [], [], {})
    for start, block, bad in _blocks(split, count):
        looks.unreadable.update(bad)
        values = block.reshape(*block.shape[:2], -1)
        highest, lowest = values.max(axis=2), values.min(axis=2)
        is_black = highest.max(axis=1) < NEARLY_BLACK
        is_blank = ((highest - lowest) < BLANK).all(axis=1) & ~is_black
        looks.black.extend(start + row for row in np.flatnonzero(is_black).tolist() if start + row not in bad)
        looks.blank.extend(start + row for row in np.flatnonzero(is_blank).tolist() if start + row not in bad)
        looks.digests.extend(b"" if start + row in bad else _digest(image) for row, image in enumerate(block))
        if similar:
            looks.hashes[start : start + len(block)] = perceptual_hashes(block)
        progress(start + len(block))
    return looks


def _digest(image: Images) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _blocks(split: Split, count: int) -> Iterator[tuple[int, Images, dict[int, str]]]:
    """Row of the first image, images uint8 (n, 3, H, W), and the rows among them that cannot be read (these are 0)."""
    images = split.images
    at_once = max(1, AT_ONCE // max(1, int(np.prod(images.shape[1:]))))
    spans = [(start, min(start + at_once, count)) for start in range(0, count, at_once)]
    if isinstance(images, np.ndarray):
        for start, stop in spans:
            yield start, images[start:stop], {}
        return

    def decoded(row: int) -> Images | str:
        try:
            image: Images = images[row]
            return image
        except SizesError:
            raise
        except BadImagesError as error:
            return error.problems[0]
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start, stop in spans:
            block = np.zeros((stop - start, *images.shape[1:]), np.uint8)
            bad: dict[int, str] = {}
            for row, image in zip(range(start, stop), threads.map(decoded, range(start, stop)), strict=True):
                if isinstance(image, str):
                    bad[row] = image
                else:
                    block[row - start] = image
            yield start, block, bad
