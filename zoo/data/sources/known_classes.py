"""One numbering of classes for all splits of a dataset, and what becomes of classes that only some of them have.

A class that training lacks keeps its number while a dataset is loaded, so that a check can report it. Training refuses
it, or `?drop-unknown` leaves out its images.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.base.text import plural
from zoo.data.findings import Finding
from zoo.data.label_sets import has_sets, moved, present_classes
from zoo.data.sources.joined_splits import chosen_rows
from zoo.data.sources.source import Opened, Rows, Source
from zoo.data.types import VALIDATES, Labels
from zoo.errors import DataError


def one_numbering(first: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], list[Labels]]:
    """One list of classes for all splits: the first one's, then those that it lacks, in the order of their names.

    Names are the same whichever way they spell an accent. A class that the first list lacks keeps its images here: who
    trains refuses it, or leaves it out.

    Returns:
        (the names; for each of `others` the new number of each of its classes).
    Raises:
        DataError: the lists differ, and a name stands for several classes.
    """
    if all(names == first for names in others):
        return first, [np.arange(len(first)) for _ in others]
    for names in (first, *others):
        if len({*map(_composed, names)}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"the splits have different classes, and {twice!r} is the name of several: rename them")
    places = {_composed(name): place for place, name in enumerate(first)}
    more = sorted({_composed(name) for names in others for name in names} - places.keys())
    places |= {name: place for place, name in enumerate(more, len(places))}
    return (*first, *more), [np.array([places[_composed(name)] for name in names], np.int64) for names in others]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


class Known(NamedTuple):
    """What is left where classes without training images are left out.

    Attributes:
        train, test: the rows that stay. places: the new number of each class, -1 of those left out.
        classes: their names, "" where there were none and the numbers do not change.
    """

    train: Labels
    test: Labels
    places: Labels
    classes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def remaining(self) -> int:
        """Number of classes that are left."""
        return int((self.places >= 0).sum())


def known_classes(
    classes: tuple[str, ...], train: NDArray[Any], validates: NDArray[np.bool_], test: NDArray[Any]
) -> Known | None:
    """Leave out the classes that have no training images, and the validation and test images of them.

    An image with several labels stays, with those of its classes that are known.

    Args:
        classes: names, or none where the labels are numbers alone.
        train, test: labels, int64 (N,), or sets (N, K). validates: bool, which training rows only validate.
    Returns:
        None where every class has training images.
    """
    if has_sets(train):
        return _known_of_sets(classes, train[~validates], len(train), len(test))
    count = len(classes) or int(max(train.max(initial=-1), test.max(initial=-1))) + 1
    known = np.unique(train[~validates])
    known = known[(known >= 0) & (known < count)]
    if len(known) == count:
        return None
    places = np.full(count, -1, np.int64)
    places[known] = np.arange(len(known))
    numbered = not classes and int(known.max(initial=-1)) == len(known) - 1
    names = classes or tuple(map(str, range(count)))
    kept, others = (np.flatnonzero((its < 0) | (its >= count) | np.isin(its, known)) for its in (train, test))
    left = len(train) - len(kept) + len(test) - len(others)
    lost = tuple(name for name, place in zip(names, places.tolist(), strict=True) if place < 0)
    text = f"{plural(left, 'image')} of {plural(len(lost), 'class')} without training images left out (?drop-unknown)"
    finding = Finding(level="warning", kind="dropped-class", message=text, count=left, examples=lost[:5])
    left_names = () if numbered else tuple(names[i] for i in known.tolist())
    return Known(kept, others, places, left_names, (finding,) if left else ())


def _known_of_sets(classes: tuple[str, ...], learnt: NDArray[Any], train: int, test: int) -> Known | None:
    """As `known_classes`, by the sets of the images that are learnt from; `train`, `test`: numbers of images."""
    known, count = present_classes(learnt), learnt.shape[1]
    if len(known) == count:
        return None
    names = classes or tuple(map(str, range(count)))
    places = np.full(count, -1, np.int64)
    places[known] = np.arange(len(known))
    lost = tuple(name for name, place in zip(names, places.tolist(), strict=True) if place < 0)
    text = f"{plural(len(lost), 'class', 'classes')} without training images left out (?drop-unknown); all images stay"
    finding = Finding(level="warning", kind="dropped-class", message=text, count=len(lost), examples=lost[:5])
    return Known(np.arange(train), np.arange(test), places, tuple(names[i] for i in known.tolist()), (finding,))


class KnownClasses:
    """A source without the classes that have no training images: the option `?drop-unknown`."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def identity(self) -> dict[str, Any]:
        """As the source's, and that classes are left out."""
        return self.source.identity() | {"drop_unknown": True}

    def open(self) -> Opened:
        """The splits without these images."""
        opened = self.source.open()
        train, test = opened.train, opened.test
        validates = train.columns.get(VALIDATES, np.zeros(len(train.labels), bool))
        known = known_classes(opened.classes, train.labels, validates, test.labels)
        if known is None:
            return opened
        train, test = chosen_rows(train, known.train), chosen_rows(test, known.test)
        train, test = (renumbered(side, known.places, known.remaining) for side in (train, test))
        findings = (*opened.findings, *known.findings)
        return replace(opened, train=train, test=test, classes=known.classes, findings=findings)


def renumbered(rows: Rows, places: Labels, count: int) -> Rows:
    """The rows with other class numbers: `places` has the new one of each; what is no class stays.

    Args:
        count: number of classes there are then.
    """
    if has_sets(rows.labels):
        return replace(rows, labels=moved(rows.labels, places, count))
    fits = (rows.labels >= 0) & (rows.labels < len(places))
    if not fits.any():
        return rows
    return replace(rows, labels=np.where(fits, places[np.where(fits, rows.labels, 0)], rows.labels))
