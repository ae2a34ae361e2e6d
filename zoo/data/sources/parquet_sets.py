"""Several labels an image in a table: a column of lists, or a column of 0 and 1 for each class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.base.explain import shown
from zoo.base.text import plural
from zoo.data.label_sets import LabelSets, sets_from_columns, sets_from_numbers
from zoo.data.sources.labels import class_number, why_no_class
from zoo.errors import DataError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

Cells = Iterable[tuple[object, list[Any]]]
"""The values of a column, file by file."""


def holds_lists(schema: pa.Schema, column: str) -> bool:
    """Whether a column holds a list of labels for each image."""
    import pyarrow as pa

    kind = schema.field(column).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def inner_feature(feature: dict[str, Any]) -> dict[str, Any]:
    """What the Hub's metadata say of the parts of a column of lists; of any other column, what they say of it."""
    inner = feature.get("feature")
    return inner if isinstance(inner, dict) else feature


def column_names(option: Any, where: str) -> tuple[str, ...]:
    """The columns that the option `labels` names.

    Raises:
        InputError: fewer than two, or one of them twice.
    """
    names = tuple(str(option).split(",")) if option else ()
    if option is not None and (len(names) < 2 or len(set(names)) < len(names) or "" in names):
        raise InputError(
            f"{where}: labels={option}: give the columns of two or more classes, each once: ?labels=cat,dog,bird; a "
            "column of lists is named by ?label=COLUMN"
        )
    return names


def texts_of_lists(cells: Cells) -> tuple[str, ...]:
    """The texts in a column of lists, sorted; none where its labels are numbers."""
    texts: set[str] = set()
    for _, values in cells:
        texts.update(label for value in values if isinstance(value, list) for label in value if isinstance(label, str))
    return tuple(sorted(texts))


def _numbers(cells: Cells, column: str, classes: Sequence[str]) -> Iterator[list[int]]:
    """The class numbers of each image.

    Raises:
        DataError: names the first row that holds anything but a list of classes.
    """
    places = {name: place for place, name in enumerate(classes)}
    for path, values in cells:
        for row, value in enumerate(values):
            where = f"{path} row {row}: column {column!r}"
            if not isinstance(value, list):
                raise DataError(f"{where} holds no list ({shown(value)}); an image without labels has an empty one")
            numbers = [places.get(one) if isinstance(one, str) else class_number(one) for one in value]
            for label, number in zip(value, numbers, strict=True):
                if number is None or number < 0 or (classes and number >= len(classes)):
                    known = f"; there are {plural(len(classes), 'class')}, counted from 0" if number is not None else ""
                    raise DataError(f"{where}: a label {why_no_class(label)}{known}")
            yield [number for number in numbers if number is not None]


def most_number(cells: Cells, column: str) -> int:
    """The largest class number in a column of lists; -1 where all are empty."""
    return max((number for numbers in _numbers(cells, column, ()) for number in numbers), default=-1)


def sets_of_lists(cells: Cells, column: str, classes: Sequence[str], count: int) -> LabelSets:
    """A column of lists as sets of `count` classes: uint8 (N, count).

    Args:
        classes: names, in the order of the numbers; none where labels are numbers.
    Raises:
        DataError: names the first row whose labels are no classes.
    """
    return sets_from_numbers(list(_numbers(cells, column, classes)), count)


def _row_of(path: object, row: int) -> str:
    return f"{path} row {row}"


def sets_of_columns(columns: Sequence[Cells], names: Sequence[str]) -> LabelSets:
    """Columns of 0 and 1 as sets: uint8 (N, classes).

    Raises:
        DataError: names the first row that holds anything else.
    """
    parts = []
    for files in zip(*columns, strict=True):
        where = partial(_row_of, files[0][0])
        parts.append(sets_from_columns([values for _, values in files], names, where))
    return np.concatenate(parts)
