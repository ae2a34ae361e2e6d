"""Which column of a table holds what: by the options of the SPEC, else by usual names; never one of several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from zoo.data.sources.parquet_sets import column_names
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
    """The names of the columns; None where the table has none of the kind.

    Attributes:
        label: "" where each class has a column of 0 and 1, in `labels`.
    """

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    weight: str | None = None
    labels: tuple[str, ...] = ()

    def read(self) -> tuple[str, ...]:
        """Those that there are, each once."""
        one = (self.path, self.label, self.split, self.group, self.weight)
        return tuple(dict.fromkeys(name for name in (*one, *self.labels) if name))

    def note(self) -> str:
        """Which columns are read, in words."""
        columns = self._replace(labels=()) if not self.labels else self
        named = {kind: name for kind, name in columns._asdict().items() if name}
        return ", ".join(
            f"{kind}: {name if isinstance(name, str) else ', '.join(name)}" for kind, name in named.items()
        )


def find_columns(header: Sequence[str], options: Mapping[str, Any], where: str) -> TableColumns:
    """Find the columns of a table.

    Args:
        header: the names of all columns. options: of the SPEC; an empty name says that there is no such column.
        where: the file, for messages.
    Raises:
        InputError: a needed column is missing, an option names none, or several columns may be meant.
        DataError: two columns that are needed have one name.
    """
    labels = column_names(options.get("labels"), where)
    if labels and options.get("label"):
        raise InputError(
            f"{where}: ?label= names one column of labels, ?labels= a column for each class; give one of them"
        )
    missing = [name for name in labels if name not in header]
    if missing:
        raise InputError(f"{where}: no column {missing[0]!r} (?labels=); columns: {_listed(header)}")
    kinds = [kind for kind in USUAL if kind != "label" or not labels]
    chosen = {kind: _chosen(kind, header, options.get(kind), where) for kind in kinds}
    often = Counter(header)
    for name in (*chosen.values(), *labels):
        if name is not None and often[name] > 1:
            raise DataError(f"{where}: {often[name]} columns are called {name!r}; give each a name of its own")
    return TableColumns(**{"label": "", **chosen}, labels=labels)  # type: ignore[arg-type]  # the needed ones are never None


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
