"""Several labels an image in a table of paths: columns of 0 and 1, lists, or texts with a sign between the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from zoo.base.text import plural
from zoo.data.label_sets import LabelSets
from zoo.data.sources.class_order import ClassOrder
from zoo.data.sources.table_files import LIST
from zoo.data.sources.table_labels import classes_of
from zoo.data.sources.table_rows import Codes, TableRows, Texts, Wrong, texts_of

YES_OR_NO = MappingProxyType({"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1})
"""What a cell of a class's column may hold, in any case."""

NEITHER = -1


class Labelled(NamedTuple):
    """The labels of all rows of a table.

    Attributes:
        labels: int64 (N,), or sets of classes (N, K). usable: bool (N,), which rows have labels. classes: all names.
        named: whether these are names; else they are numbers from 0. none: rows whose empty cell is an empty set.
    """

    labels: NDArray[Any]
    usable: NDArray[np.bool_]
    classes: tuple[str, ...]
    named: bool
    none: int = 0


def sets_of_columns(rows: TableRows, wrong: Wrong) -> LabelSets:
    """The columns of the classes as sets, uint8 (N, K); a row with another cell than 0 and 1 is wrong."""
    sets = np.zeros((len(rows), len(rows.columns.labels)), np.uint8)
    for place, name in enumerate(rows.columns.labels):
        texts = texts_of(rows.cells[name])
        found = texts.mapped([YES_OR_NO.get(text.casefold(), NEITHER) for text in texts.values], NEITHER)
        wrong.add(np.flatnonzero(found == NEITHER), partial(_neither, name, texts))
        sets[:, place] = found == 1
    return sets


def _neither(name: str, texts: Texts, row: int) -> str:
    cell = [*map(repr, texts.values), "nothing"][texts.codes[row]]
    return f"its column {name!r} holds {cell}; a column of a class holds 1 (the image shows it) or 0"


@dataclass(frozen=True)
class Lists:
    """A column in which each cell has any number of labels.

    Attributes:
        listed: of each different text its labels; None where it is no list and others are. are_lists: whether the
            cells are lists; else they are texts, divided at `separator`.
    """

    texts: Texts
    listed: list[list[str] | None] = field(repr=False)
    are_lists: bool
    separator: str = ""

    @classmethod
    def of(cls, texts: Texts, separator: str, *, several: bool) -> Lists | None:
        """The column as lists; None where it has one label a cell.

        Args:
            separator: "" for ";" if any cell has one, else ",". several: whether texts are divided at all.
        """
        if any(text.startswith(LIST) for text in texts.values):
            return cls(texts, [_list(text) for text in texts.values], are_lists=True)
        if not several:
            return None
        sign = separator or (";" if any(";" in text for text in texts.values) else ",")
        parts = ([part.strip() for part in text.split(sign)] for text in texts.values)
        return cls(texts, [[part for part in row if part] for row in parts], are_lists=False, separator=sign)

    def labelled(
        self, learns: NDArray[np.bool_], order: ClassOrder, where: str, wrong: Wrong, *, count: bool, empty: bool
    ) -> Labelled:
        """The labels as sets.

        Args:
            learns: bool (N,), which rows are training images. order, where, count: as of `classes_of`.
            empty: whether a cell with nothing in it is an image that shows no class; else the row has no label.
        """
        codes = self.texts.codes
        learnt = self._labels(np.unique(codes[learns & (codes >= 0)]))
        every = self._labels(np.arange(len(self.listed)))
        classes = classes_of(learnt, sorted(set(every) - set(learnt)), order, where, count=count)
        numbers = dict(zip(every, classes.numbers(every), strict=True))
        table = np.zeros((len(self.listed) + 1, len(classes.names)), np.uint8)  # the last row is of empty cells
        reasons = [""] * (len(self.listed) + 1)
        for row, labels in enumerate(self.listed):
            if labels is None:
                reasons[row] = f"its label {self.texts.values[row]!r} is no list, and those of other rows are lists"
            strange = [label for label in labels or () if numbers[label] < 0]
            if strange:
                known = f"the {plural(len(classes.names), 'class', 'classes')}{_listed_by(order)}"
                reasons[row] = f"its label {strange[0]!r} is none of {known}"
            else:
                table[row, [numbers[label] for label in labels or ()]] = 1
        is_wrong = np.array([bool(reason) for reason in reasons])
        wrong.add(np.flatnonzero(is_wrong[codes]), lambda row: reasons[codes[row]])
        usable = (codes >= 0) | empty
        return Labelled(table[codes], usable, classes.names, classes.named, int((codes < 0).sum()) if empty else 0)

    def _labels(self, rows: Codes) -> Sequence[str]:
        return sorted({label for row in rows.tolist() for label in self.listed[row] or ()})


def _listed_by(order: ClassOrder) -> str:
    return f" that {order.source} lists" if order.listed else ""


def _list(text: str) -> list[str] | None:
    return msgspec.json.decode(text.removeprefix(LIST), type=list[str]) if text.startswith(LIST) else None
