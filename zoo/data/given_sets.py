"""Several labels an image, as they are given in Python: lists of classes, or rows of 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo.base.explain import shown
from zoo.data.label_sets import LabelSets, sets_from_numbers
from zoo.data.sources.labels import class_number, why_no_class
from zoo.errors import DataError

Where = Callable[[int], str]


def is_set(label: Any) -> bool:
    """Whether a label stands for several classes: a list, tuple or set of them, or a row of 0 and 1 as an array."""
    return isinstance(label, list | tuple | set | frozenset) or (isinstance(label, np.ndarray) and label.ndim == 1)


def label_sets(
    sides: Sequence[tuple[Sequence[Any], Where]], names: tuple[str, ...]
) -> tuple[list[LabelSets], tuple[str, ...]]:
    """The labels of splits as sets of classes.

    Args:
        sides: of each split the labels, and what names image i. names: of the classes; empty where none were given.
    Returns:
        uint8 (N, K) of each split, and the names; the texts that occur, sorted, where none were given.
    Raises:
        DataError: names the first image whose label is no set of classes.
    """
    listed = [[_listed(label, where, row) for row, label in enumerate(labels)] for labels, where in sides]
    texts = sorted({one for side in listed for row in side for one in row if isinstance(one, str)})
    names = names or tuple(texts)
    places = {name: place for place, name in enumerate(names)}
    numbers = [
        [[_number(one, places, len(names), where, row) for one in labels] for row, labels in enumerate(side)]
        for side, (_, where) in zip(listed, sides, strict=True)
    ]
    widths = [len(label) for labels, _ in sides for label in labels if isinstance(label, np.ndarray)]
    largest = max((number for side in numbers for row in side for number in row), default=-1)
    count = len(names) or max([largest + 1, *widths])
    return [sets_from_numbers(side, count) for side in numbers], names


def _listed(label: Any, where: Where, row: int) -> list[Any]:
    """The classes of one image."""
    if isinstance(label, np.ndarray):
        if not np.isin(label, (0, 1)).all():
            raise DataError(
                f"{where(row)}: its label is {shown(label.tolist())}; an array has 1 for each class that the image "
                "shows, and 0 for the others (a list names the classes)"
            )
        numbers: list[Any] = np.flatnonzero(label).tolist()
        return numbers
    if not is_set(label):
        raise DataError(f"{where(row)}: its label is {shown(label)}, and other images have lists of labels")
    return sorted(label, key=str)


def _number(label: Any, places: dict[str, int], classes: int, where: Where, row: int) -> int:
    number = places.get(label) if isinstance(label, str) else class_number(label)
    if number is None or number < 0 or (classes and number >= classes):
        raise DataError(f"{where(row)}: a label {why_no_class(label)}; classes: {', '.join(places) or 'from 0'}")
    return number
