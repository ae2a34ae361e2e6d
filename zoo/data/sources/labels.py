"""Labels of any source as class numbers; what cannot be one is refused, never cut to fit."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from zoo.base.explain import shown
from zoo.data.types import Labels
from zoo.errors import DataError

MOST_CLASSES = 100_000
"""A larger class number is a number of another kind (an identifier, a damaged value)."""


def composed(name: str) -> str:
    """A name with composed characters (NFC), so that two spellings of an accent are one name."""
    return unicodedata.normalize("NFC", name)


def class_number(value: Any) -> int | None:
    """The class that a whole number stands for; None for all that is no class."""
    if isinstance(value, bool | int | np.bool_ | np.integer):
        number = int(value)
    elif isinstance(value, float | np.floating) and float(value).is_integer():
        number = int(value)  # a column of integers in which one was missing once
    else:
        return None
    return number if number < MOST_CLASSES else None


def why_no_class(value: Any) -> str:
    """What is wrong with a label."""
    what = f"holds {'nothing (null)' if value is None else shown(value)}"
    if isinstance(value, bytes | bytearray):
        return f"{what}, bytes; a class is a whole number or a text"
    if isinstance(value, list | tuple | dict | np.ndarray):
        return f"{what}; an image has one class, a whole number or a text"
    if isinstance(value, int | float | np.number) and value >= MOST_CLASSES:
        return f"{what}; classes are numbered from 0, below {MOST_CLASSES:,}"
    return f"{what}, which is not a class"


def class_numbers(values: Iterable[Any], where: Callable[[int], str]) -> Labels:
    """Class numbers of a list.

    Args:
        where: names the image of row i.
    Returns:
        int64 (N,).
    Raises:
        DataError: names the first image whose label is no class.
    """
    numbers = []
    for row, value in enumerate(values):
        number = class_number(value)
        if number is None:
            raise DataError(f"{where(row)}: its label {why_no_class(value)}")
        numbers.append(number)
    return np.asarray(numbers, np.int64)


def as_labels(labels: ArrayLike, where: Callable[[int], str]) -> Labels:
    """`class_numbers` of an array, quickly where it holds integers that all fit.

    Raises:
        DataError: names the first image whose label is no class.
    """
    try:
        array = np.asarray(labels)
    except ValueError:  # lists of several lengths
        return class_numbers(labels, where)  # type: ignore[arg-type]
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    fits = array.dtype.kind in "iub" and array.ndim == 1
    if fits and (not len(array) or int(array.max()) < MOST_CLASSES):
        return array.astype(np.int64)
    return class_numbers(array.tolist() if array.ndim == 1 else list(array), where)
