"""`csv:FILE`, `jsonl:FILE` and Parquet files of paths: labels, splits, groups and weights of images from a table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.base.paths import local_path
from zoo.base.text import plural
from zoo.data.cache import columns_digest
from zoo.data.files.image_files import Listing
from zoo.data.findings import Finding
from zoo.data.sources.class_order import ClassOrder, file_beside
from zoo.data.sources.listed import Part
from zoo.data.sources.source import Opened, Request
from zoo.data.sources.table_columns import TableColumns, find_columns
from zoo.data.sources.table_files import Kind, TableFile
from zoo.data.sources.table_labels import UNKNOWN, UNLABELLED, classes_of
from zoo.data.sources.table_rows import NO_SIDE, SIDES, Places, TableRows, Wrong, chosen_files, located, read_rows
from zoo.data.sources.table_sets import Labelled, Lists, sets_of_columns
from zoo.data.split import drawn_test
from zoo.data.types import CARVED, CHUNK, GROUP, VALIDATES, WEIGHT, Chunk, Columns, Labels, SplitsFrom
from zoo.errors import BadImagesError, DataError, InputError

TRAIN, VALIDATION, TEST = range(len(SIDES))

OF_TEXT = frozenset(
    {*TableColumns._fields, "split_column", "test", "validation", "classes", "order", "images", "suffix", "separator"}
)
"""The options of `csv:FILE` and `jsonl:FILE`."""


class _Read(NamedTuple):
    """What was read from the tables.

    Attributes:
        listing: of all rows that are used. sides: int64 (N,), the split of each. columns: what else is known of each.
        names: what the tables call their splits, by the numbers of these.
    """

    listing: Listing
    sides: Labels
    columns: Columns
    names: Mapping[int, str]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class TableSource:
    """Images that one or several tables list.

    Attributes:
        tables: each with the side of its rows (an index into `SIDES`), or `NO_SIDE` where a column says it or nothing
            does: then a fifth is drawn for the test by `seed`, or, `whole`, both splits are all of it.
        columns: the options that name columns. folder: that paths are relative to; None: each table's own.
        suffix: that is added to each path. skip_bad: leave rows out that cannot be used.
        several: a text in the column of labels holds several of them, with `separator` between; "" for ";" if any cell
            has one, else ",". Lists are several labels anyway.
    """

    tables: tuple[tuple[TableFile, int], ...]
    columns: Mapping[str, Any]
    order: ClassOrder
    folder: Path | None = None
    suffix: str = ""
    seed: int = 0
    whole: bool = False
    skip_bad: bool = False
    several: bool = False
    separator: str = ""

    @classmethod
    def csv(cls, request: Request) -> TableSource:
        """The source for `csv:FILE`.

        Raises:
            InputError: no such file, or an option is wrong.
        """
        return cls.of(request, "csv")

    @classmethod
    def jsonl(cls, request: Request) -> TableSource:
        """The source for `jsonl:FILE`."""
        return cls.of(request, "jsonl")

    @classmethod
    def of(cls, request: Request, kind: Kind) -> TableSource:
        """The source for a table of one kind, with tables of the same kind for other splits.

        Raises:
            InputError: no such file, or an option is wrong.
        """
        where, options = f"{kind}:{request.rest}", request.options
        path = local_path(request.rest)
        if not path.is_file():
            raise InputError(f"no file {path}; {kind}:FILE needs an existing table")
        path = path.resolve()
        others = [(name, side) for name, side in (("validation", VALIDATION), ("test", TEST)) if options.get(name)]
        sides = [(file_beside(str(options[name]), path.parent, where, name), side) for name, side in others]
        tables = [(path, TRAIN if sides else NO_SIDE), *sides]
        if len({table for table, _ in tables}) < len(tables):
            raise InputError(f"{where}: one table is named for two splits; name it once")
        return cls.made(tables, kind, request, where)

    @classmethod
    def made(cls, tables: Sequence[tuple[Path, int]], kind: Kind, request: Request, where: str) -> TableSource:
        """The source for tables whose splits are known."""
        options, beside = request.options, tables[0][0].parent
        if options.get("separator") == "":
            raise InputError(f"{where}: ?separator= names no sign; an ampersand is written ?separator=%26")
        folder = _folder(options.get("images"), beside, where)
        return cls(
            tuple((TableFile(path, kind), side) for path, side in tables),
            _of_columns(options),
            ClassOrder.asked(options, beside, where),
            folder,
            str(options.get("suffix", "")),
            request.seed,
            request.whole,
            request.skip_bad,
            request.several or bool(options.get("separator")),
            str(options.get("separator", "")),
        )

    @cached_property
    def _found(self) -> list[TableColumns]:
        return [find_columns(table.columns(), self.columns, str(table.path)) for table, _ in self.tables]

    @cached_property
    def _read(self) -> _Read:
        rows = read_rows(self.tables, self._found)
        if not len(rows):
            raise DataError(f"{self.tables[0][0].path} has no rows; needed is one for each image")
        wrong = Wrong(rows.where)
        sides = rows.sides(wrong)
        labelled = self._labelled(rows, sides, wrong)
        columns = {GROUP: rows.groups(), WEIGHT: rows.weights(wrong)}
        files = located(rows, self._places, wrong)
        if wrong.reasons and not self.skip_bad:
            raise BadImagesError(wrong.lines())
        usable = labelled.usable.copy()
        unlabelled = len(rows) - int(usable.sum())
        usable[list(wrong.reasons)] = False
        used = np.flatnonzero(usable)
        if not len(used):
            raise DataError(f"{self.tables[0][0].path}: no row has a label in the column {rows.columns.label!r}")
        skipped, chosen = len(wrong.reasons), chosen_files(files, used)
        labels, named = labelled.labels[used], labelled.named
        listing = Listing(chosen, labels, labelled.classes, unlabelled, skipped=skipped, named=named)
        known = {name: values[used] for name, values in columns.items() if values is not None}
        findings = (*_unlabelled(unlabelled), *_without_class(labelled.none), *_left_out(wrong), *_twice(listing))
        return _Read(listing, sides[used], known, rows.names_of(sides), findings)

    def _labelled(self, rows: TableRows, sides: Labels, wrong: Wrong) -> Labelled:
        """The labels of all rows, and the classes."""
        if rows.columns.labels:
            sets = sets_of_columns(rows, wrong)
            return Labelled(sets, np.ones(len(rows), bool), rows.columns.labels, named=True)
        texts = rows.texts("label")
        assert texts is not None  # a table has a column of labels
        where = f"{self.tables[0][0].path}: the column {rows.columns.label!r}"
        learns = (sides == TRAIN) | (sides == NO_SIDE) | self.whole
        if not learns.any():
            raise DataError(f"{self.tables[0][0].path}: no row is a training image")
        if (lists := Lists.of(texts, self.separator, several=self.several)) is not None:
            empty = self.tables[0][0].kind == "csv"  # which has no other way to say that an image shows no class
            return lists.labelled(learns, self.order, where, wrong, count=self.whole, empty=empty)
        learnt = np.unique(texts.codes[learns])
        some = [texts.values[code] for code in learnt.tolist() if code >= 0]
        others = sorted(set(texts.values) - set(some))
        classes = classes_of(some, others, self.order, where, count=self.whole)
        labels = texts.mapped(classes.numbers(texts.values), UNLABELLED)
        known = f"none of the {plural(len(classes.names), 'class')} that {self.order.source} lists"
        unknown = np.flatnonzero(labels == UNKNOWN)
        wrong.add(unknown, lambda row: f"its label {texts.values[texts.codes[row]]!r} is {known}")
        return Labelled(labels, labels != UNLABELLED, classes.names, classes.named)

    @property
    def _places(self) -> Places:
        folders = (table.path.parent if self.folder is None else self.folder for table, _ in self.tables)
        return Places(tuple(folders), self.suffix)

    def parts(self) -> tuple[Part, Part]:
        """Training images, with those that validate, and test images."""
        sides = self._read.sides
        if self.whole:
            return self._part(_first(sides, NO_SIDE, TRAIN, TEST, VALIDATION)), self._part(
                _first(sides, NO_SIDE, TEST, VALIDATION, TRAIN)
            )
        train, test = np.flatnonzero(sides != TEST), np.flatnonzero(sides == TEST)
        if not np.isin(sides, (TRAIN, NO_SIDE)).any():
            raise DataError(f"{self.tables[0][0].path}: no row that can be used is a training image")
        elif not len(test):
            train, test = self._drawn(sides)
        return self._part(train), self._part(test)

    def _drawn(self, sides: Labels) -> tuple[Labels, Labels]:
        """The rows of train and test where the tables have no test images."""
        learnt = np.flatnonzero(sides != VALIDATION)
        labels, groups = self._read.listing.labels[learnt], self._read.columns.get(GROUP)
        of_learnt = None if groups is None else groups[learnt]
        _, test = drawn_test(labels, self.seed, str(self.tables[0][0].path), of_learnt)
        return np.setdiff1d(np.arange(len(sides)), learnt[test]), learnt[test]

    def _part(self, rows: Labels) -> Part:
        columns = {name: values[rows] for name, values in self._read.columns.items()}
        validates = (self._read.sides[rows] == VALIDATION) & (not self.whole)
        return Part(self._read.listing, rows, columns | ({VALIDATES: validates} if validates.any() else {}))

    def splits_from(self) -> SplitsFrom:
        """The words of the column that says the splits, or the names of the tables."""
        names = self._read.names
        if self.whole and len(names) > 1:  # `parts` gives different images then
            return SplitsFrom(test=names.get(TEST) or names[VALIDATION])
        return SplitsFrom(names.get(VALIDATION, ""), names.get(TEST, CARVED))

    def findings(self, listings: Sequence[Listing] | None = None) -> tuple[Finding, ...]:
        """Rows that are left out, and files that are listed more than once."""
        return self._read.findings

    @property
    def notes(self) -> tuple[str, ...]:
        """Which columns are read."""
        return (f"{self.tables[0][0].path.name}: {self._found[0].note()}",)

    def content(self, listings: Sequence[Listing] | None = None) -> tuple[str, Iterator[Chunk]]:
        """What the pixels of all files depend on, and the files, undecoded."""
        listing = self._read.listing
        files = (listing.files[i : i + CHUNK] for i in range(0, len(listing.files), CHUNK))
        return f"{listing.folder} {listing.digest(times=True)}", files

    def identity(self) -> dict[str, Any]:
        """The folder of the files, and a hash over all that the tables say and every file's size and time."""
        digest = hashlib.sha256(self._read.listing.digest(times=True).encode())
        for part in self.parts():
            digest.update(np.ascontiguousarray(part.rows).data)
            digest.update(columns_digest(part.columns))
        identity = {"scheme": "table", "path": str(self._read.listing.folder), "files": digest.hexdigest()}
        return identity | ({"skipped": skipped} if (skipped := self._read.listing.skipped) else {})

    def open(self) -> Opened:
        """The splits; files are decoded when they are read."""
        read, (train, test) = self._read, self.parts()
        listing = read.listing
        classes = listing.classes if listing.named else ()
        return Opened(
            train.opened(),
            test.opened(),
            classes,
            listing.ignored,
            splits_from=self.splits_from(),
            skipped=listing.skipped,
        )


def _first(sides: Labels, *wanted: int) -> Labels:
    """The rows of the first of several splits that has some."""
    return next((rows for side in wanted if len(rows := np.flatnonzero(sides == side))), np.empty(0, np.int64))


def _of_columns(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that name columns; that of the splits has two names."""
    given = {name: options[name] for name in TableColumns._fields if name in options}
    return {"split": options["split_column"], **given} if "split_column" in options else given


def _folder(name: Any, beside: Path, where: str) -> Path | None:
    """The folder that the option `images` names: below the table's, or below the working directory."""
    if not name:
        return None
    given = local_path(str(name))
    for folder in (beside / given, given):
        if folder.is_dir():
            return folder.resolve()
    blank = "; a blank is written %20" if "+" in str(name) else ""  # earlier versions took a plus for one
    raise InputError(f"{where}: ?images={name}: no such folder in {beside} or in the working directory{blank}")


def _unlabelled(count: int) -> Iterator[Finding]:
    if count:
        text = f"{plural(count, 'row')} without a label not read"
        yield Finding(level="note", kind="unlabelled", message=text, count=count)


def _without_class(count: int) -> Iterator[Finding]:
    if count:
        images = "its image shows" if count == 1 else "their images show"
        text = f"{plural(count, 'row has', 'rows have')} no label: {images} none of the classes"
        yield Finding(level="note", kind="no-class", message=text, count=count)


def _left_out(wrong: Wrong) -> Iterator[Finding]:
    lines = wrong.lines()
    if lines:
        text = f"{plural(len(lines), 'row')} left out, as asked"
        yield Finding(level="warning", kind="bad-row", message=text, count=len(lines), examples=tuple(lines[:5]))


def _twice(listing: Listing) -> Iterator[Finding]:
    """Files that several rows name."""
    hashes = np.fromiter((hash(listing.files.name(row)) for row in range(len(listing.files))), np.int64)
    order = np.argsort(hashes, kind="stable")
    repeats = np.flatnonzero(np.diff(hashes[order]) == 0)
    if not len(repeats):
        return
    first, second = order[repeats], order[repeats + 1]
    differ = listing.labels[first] != listing.labels[second]
    otherwise = np.flatnonzero(differ.reshape(len(repeats), -1).any(1))
    text = f"{plural(len(repeats), 'row repeats', 'rows repeat')} the file of another row"
    text += f", {len(otherwise):,} of them with another label" if len(otherwise) else ""
    shown = first[otherwise] if len(otherwise) else first
    examples = tuple(dict.fromkeys(str(listing.files[row]) for row in shown[:5].tolist()))
    yield Finding(level="warning", kind="repeated-file", message=text, count=len(repeats), examples=examples)
