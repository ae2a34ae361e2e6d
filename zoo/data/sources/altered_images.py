"""Altered copies of a dataset: fixed transforms of whole splits, for test conditions and larger sets.

A dataset's options `alter_train` and `alter_test` list alterations; the split becomes one copy of its
images per entry, in that order, so `alter_test = ["grayscale"]` exchanges the test split for its gray
version and `alter_train = ["original", "flip"]` doubles the training set. Entries: "original",
"grayscale", "brightness:FACTOR", "flip", "vertical-flip", "transpose", and chains of them by "+".
Source: Liu and Xu, "From CNN to Other Models We are Trying to Understand" (grayscale, brightness x 0.75,
flips, five-fold training set).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from zoo.data.sources.source import Opened, Rows
from zoo.data.split import Split
from zoo.data.types import CHUNK, Chunk, Images
from zoo.errors import InputError

Alteration = Callable[[Images], Images]


def grayscale(images: Images) -> Images:
    """ITU-R 601 luma in all three channels: uint8 (N, 3, H, W) to the same."""
    luma = np.tensordot(np.array([0.299, 0.587, 0.114]), images.astype(np.float64), axes=(0, 1))
    return np.repeat(np.rint(luma).astype(np.uint8)[:, None], 3, axis=1)


def brightness(images: Images, factor: float) -> Images:
    """Pixel values times `factor`, rounded and clamped to 0..255."""
    return np.clip(np.rint(images.astype(np.float32) * factor), 0, 255).astype(np.uint8)


_SIMPLE: Mapping[str, Alteration] = MappingProxyType(
    {
        "original": lambda images: images,
        "grayscale": grayscale,
        "flip": lambda images: images[..., ::-1],
        "vertical-flip": lambda images: images[..., ::-1, :],
        "transpose": lambda images: images.swapaxes(-1, -2),
    }
)


def alteration(name: str) -> Alteration:
    """The function that a name in `alter_train` or `alter_test` stands for.

    Raises:
        InputError: unknown; lists the allowed ones.
    """
    steps = [_single(part) for part in name.split("+")]

    def chained(images: Images) -> Images:
        for step in steps:
            images = step(images)
        return images

    return chained


def _single(name: str) -> Alteration:
    if name in _SIMPLE:
        return _SIMPLE[name]
    kind, _, value = name.partition(":")
    try:
        factor = float(value)
    except ValueError:
        factor = -1.0
    if kind == "brightness" and 0 <= factor < 256:
        return lambda images: brightness(images, factor)
    raise InputError(f"no alteration named {name!r}; allowed: {', '.join(_SIMPLE)}, brightness:FACTOR")


def _altered(split: Split, names: Sequence[str]) -> Rows:
    changes = [alteration(name) for name in names]

    def chunks() -> Iterator[Chunk]:
        for change in changes:
            for start in range(0, len(split), CHUNK):
                yield change(np.asarray(split.images[start : start + CHUNK]))

    @cache
    def origins() -> list[str]:
        return split.origins()

    def where(row: int) -> str:
        return f"{origins()[row % len(split)]} ({names[row // len(split)]})"

    columns = {name: np.concatenate([values] * len(names)) for name, values in split.columns.items()}
    return Rows(np.concatenate([split.labels] * len(names)), chunks, where, copies=len(names), columns=columns)


@dataclass(frozen=True)
class Altered:
    """A source that alters the splits of another one, already decoded.

    Attributes:
        key: of the other one's cache entry, which its bytes are a function of.
    """

    key: str
    fingerprint: str
    base_train: Split
    base_test: Split
    classes: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """The other one's cache key and fingerprint, and the alterations."""
        return {"of": self.key, "sha256": self.fingerprint, "train": self.train, "test": self.test}

    def open(self) -> Opened:
        """Rows that are computed while they are written."""
        train, test = _altered(self.base_train, self.train), _altered(self.base_test, self.test)
        return Opened(train, test, self.classes)
