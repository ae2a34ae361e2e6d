"""What a source of images offers: its identity, and two splits that are read in chunks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.base.stamps import stamp
from zoo.data.findings import Finding
from zoo.data.label_sets import LabelSets, has_sets
from zoo.data.shards.shuffle import Shuffle
from zoo.data.sources.labels import as_labels
from zoo.data.types import CHUNK, Chunk, Columns, Images, Item, Labels, SplitsFrom
from zoo.errors import DataError


class Show(Protocol):
    """Receives progress: a description, images done, images in all."""

    def __call__(self, description: str, done: int, total: int, /) -> None:
        """Show that `done` of `total` images are decoded."""


def silent(description: str, done: int, total: int, /) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Rows:
    """One split, undecoded.

    Attributes:
        labels: int64 (N,); or, of several labels an image, uint8 (N, K), see `zoo.data.label_sets`.
        chunks: a fresh iterator over the images, in the order of the labels.
        where: names row i for an error message (a path, a row of a file).
        copies: as in `zoo.data.split.Split`.
        files: image files that the source's identity says nothing of: decoded again when one of them changes.
        columns: what else the source knows of each image; what they hold is part of its identity.
    """

    labels: NDArray[Any]
    chunks: Callable[[], Iterator[Chunk]]
    where: Callable[[int], str]
    copies: int = 1
    files: Sequence[Path] = ()
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """A source's two splits; `classes` is empty where the source has no names.

    Attributes:
        ignored: files that were no images, or rows without a label. findings: what was seen while the labels were read;
            kept with the images. splits_from: where validation and test came from. skipped: rows left out, as they
            cannot be used.
    """

    train: Rows
    test: Rows
    classes: tuple[str, ...] = ()
    ignored: int = 0
    findings: tuple[Finding, ...] = ()
    splits_from: SplitsFrom = SplitsFrom()  # noqa: RUF009 - a named tuple does not change
    skipped: int = 0


@dataclass(frozen=True)
class Request:
    """What a source is asked for.

    Attributes:
        rest: the part of the SPEC after the scheme. options: the source's own options.
        data_dir: folder for downloads. seed: of a split that the source does not have itself.
        given: whether the user chose data_dir. whole: what has one split alone is not divided: each side is all of it.
        earlier: read as versions did that knew no validation split of a dataset's own, for the runs that they recorded.
        skip_bad: leave out what cannot be used.
        several: images may have several labels. shuffle: how a run shuffled images in shards, as it recorded it.
        show: told about the progress where many shards are listed.
    """

    rest: str
    data_dir: Path
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    given: bool = False
    whole: bool = False
    earlier: bool = False
    skip_bad: bool = False
    several: bool = False
    shuffle: Shuffle | None = None
    show: Show = silent


class Source(Protocol):
    """A place that images come from."""

    def identity(self) -> dict[str, Any]:
        """What the decoded images depend on (JSON), found without decoding: paths, sizes, times."""

    def open(self) -> Opened:
        """The splits, ready to be read; downloads what is missing."""


class Once:
    """A source that is asked once, though several parts of the loading want to know."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return self.source.identity()

    @cached_property
    def _opened(self) -> Opened:
        return self.source.open()

    def identity(self) -> dict[str, Any]:
        """As the source's."""
        return self._identity

    def open(self) -> Opened:
        """As the source's."""
        return self._opened

    def content(self) -> tuple[str, Iterator[Chunk]]:
        """What the pixels of all images depend on, and the images, undecoded where they are; opens nothing yet."""
        sides = ("train", "test")
        chunks = (chunk for side in sides for chunk in getattr(self.open(), side).chunks())
        files = [stamp(str(path)) for path in getattr(self.source, "given_files", tuple)()]
        depends = {**self.identity(), **({"files": files} if files else {})}
        return json.dumps(depends, sort_keys=True, default=str), chunks


def as_nchw(array: ArrayLike) -> Images:
    """Bring decoded images into our layout.

    Args:
        array: uint8, (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W).
    Returns:
        uint8 (n, 3, H, W); gray images have three equal channels.
    Raises:
        DataError: another type or shape.
    """
    array = np.asarray(array)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] not in (1, 3):
        raise DataError(f"images are {array.dtype} of shape {array.shape}; uint8 with 1 or 3 channels is needed")
    return np.broadcast_to(array, (array.shape[0], 3, *array.shape[2:]))


def array_rows(array: NDArray[np.uint8], labels: ArrayLike | LabelSets, name: str, rows: Labels | None = None) -> Rows:
    """A split from decoded images in memory (see `as_nchw`), or of the chosen `rows` of them."""
    chosen = np.arange(len(array)) if rows is None else rows

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(chosen), CHUNK):
            yield as_nchw(array[chosen[start : start + CHUNK]])

    numbers = _numbers_or_sets(labels, lambda i: f"{name}, image {i}")
    return Rows(numbers[chosen], chunks, lambda i: f"{name}, image {int(chosen[i])}")


def item_rows(items: Sequence[Item], labels: ArrayLike | LabelSets, where: Callable[[int], str]) -> Rows:
    """A split from items that are decoded one by one; labels are one class an image, or sets (N, K) of uint8."""

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(items), CHUNK):
            yield items[start : start + CHUNK]

    return Rows(_numbers_or_sets(labels, where), chunks, where)


def _numbers_or_sets(labels: ArrayLike | LabelSets, where: Callable[[int], str]) -> NDArray[Any]:
    """Class numbers, int64 (N,); sets of classes, uint8 (N, K), as they are."""
    if isinstance(labels, np.ndarray) and has_sets(labels) and labels.dtype == np.uint8 and labels.shape[1] > 1:
        return labels
    return as_labels(labels, where)
