"""A table that a terminal, a notebook, pandas and polars show and take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from zoo.base.text import printable_line

SHOWN = 60
"""Rows that a terminal or a notebook shows; all are there."""

MOST_CHARACTERS = 48
"""Of a cell that a terminal shows."""


class Table(Sequence[dict[str, Any]]):
    """Rows with named columns; it does not change.

    It is a sequence of dictionaries, which `pandas.DataFrame(table)` and `polars.DataFrame(table)` take as it is. A row
    that lacks a column has None there.

    Example:
        >>> table = Table([{"model": "a", "top1": 0.9}, {"model": "b", "top1": 0.8}])
        >>> table[0]["model"], table.column("top1"), len(table)
        ('a', [0.9, 0.8], 2)
    """

    __slots__ = ("_columns", "_rows")

    def __init__(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Make a table of rows.

        Args:
            columns: the names, in their order; default: those of the rows, in the order in which they appear.
        """
        kept = list(rows)
        names = tuple(columns) or tuple(dict.fromkeys(name for row in kept for name in row))
        object.__setattr__(self, "_columns", names)
        object.__setattr__(self, "_rows", tuple(_copy({name: row.get(name) for name in names}) for row in kept))

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse any change.

        Raises:
            AttributeError: always.
        """
        raise AttributeError("a Table does not change")

    def __delattr__(self, name: str) -> None:
        """Refuse any change.

        Raises:
            AttributeError: always.
        """
        raise AttributeError("a Table does not change")

    def __setstate__(self, state: tuple[object, dict[str, Any]]) -> None:
        """Take the attributes of a table that was pickled or copied, also those of a kind of table."""
        for name, value in state[1].items():
            object.__setattr__(self, name, value)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        names: tuple[str, ...] = self._columns  # type: ignore[attr-defined]
        return names

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """The rows, copied: changing them does not change the table."""
        return tuple(_copy(row) for row in self._kept)

    @property
    def _kept(self) -> tuple[dict[str, Any], ...]:
        rows: tuple[dict[str, Any], ...] = self._rows  # type: ignore[attr-defined]
        return rows

    def column(self, name: str) -> list[Any]:
        """The values of one column.

        Raises:
            KeyError: there is no such column; names those that there are.
        """
        if name not in self.columns:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.columns)}")
        return _copy([row[name] for row in self._kept])

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Table: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Table:
        """One row as a dictionary, or a table of some rows."""
        if isinstance(index, slice):
            return Table(self._kept[index], self.columns)
        return _copy(self._kept[index])

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._kept)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, each as a dictionary."""
        return map(_copy, self._kept)

    def __eq__(self, other: object) -> bool:
        """Whether columns and rows are equal."""
        return isinstance(other, Table) and (self.columns, self._kept) == (other.columns, other._kept)

    def __hash__(self) -> int:
        """By the columns and the number of rows."""
        return hash((self.columns, len(self)))

    def _has_numbers(self, name: str) -> bool:
        known = [value for row in self._kept if (value := row[name]) is not None]
        return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)

    def __repr__(self) -> str:
        """The table in aligned columns."""
        if not len(self):
            return f"Table(no rows; columns: {', '.join(self.columns) or 'none'})"
        cells = [list(self.columns), *([shown(row[c]) for c in self.columns] for row in self._kept[:SHOWN])]
        cells = [[_cut(cell) for cell in row] for row in cells]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        right = [self._has_numbers(name) for name in self.columns]
        lines = [
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
            for row in cells
        ]
        more = [f"... {len(self) - SHOWN} more rows"] if len(self) > SHOWN else []
        return "\n".join(lines + more)

    def _repr_html_(self) -> str:
        """The table as notebooks show it."""
        import html  # not needed where rows are only listed

        right = [' style="text-align: right"' if self._has_numbers(name) else "" for name in self.columns]
        head = "".join(f"<th{r}>{html.escape(name)}</th>" for name, r in zip(self.columns, right, strict=True))
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{r}>{html.escape(shown(row[name]))}</td>" for name, r in zip(self.columns, right, strict=True)
            )
            + "</tr>"
            for row in self._kept[:SHOWN]
        )
        more = f"<p>... {len(self) - SHOWN} more rows</p>" if len(self) > SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _copy(value: Any) -> Any:
    """A value whose lists and dictionaries are its own."""
    if isinstance(value, dict):  # most cells are numbers and texts, and need no call
        return {key: _copy(inner) if isinstance(inner, dict | list) else inner for key, inner in value.items()}
    return [_copy(inner) if isinstance(inner, dict | list) else inner for inner in value]


def shown(value: Any) -> str:
    """A value as people read it in a cell: numbers with six digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(shown(v) for v in value)
    return str(value)


def _cut(text: str) -> str:
    return printable_line(text, MOST_CHARACTERS)
