"""The rows of tables as files, labels and splits; what is wrong with a row is said by its number."""

from __future__ import annotations

import os
import posixpath
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.base.explain import shown
from zoo.data.files.image_files import Files
from zoo.data.sources.split_folders import KNOWN, role
from zoo.data.sources.table_columns import TableColumns
from zoo.data.sources.table_files import TableFile
from zoo.data.types import Labels
from zoo.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = ("train", "val", "test")
NO_SIDE = -1

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """A column: each different text once, and which of them each row has.

    Attributes:
        codes: int64 (N,); -1 where the cell is empty.
    """

    values: list[str]
    codes: Codes = field(repr=False)

    def mapped(self, numbers: Sequence[int] | NDArray[Any], empty: int) -> Codes:
        """The number of each row: of its text, or `empty`."""
        return np.append(np.asarray(numbers, np.int64), empty)[self.codes]


def texts_of(column: pa.ChunkedArray) -> Texts:
    """A column, with each different text once, in the order in which they come."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Texts(encoded.dictionary.to_pylist(), codes.astype(np.int64))


@dataclass
class Wrong:
    """Rows that cannot be used, and why; the first reason of a row counts."""

    where: Callable[[int], str]
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, rows: Codes, reason: Callable[[int], str]) -> None:
        """Some rows, each with its reason."""
        for row in rows.tolist():
            self.reasons.setdefault(row, reason(row))

    def lines(self) -> list[str]:
        """A line for each row, in their order."""
        return [f"{self.where(row)}: {self.reasons[row]}" for row in sorted(self.reasons)]


@dataclass(frozen=True)
class TableRows:
    """All rows of one or several tables.

    Attributes:
        tables: their files, with the number of rows of each in `counts`. columns: of all of them, by what they hold.
        paths: large_string (N,), as written. given: the side of all rows of a table, an index into `SIDES`, or
            `NO_SIDE`; int64 (N,).
    """

    tables: tuple[TableFile, ...]
    counts: tuple[int, ...]
    columns: TableColumns
    cells: dict[str, pa.ChunkedArray] = field(repr=False)
    given: Codes = field(repr=False)

    def __len__(self) -> int:
        """Number of rows."""
        return sum(self.counts)

    def where(self, row: int) -> str:
        """The file and the number of a row, as the file's own kind counts rows."""
        ends = np.cumsum(self.counts)
        place = int(np.searchsorted(ends, row, side="right"))
        start = int(ends[place - 1]) if place else 0
        return f"{self.tables[place].path} row {row - start + self.tables[place].first}"

    def texts(self, kind: str) -> Texts | None:
        """The column that holds something, by what it holds; None where the tables have none."""
        name = getattr(self.columns, kind)
        return texts_of(self.cells[name]) if name is not None else None

    def sides(self, wrong: Wrong) -> Codes:
        """The side of each row, an index into `SIDES`; `NO_SIDE` where nothing divides the rows.

        Raises:
            DataError: the column says nothing of splits, or contradicts the table that was named for a split.
        """
        texts = self.texts("split")
        if texts is None:
            return self.given
        roles = [found if (found := role(text)) and not found.rest else None for text in texts.values]
        if texts.values and not any(roles):
            raise DataError(
                f"{self.tables[0].path}: the column {self.columns.split!r} holds {shown(texts.values[0])}, which is no "
                f"split; known: {KNOWN}; name another column by ?split=COLUMN, or none by ?split="
            )
        sides = texts.mapped([NO_SIDE if r is None else SIDES.index(r.kind) for r in roles], NO_SIDE)
        cell = [*map(repr, texts.values), "nothing"]
        unknown = np.flatnonzero(sides == NO_SIDE)
        wrong.add(unknown, lambda row: f"its split is {cell[texts.codes[row]]}; known: {KNOWN}")
        against = np.flatnonzero((self.given != NO_SIDE) & (sides != self.given) & (sides != NO_SIDE))
        if len(against):
            row = int(against[0])
            raise DataError(
                f"{self.where(row)}: its split is {cell[texts.codes[row]]}, but the table was named for "
                f"{SIDES[self.given[row]]!r}; give one of both, or ignore the column by ?split="
            )
        return sides

    def names_of(self, sides: Codes) -> dict[int, str]:
        """What the tables call each split that they have: by a word of the column, else by the names of their files."""
        rows = {side: int(found[0]) for side in range(len(SIDES)) if len(found := np.flatnonzero(sides == side))}
        texts = self.texts("split")
        if texts is not None:
            return {side: texts.values[texts.codes[row]] for side, row in rows.items()}
        ends = np.cumsum(self.counts)
        places = {side: int(np.searchsorted(ends, row, side="right")) for side, row in rows.items()}
        return {side: self.tables[place].path.name for side, place in places.items()}

    def weights(self, wrong: Wrong) -> NDArray[np.float32] | None:
        """How much each image counts, float32 (N,); None where the tables do not say."""
        texts = self.texts("weight")
        if texts is None:
            return None
        values = np.array([_weight(text) for text in texts.values] + [np.nan], np.float32)[texts.codes]
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        cell = [*map(repr, texts.values), "nothing"]
        wrong.add(bad, lambda row: f"its weight is {cell[texts.codes[row]]}; needed is a number of 0 or more")
        if not values.any():
            raise DataError(
                f"{self.tables[0].path}: the column {self.columns.weight!r} gives every image the weight 0, so that "
                "nothing can be learnt; give some a weight above 0, or ignore the column by ?weight="
            )
        return values

    def groups(self) -> Codes | None:
        """The number of each image's group, int64 (N,); a row without a group is a group of its own."""
        texts = self.texts("group")
        if texts is None:
            return None
        codes = texts.codes.copy()
        alone = np.flatnonzero(codes < 0)
        codes[alone] = len(texts.values) + np.arange(len(alone))
        return codes


def read_rows(tables: Sequence[tuple[TableFile, int]], columns: Sequence[TableColumns]) -> TableRows:
    """Read tables whose columns have the same names.

    Args:
        tables: each with the side of its rows, an index into `SIDES`, or `NO_SIDE`. columns: of each.
    Raises:
        DataError: a file cannot be read, or the columns differ.
    """
    import pyarrow as pa

    for (table, _), its in zip(tables, columns, strict=True):
        if its != columns[0]:
            raise DataError(
                f"{table.path}: its columns ({its.note()}) are not those of {tables[0][0].path} ({columns[0].note()}); "
                "give the columns the same names, or name them by ?path=, ?label= and so on"
            )
    read = [table.read(columns[0].read(), columns[0].label) for table, _ in tables]
    counts = [len(cells[columns[0].path]) for cells in read]
    chunks = {name: [chunk for part in read for chunk in part[name].chunks] for name in read[0]}
    cells = {name: pa.chunked_array(arrays, pa.large_string()) for name, arrays in chunks.items()}
    given = np.repeat(np.array([side for _, side in tables], np.int64), counts)
    return TableRows(tuple(table for table, _ in tables), tuple(counts), columns[0], cells, given)


# ---- paths --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where the files of tables are.

    Attributes:
        folders: that the paths of each table are relative to. suffix: that is added to each path.
    """

    folders: tuple[Path, ...]
    suffix: str = ""

    def root(self, paths: pa.ChunkedArray) -> Path:
        """The folder that holds all of them; or, where all paths are whole ones, all files."""
        import pyarrow.compute as pc

        if not pc.all(pc.starts_with(paths, "/")).as_py():
            return Path(os.path.commonpath(self.folders))
        ends = pc.min_max(paths)
        return Path(os.path.commonpath([os.path.dirname(ends[side].as_py()) for side in ("min", "max")]))


def located(rows: TableRows, places: Places, wrong: Wrong) -> Files:
    """The files of all rows, with their sizes and times; those of wrong rows have none.

    Raises:
        DataError: no file is where the tables say.
    """
    root = places.root(rows.cells[rows.columns.path])
    names, ends = bytearray(), array("q")
    for name in _names(rows, places, root, wrong):
        names += name
        ends.append(len(names))
    sizes, times = np.zeros(len(ends), np.int64), np.zeros(len(ends), np.int64)
    files = Files(root, np.frombuffer(names, np.uint8), np.frombuffer(ends, np.int64), sizes, times)
    missing = _measure(files, sizes, times)
    if len(missing) and len(missing) + len(wrong.reasons) >= len(files):
        raise DataError(
            f"{rows.where(missing[0])}: no file {files[missing[0]]}, and none of the other paths is one; they are read "
            "relative to the table's folder (?images=FOLDER names another one, ?suffix=.jpg adds an ending)"
        )
    wrong.add(np.array(missing, np.int64), lambda row: f"no file {files[row]}")
    return files


def _names(rows: TableRows, places: Places, root: Path, wrong: Wrong) -> Iterator[bytes]:
    """The path of each row below `root`, or a whole path; empty where it is none."""
    paths = rows.cells[rows.columns.path]
    folders = [os.path.relpath(folder, root) for folder in places.folders]
    prefixes = ["" if folder == "." else f"{folder}/" for folder in folders]
    above, suffix, row = f"{str(root).rstrip('/')}/", places.suffix, 0
    for prefix, count in zip(prefixes, rows.counts, strict=True):
        for chunk in paths.slice(row, count).chunks:
            for text in chunk.to_pylist():
                name, reason = _name(text, prefix, above, suffix)
                if reason:
                    wrong.add(np.array([row]), lambda _, said=reason: said)  # type: ignore[misc]
                yield os.fsencode(name)
                row += 1


def _name(text: str | None, prefix: str, above: str, suffix: str) -> tuple[str, str]:
    """One path, and what is wrong with it."""
    if text is None:
        return "", "it has no path"
    text += suffix
    if "\0" in text:
        return "", f"{shown(text)} is no path"
    if "\\" in text and "/" not in text:  # written on Windows
        text = text.replace("\\", "/")
    if text.startswith("/"):
        return text.removeprefix(above), ""
    if "./" in text or "//" in text:
        text = posixpath.normpath(text)
        if text.startswith("../"):
            return "", f"{text} leads out of the table's folder; ?images=FOLDER names the folder of the images"
    return prefix + text, ""


def _measure(files: Files, sizes: Labels, times: Labels) -> list[int]:
    """Fill in sizes and times; returns the rows whose files do not exist."""
    above, missing = os.fsencode(files.root) + b"/", []
    for row in range(len(files)):
        name = files.name(row)
        if not name:
            continue
        try:
            status = os.stat(name if name.startswith(b"/") else above + name)
        except (OSError, ValueError):
            missing.append(row)
            continue
        if stat.S_ISDIR(status.st_mode):
            missing.append(row)
        sizes[row], times[row] = status.st_size, status.st_mtime_ns
    return missing


def chosen_files(files: Files, rows: Labels) -> Files:
    """Some of the files."""
    if len(rows) == len(files):
        return files
    names = [files.name(int(row)) for row in rows]
    ends = np.cumsum([len(name) for name in names]).astype(np.int64)
    return Files(files.root, np.frombuffer(b"".join(names), np.uint8), ends, files.sizes[rows], files.times[rows])


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
