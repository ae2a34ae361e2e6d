"""Which column of a table holds what: by the options of the SPEC, else by usual names; never one of several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from zoo.errors import DataError, InputError

_FILE = ("path", "file", "filename", "filepath", "name", "id")

USUAL: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "path": frozenset({*_FILE[:4], "files", "relpath", "image", "images", "img"})
        | frozenset(f"{image}{word}" for image in ("image", "img") for word in _FILE),
        "label": frozenset({"label", "labels", "class", "classes", "target", "targets", "category", "categories", "y"})
        | frozenset(f"{label}{word}" for label in ("label", "class", "category") for word in ("name", "id")),
        "split": frozenset({"split", "splits", "subset", "partition", "set", "fold", "phase"}),
        "group": frozenset({"group", "groups", "groupid"}),
        "weight": frozenset({"weight", "weights", "sampleweight"}),
    }
)
"""What a column holds, to the names that it usually has, in lower case and without signs."""

NEEDED = ("path", "label")


class TableColumns(NamedTuple):
    """The names of the columns; None where the table has none of the kind."""

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    weight: str | None = None

    def read(self) -> tuple[str, ...]:
        """Those that there are, each once."""
        return tuple(dict.fromkeys(name for name in self if name is not None))

    def note(self) -> str:
        """Which columns are read, in words."""
        return ", ".join(f"{kind}: {name}" for kind, name in self._asdict().items() if name is not None)


def find_columns(header: Sequence[str], options: Mapping[str, Any], where: str) -> TableColumns:
    """Find the columns of a table.

    Args:
        header: the names of all columns. options: of the SPEC; an empty name says that there is no such column.
        where: the file, for messages.
    Raises:
        InputError: a needed column is missing, an option names none, or several columns may be meant.
        DataError: two columns that are needed have one name.
    """
    chosen = {kind: _chosen(kind, header, options.get(kind), where) for kind in USUAL}
    often = Counter(header)
    for name in chosen.values():
        if name is not None and often[name] > 1:
            raise DataError(f"{where}: {often[name]} columns are called {name!r}; give each a name of its own")
    return TableColumns(**chosen)  # type: ignore[arg-type]  # the needed ones are never None


def _chosen(kind: str, header: Sequence[str], option: Any, where: str) -> str | None:
    if option is not None:
        if str(option) not in header and (option or kind in NEEDED):
            raise InputError(f"{where}: no column {str(option)!r} (?{kind}=); columns: {_listed(header)}")
        return str(option) or None
    found = usual_column(kind, header, where)
    if found is None and kind in NEEDED:
        raise InputError(
            f"{where}: no column is known to hold the {kind}; columns: {_listed(header)}; name it by ?{kind}=COLUMN "
            "(the first row must name the columns)"
        )
    return found


def usual_column(kind: str, header: Sequence[str], where: str) -> str | None:
    """The column that has a usual name; None where there is none.

    Raises:
        InputError: several have.
    """
    found = list(dict.fromkeys(name for name in header if re.sub(r"[\W_]+", "", name.casefold()) in USUAL[kind]))
    if len(found) > 1:
        raise InputError(
            f"{where}: the columns {_listed(found)} could each hold the {kind}; name the one that is meant by "
            f"?{kind}=COLUMN{'' if kind in NEEDED else f', or none by ?{kind}='}"
        )
    return found[0] if found else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
