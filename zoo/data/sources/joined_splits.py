"""Puts the splits of a source together as a run needs them: validation images among those of training, marked as such.

A run reads two splits. Validation images that came with a dataset are rows of the training split whose column
`VALIDATES` says so; the rest of the program asks that column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.base.explain import shown
from zoo.data.sources.source import Rows
from zoo.data.sources.split_folders import role
from zoo.data.split import drawn_test
from zoo.data.types import GROUP, VALIDATES, Chunk, Columns, Labels
from zoo.errors import DataError

Side = Literal["train", "validation", "test"]

WORDS = "train, validation (val, valid, dev) or test, in any case"


class SideRows(NamedTuple):
    """Which rows of a table, or of a list, are each split: int64, ascending, disjoint."""

    train: Labels
    validation: Labels
    test: Labels


def side_of(value: object) -> Side | None:
    """The split that a value of a column stands for: of "Training" or "train_set", train; None for all other values."""
    found = role(value) if isinstance(value, str) else None
    if found is None or found.rest:
        return None
    sides: dict[str, Side] = {"train": "train", "val": "validation", "test": "test"}
    return sides[found.kind]


def sides_of(values: Iterable[object], where: str, column: str, *, whole: bool = False) -> SideRows:
    """Which rows are each split, by a column that says so.

    Args:
        where: names the file for a message. column: names the column.
        whole: for an evaluation: one split is enough, and validation images are the test where there is none.
    Raises:
        DataError: a value stands for no split, or no row is of the training split.
    """
    rows: dict[Side, list[int]] = {"train": [], "validation": [], "test": []}
    for row, value in enumerate(values):
        side = side_of(value)
        if side is None:
            what = "nothing (null)" if value is None else shown(value)
            raise DataError(f"{where} row {row}: column {column!r} holds {what}, which is no split; needed: {WORDS}")
        rows[side].append(row)
    if whole:
        rows["test"] = rows["test"] or rows["validation"] or rows["train"]
        rows["train"], rows["validation"] = rows["train"] or rows["test"], []
    if not rows["train"]:
        raise DataError(f"{where}: no row of column {column!r} is of the training split; needed: {WORDS}")
    return SideRows(*(np.array(of_side, np.int64) for of_side in rows.values()))


# ---- rows ---------------------------------------------------------------------------------------------


def chosen_rows(rows: Rows, which: Labels) -> Rows:
    """Some of the rows; the others are passed over undecoded.

    Args:
        which: int64, ascending.
    """

    def chunks() -> Iterator[Chunk]:
        start = 0
        for chunk in rows.chunks():
            first, last = np.searchsorted(which, [start, start + len(chunk)])
            inside = which[first:last] - start
            if len(inside):
                yield chunk[inside] if isinstance(chunk, np.ndarray) else [chunk[i] for i in inside.tolist()]
            start += len(chunk)

    return replace(
        rows,
        labels=rows.labels[which],
        chunks=chunks,
        where=lambda i: rows.where(int(which[i])),
        files=[rows.files[i] for i in which.tolist()] if len(rows.files) == len(rows.labels) else rows.files,
        columns={name: values[which] for name, values in rows.columns.items()},
    )


def marked(rows: Rows, validates: NDArray[np.bool_]) -> Rows:
    """The rows of a training split, some of which only validate: bool (N,); as they are where none does."""
    return replace(rows, columns={**rows.columns, VALIDATES: validates}) if validates.any() else rows


def with_validation(train: Rows, validation: Rows) -> Rows:
    """The training split with validation images behind its own, which are learnt from."""
    count, more = len(train.labels), len(validation.labels)

    def chunks() -> Iterator[Chunk]:
        yield from train.chunks()
        yield from validation.chunks()

    joined = replace(
        train,
        labels=np.concatenate([train.labels, validation.labels]),
        chunks=chunks,
        where=lambda i: train.where(i) if i < count else validation.where(i - count),
        files=(*train.files, *validation.files),
        columns=_both(train.columns, validation.columns),
    )
    return marked(joined, np.arange(count + more) >= count)


def _both(first: Columns, second: Columns) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([first[name], second[name]]) for name in first.keys() & second.keys()}


def divided(rows: Rows, sides: SideRows) -> tuple[Rows, Rows]:
    """Training (validation images among them) and test rows of one table."""
    learnt = np.sort(np.concatenate([sides.train, sides.validation]))
    return marked(chosen_rows(rows, learnt), np.isin(learnt, sides.validation)), chosen_rows(rows, sides.test)


def with_drawn_test(rows: Rows, seed: int, where: str) -> tuple[Rows, Rows]:
    """The training split without a fifth that becomes the test: of the images that are learnt from, groups whole.

    Raises:
        DataError: as `zoo.data.split.drawn_test`.
    """
    validates = rows.columns.get(VALIDATES, np.zeros(len(rows.labels), bool))
    free, groups = np.flatnonzero(~validates), rows.columns.get(GROUP)
    _, test = drawn_test(rows.labels[free], seed, where, None if groups is None else groups[free])
    train, held = (chosen_rows(rows, part) for part in (np.delete(np.arange(len(validates)), free[test]), free[test]))
    return train, replace(held, columns={name: v for name, v in held.columns.items() if name != VALIDATES})


def group_numbers(sides: Sequence[Sequence[object]], where: str) -> list[Labels]:
    """The numbers of groups, alike in all splits, by values that name them; a row without a value is its own group.

    Args:
        sides: the values of each split. where: names the column for a message.
    Raises:
        DataError: a value is no text and no number.
    """
    known: dict[object, int] = {}
    numbers = []
    for values in sides:
        of_side = []
        for row, value in enumerate(values):
            if isinstance(value, list | dict | tuple):
                raise DataError(
                    f"{where}, row {row}: holds {shown(value)}, which names no group; needed: texts or numbers"
                )
            missing = value is None or value != value  # NaN
            of_side.append(known.setdefault(("no group", len(known)) if missing else value, len(known)))
        numbers.append(np.array(of_side, np.int64))
    return numbers
