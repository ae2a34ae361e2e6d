"""The images of a dataset as its files have them, before they are scaled: their sizes, and what cannot be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zoo.base.text import plural
from zoo.data.files.decode import Rule, image_array, opened_image
from zoo.data.findings import MOST_LISTED, Finding, Place
from zoo.data.sources.source import Rows
from zoo.data.types import Item
from zoo.errors import DataError

ODD_SIZE = 4.0
"""An image is named if the root of its area is so many times that of the usual one, or so many times less."""

ODD_SHAPE = 2.5
"""An image is named if the ratio of its longer to its shorter side is so many times the usual one."""


@dataclass(frozen=True)
class Originals:
    """The images of one split as they are.

    Attributes:
        sizes: int64 (N, 2), height and width in pixels, 0 where they are not known. names: where each one is.
    """

    sizes: NDArray[np.int64] = field(repr=False)
    names: list[str] = field(repr=False)


def originals(rows: Rows) -> Originals | None:
    """Read the sizes of the images of a split, without decoding them; None where the source has arrays."""
    sizes: list[tuple[int, int]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for chunk in rows.chunks():
            if isinstance(chunk, np.ndarray):
                return None
            sizes += threads.map(_size, chunk)
    return Originals(np.array(sizes, np.int64).reshape(-1, 2), [rows.where(row) for row in range(len(sizes))])


def _size(item: Item) -> tuple[int, int]:
    try:
        with opened_image(item) as image:
            return image.height, image.width
    except Exception:  # decoders of foreign bytes raise nearly anything; what cannot be read is said elsewhere
        return 0, 0


def unreadable(rows: Rows, names: Iterable[str], rule: Rule) -> Iterator[str]:
    """Say why images cannot be read.

    Args:
        names: of the images that can be. rule: how they are brought to their size; some are too small for it.
    """
    good, row = set(names), 0
    for chunk in rows.chunks():
        for item in [] if isinstance(chunk, np.ndarray) else chunk:
            where, row = rows.where(row), row + 1
            if where in good:
                continue
            try:
                image_array(item, rule, where)
            except DataError as error:
                yield str(error)


def size_findings(splits: Sequence[Originals], places: Mapping[str, Place]) -> list[Finding]:
    """Images whose size or shape is far from the usual one, and how many sizes there are.

    Args:
        places: where the images that can be read are in the loaded dataset, by name.
    """
    sizes = np.concatenate([split.sizes for split in splits])
    names = [name for split in splits for name in split.names]
    known = sizes.min(axis=1, initial=1) > 0
    kinds = Counter(map(tuple, sizes[known].tolist()))
    if len(kinds) < 2:
        return []
    sides = np.maximum(sizes, 1)
    roots = np.sqrt(sides.prod(axis=1))
    ratios = sides.max(axis=1) / sides.min(axis=1)
    root, ratio = np.median(roots[known]), np.median(ratios[known])
    odd_size = known & ((roots >= ODD_SIZE * root) | (roots <= root / ODD_SIZE))
    odd_shape = known & (ratios >= ODD_SHAPE * ratio)
    common = tuple(f"{width}x{height}: {plural(n, 'image')}" for (height, width), n in kinds.most_common(5))
    text = f"the images have {plural(len(kinds), 'size')}"
    found = [Finding(level="note", kind="sizes", message=text, count=len(kinds), examples=common)]
    far = f"{ODD_SIZE:g} times larger or smaller than usual (about {root:.0f} pixels)"
    long = f"much longer than wide, or wider than long ({ratio:.2g} to 1 is usual)"
    for kind, odd, rest in (("odd-size", odd_size, far), ("odd-shape", odd_shape, long)):
        rows = np.flatnonzero(odd).tolist()
        groups = tuple((places[names[row]],) for row in rows[:MOST_LISTED] if names[row] in places)
        examples = tuple(f"{names[row]}: {sizes[row][1]}x{sizes[row][0]}" for row in rows[:5])
        text = f"{plural(len(rows), 'image is', 'images are')} {rest}"
        if rows:
            found.append(
                Finding(level="note", kind=kind, message=text, count=len(rows), examples=examples, images=groups)
            )
    return found
