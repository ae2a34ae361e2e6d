"""Several labels an image: which of the classes each image shows, as a matrix in place of one number an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo.base.explain import shown
from zoo.data.types import Labels
from zoo.errors import DataError

Task = Literal["single-label", "multi-label"]
"""Whether each image has one class, or any number of them."""

LabelSets = NDArray[np.uint8]
"""uint8 (N, K): 1 where an image shows a class."""


def has_sets(labels: NDArray[Any]) -> bool:
    """Whether labels are sets of classes, (N, K); else they are one class an image, (N,)."""
    return labels.ndim == 2


def strata(labels: NDArray[Any]) -> Labels:
    """What images are divided by, so that all parts have the classes in the same shares.

    Returns:
        int64 (N,): the class, where each image has one. Of sets, the rarest class of each image, since the frequent
        ones are in every part anyway; K for images that show none.
    """
    if not has_sets(labels):
        return labels
    counts = labels.sum(0, dtype=np.int64)
    often = np.where(labels > 0, counts, np.iinfo(np.int64).max)
    return np.where(labels.any(1), often.argmin(1), labels.shape[1]).astype(np.int64)


def as_sets(labels: NDArray[Any], classes: int) -> LabelSets:
    """One class an image as sets of one class; sets as they are."""
    if has_sets(labels):
        return labels
    sets = np.zeros((len(labels), classes), np.uint8)
    sets[np.arange(len(labels)), labels] = 1
    return sets


def sets_from_numbers(numbers: Sequence[Sequence[int]], classes: int) -> LabelSets:
    """Lists of class numbers, each below `classes`, as sets."""
    sets = np.zeros((len(numbers), classes), np.uint8)
    rows = np.repeat(np.arange(len(numbers)), [len(row) for row in numbers])
    sets[rows, np.fromiter((number for row in numbers for number in row), np.int64, len(rows))] = 1
    return sets


def sets_from_columns(columns: Sequence[Sequence[Any]], names: Sequence[str], where: Callable[[int], str]) -> LabelSets:
    """Columns of 0 and 1, one a class, as sets.

    Args:
        columns: the values of each class; numbers, truth values, or the texts "0" and "1".
        names: of the columns. where: names row i for a message.
    Raises:
        DataError: names the first row that holds anything else.
    """
    sets = np.zeros((len(columns[0]) if columns else 0, len(columns)), np.uint8)
    for place, values in enumerate(columns):
        for row, value in enumerate(values):
            if value not in (0, 1) and value not in ("0", "1"):
                what = "nothing (null)" if value is None else shown(value)
                raise DataError(
                    f"{where(row)}: column {names[place]!r} holds {what}; a column of a class holds 1 (the image shows "
                    "it) or 0"
                )
            sets[row, place] = int(value)
    return sets


def images_per_class(labels: NDArray[Any], classes: int) -> list[int]:
    """How many images show each class."""
    if has_sets(labels):
        counts: list[int] = labels.sum(0, dtype=np.int64).tolist()
        return counts
    return np.bincount(labels, minlength=classes).tolist()


def moved(labels: NDArray[Any], places: Labels, count: int) -> NDArray[Any]:
    """Labels of another numbering.

    Args:
        labels: int64 (N,), or sets (N, K). places: int64 (K,), the new number of each class; -1: it is left out.
        count: number of classes there are then.
    Returns:
        int64 (N,), or sets (N, count); a class without a former number is in none of them.
    """
    if not has_sets(labels):
        return places[labels]
    sets = np.zeros((len(labels), count), np.uint8)
    kept = np.flatnonzero(places >= 0)
    np.maximum.at(sets.T, places[kept], labels.T[kept])
    return sets


def present_classes(labels: NDArray[Any]) -> Labels:
    """The numbers of the classes that images show, ascending: int64."""
    return np.flatnonzero(labels.any(0)) if has_sets(labels) else np.unique(labels)


def shows(labels: NDArray[Any], number: int) -> NDArray[np.bool_]:
    """Which images show a class: bool (N,)."""
    found: NDArray[np.bool_] = labels[:, number] > 0 if has_sets(labels) else labels == number
    return found


def label_keys(labels: NDArray[Any]) -> list[Any]:
    """A value for each image that is equal where the labels are: the class, or the bytes of the set."""
    return [row.tobytes() for row in labels] if has_sets(labels) else labels.tolist()


def label_text(label: Any, classes: Sequence[str]) -> str:
    """The label of an image in words: the name of its class, or of all its classes."""
    if np.ndim(label) == 0:
        return classes[int(label)]
    return ", ".join(classes[number] for number in np.flatnonzero(label).tolist()) or "no class"
