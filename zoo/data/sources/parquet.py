"""`parquet:PATH`: parquet files in the layout of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from zoo.base.explain import shown
from zoo.base.text import first_line
from zoo.data.findings import Finding
from zoo.data.label_sets import LabelSets, has_sets
from zoo.data.sources.joined_splits import divided, group_numbers, sides_of, with_drawn_test, with_validation
from zoo.data.sources.known_classes import one_numbering, renumbered
from zoo.data.sources.labels import class_number, why_no_class
from zoo.data.sources.parquet_columns import Columns, Place, parquet_reader, same_columns
from zoo.data.sources.parquet_files import Chosen, local_files, unread_splits
from zoo.data.sources.parquet_sets import column_names, most_number, sets_of_columns, sets_of_lists, texts_of_lists
from zoo.data.sources.source import Opened, Request, Rows
from zoo.data.split import TEST_SHARE
from zoo.data.types import CARVED, GROUP, Chunk, Item, Labels, SplitsFrom
from zoo.errors import DataError, InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH = 512

PLACE = "place"
"""A column of rows whose images stay in their files: the number of each among all rows of all files."""


def _cells(files: Sequence[Place], column: str) -> Iterator[tuple[Place, list[Any]]]:
    """The values of a column, file by file."""
    import pyarrow as pa

    for path in files:
        with parquet_reader(path) as reader:
            try:
                yield path, reader.read(columns=[column]).column(column).to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path}: {first_line(error, None)}") from None


def _values(files: Sequence[Place], column: str, option: str) -> list[Any]:
    """The values of a column that an option names.

    Raises:
        InputError: no such column.
    """
    for path in files:
        with parquet_reader(path) as reader:
            names = reader.schema_arrow.names
        if column not in names:
            raise InputError(f"{path}: no column {column!r} (?{option}); columns: {', '.join(names)}")
    return [value for _, values in _cells(files, column) for value in values]


def _text_classes(files: Sequence[Place], column: str) -> tuple[str, ...]:
    """The texts of a label column, sorted; none where its labels are numbers."""
    texts: set[str] = set()
    for _, values in _cells(files, column):
        texts.update(value for value in values if isinstance(value, str))
    return tuple(sorted(texts))


def _labels(files: Sequence[Place], column: str, classes: tuple[str, ...]) -> Labels:
    """Label numbers of all rows, in the file's own numbering; texts are looked up among its classes."""
    often = Counter(classes)
    numbers = {name: i for i, name in enumerate(classes) if often[name] == 1}
    labels: list[int] = []
    for path, values in _cells(files, column):
        for row, value in enumerate(values):
            number = numbers.get(value) if isinstance(value, str) else class_number(value)
            if number is None:
                raise DataError(f"{path} row {row}: column {column!r} {why_no_class(value)}")
            labels.append(number)
    return np.asarray(labels, np.int64)


def _sets(files: Sequence[Place], columns: Columns, classes: tuple[str, ...]) -> LabelSets:
    """Which classes each image shows; of classes without names, as many as the numbers need."""
    if columns.several:
        return sets_of_columns([_cells(files, name) for name in columns.several], columns.several)
    count = len(classes) or 1 + most_number(_cells(files, columns.label), columns.label)
    return sets_of_lists(_cells(files, columns.label), columns.label, classes, count)


def _names(files: Sequence[Place], columns: Columns) -> tuple[str, ...]:
    """The classes of a split's files; none where its labels are numbers without names."""
    if columns.classes:
        return columns.classes
    return texts_of_lists(_cells(files, columns.label)) if columns.lists else _text_classes(files, columns.label)


def _refuse(message: str) -> NoReturn:
    raise DataError(message)


def image_item(cell: object, path: Place, row: int) -> Item:
    """What one cell of the image column holds: a file's bytes, or its path beside the parquet file."""
    if isinstance(cell, dict):
        data, name = cell.get("bytes"), cell.get("path")
        if data is not None:
            return bytes(data)
        if name and isinstance(path, Path):
            return path.parent / str(name)
    elif isinstance(cell, bytes):
        return cell
    what = "null" if cell is None or isinstance(cell, dict) else shown(cell)
    return partial(_refuse, f"{path} row {row}: holds no image ({what})")


def _rows(files: Sequence[Place], columns: Columns, classes: tuple[str, ...]) -> Rows:
    """All rows of a split; its labels count `classes`."""
    import pyarrow as pa

    is_several = columns.lists or columns.several
    labels = _sets(files, columns, classes) if is_several else _labels(files, columns.label, classes)
    counts = []
    for path in files:
        with parquet_reader(path) as reader:
            counts.append(reader.metadata.num_rows)
    ends = np.cumsum(counts)

    def chunks() -> Iterator[Chunk]:
        for path in files:
            row = 0
            with parquet_reader(path) as reader:
                try:
                    for batch in reader.iter_batches(BATCH, columns=[columns.image]):
                        cells = batch.column(0).to_pylist()
                        yield [image_item(cell, path, i) for i, cell in enumerate(cells, row)]
                        row += len(cells)
                except (OSError, pa.ArrowException) as error:
                    raise DataError(f"{path}: {first_line(error, None)}") from None

    def where(row: int) -> str:
        file = int(np.searchsorted(ends, row, side="right"))
        return f"{files[file]} row {row - (int(ends[file - 1]) if file else 0)}"

    return Rows(labels, chunks, where)


def _sets_alike(rows: Mapping[str, Rows], places: Mapping[str, Labels], count: int) -> dict[str, Rows]:
    """Splits with sets of classes in one numbering; of classes without names, all have as many as the widest."""
    if not count:
        count = max(side.labels.shape[1] for side in rows.values())
        places = {name: np.arange(side.labels.shape[1]) for name, side in rows.items()}
    return {name: renumbered(side, places[name], count) for name, side in rows.items()}


def _has_paths(reader: pq.ParquetFile, image: str) -> bool:
    """Whether an image of a file may lie beside it: a cell without bytes."""
    kind = reader.schema_arrow.field(image).type
    fields = [field.name for field in kind] if hasattr(kind, "fields") else []
    if "path" not in fields:
        return False
    if "bytes" not in fields:
        return True
    for group in range(reader.metadata.num_row_groups):
        parts = reader.metadata.row_group(group)
        for part in map(parts.column, range(parts.num_columns)):
            if part.path_in_schema == f"{image}.bytes":
                known = part.statistics is not None and part.statistics.has_null_count
                if not known or part.statistics.null_count:
                    return True
    return False


def _digest_of_images(files: Sequence[Place], image: str) -> str:
    """A hash over size and time of every image that lies beside the files; "" where all are inside them."""
    digest, count = hashlib.sha256(), 0
    for path in files:
        with parquet_reader(path) as reader:
            if not isinstance(path, Path) or not _has_paths(reader, image):
                continue
            for batch in reader.iter_batches(BATCH, columns=[f"{image}.path"]):
                for cell in batch.column(0).to_pylist():
                    name = (cell or {}).get("path")
                    status = _status(path.parent / name) if name else None
                    if status is not None:
                        count += 1
                        digest.update(f"{name}\0{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest() if count else ""


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files, sorted into splits by their names; see `zoo.data.sources.parquet_files`.

    Columns are found by the schema's `huggingface` features (one Image, one ClassLabel), else by the
    usual names, or given by the options `image` and `label`.

    Attributes:
        chosen: the files of each split. Where there is no test, one is drawn from the training images by `seed`
            (stratified, 20%); or, `whole`, each split is all of it: for an evaluation, which reads one of them.
        split_column: says of each row of `chosen.train` which split it is. group: names what must not be torn apart.
        several: a column of 0 and 1 for each class, in the place of `label`.
        at: the file of each name in `chosen`. placed: rows have a column `PLACE`: their numbers among all rows.
    """

    chosen: Chosen
    image: str | None = None
    label: str | None = None
    seed: int = 0
    whole: bool = False
    split_column: str | None = None
    group: str | None = None
    several: tuple[str, ...] = ()
    at: Callable[[str], Place] = Path
    placed: bool = False

    @classmethod
    def make(cls, request: Request) -> ParquetSource:
        """The source for `parquet:PATH` with PATH a folder (searched below), a file pattern or a file.

        Raises:
            InputError: nothing there, or a split without files. DataError: shards are missing.
        """
        where = f"parquet:{request.rest}"
        chosen = local_files(request.rest, request.options, where, whole=request.whole, earlier=request.earlier)
        return cls.of(chosen, request.options, request.seed, request.whole, where)

    @classmethod
    def of(cls, chosen: Chosen, options: Mapping[str, Any], seed: int, whole: bool, where: str) -> ParquetSource:
        """The source for files that are there, with the options after "?"; `where`: the SPEC, for messages."""
        return cls(
            chosen,
            options.get("image"),
            options.get("label"),
            seed,
            whole,
            options.get("split_column"),
            options.get("group"),
            column_names(options.get("labels"), where),
        )

    @property
    def files(self) -> dict[str, list[Place]]:
        """The files of each split that has some: train, validation, test."""
        sides = {side: [*map(self.at, getattr(self.chosen, side))] for side in ("train", "validation", "test")}
        return {side: paths for side, paths in sides.items() if paths}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the splits, a line each."""
        if self.chosen.test or self.chosen.validation or self.whole or self.split_column:
            return ()
        return (f"the files have one split, which is divided by chance: {TEST_SHARE:.0%} are test images",)

    def findings(self) -> tuple[Finding, ...]:
        """Splits of the files that are not read."""
        return unread_splits(self.chosen.unread)

    def columns(self) -> dict[str, Columns]:
        """The columns of each split, after a look at the schema of every file.

        Raises:
            InputError, DataError: a file lacks them, or a split's files differ in their classes.
        """
        columns = {
            side: same_columns(paths, self.image, self.label, self.several) for side, paths in self.files.items()
        }
        for side, its in columns.items():
            if its.lists != columns["train"].lists:
                lists, one = (side, "train") if its.lists else ("train", side)
                raise DataError(
                    f"{self.files[lists][0]}: {its.label!r} holds lists of labels in {lists}, one label in {one}"
                )
        return columns

    def identity(self) -> dict[str, Any]:
        """Each file's path, size and time, the chosen columns, and the images that lie beside the files.

        Raises:
            InputError, DataError: as `columns`; said before a cache could answer in the files' place.
        """

        def stamp(path: Place) -> list[Any]:
            status = os.stat(str(path))
            return [str(path), status.st_size, status.st_mtime_ns]

        files = self.files
        identity: dict[str, Any] = {
            "scheme": "parquet",
            "train": [stamp(p) for p in files["train"]],
            "test": [stamp(p) for p in files.get("test", ())],
            "columns": [self.image, self.label, *self.several],
        }
        columns = self.columns()
        beside = {side: _digest_of_images(paths, columns[side].image) for side, paths in files.items()}
        if any(beside.values()):
            identity["images"] = [beside["train"], beside.get("test", ""), *filter(None, [beside.get("validation")])]
        if "validation" in files:
            identity["validation"] = [stamp(p) for p in files["validation"]]
        identity |= {key: value for key in ("split_column", "group") if (value := getattr(self, key))}
        return identity if "test" in files else identity | {"seed": "whole" if self.whole else self.seed}

    def open(self) -> Opened:
        """The splits, read a batch of rows at a time."""
        files, rows, classes = self.files, *self._rows()
        if self.split_column:
            return self._by_column(rows["train"], classes)
        if "test" in rows:
            self._refuse_unlabelled(rows["test"])
        train = with_validation(rows["train"], rows["validation"]) if "validation" in rows else rows["train"]
        if "test" in rows or self.whole:
            test = rows.get("test", train)
        else:
            train, test = with_drawn_test(train, self.seed, str(files["train"][0]))
        return Opened(train, test, classes, splits_from=self.chosen.splits_from)

    def _rows(self) -> tuple[dict[str, Rows], tuple[str, ...]]:
        """The rows of each split's files with one numbering of classes, and the names of these."""
        files, columns = self.files, self.columns()
        names = {side: _names(files[side], its) for side, its in columns.items()}
        for side, its in names.items():
            if bool(its) != bool(names["train"]):
                named, plain = ("train", side) if names["train"] else (side, "train")
                raise DataError(
                    f"{files['train'][0]}: the classes of {named} have names, those of {plain} are numbers; write both "
                    "with one list of class names"
                )
        classes, places = one_numbering(names["train"], [names[side] for side in names if side != "train"])
        rows = {side: _rows(paths, columns[side], names[side]) for side, paths in files.items()}
        if has_sets(rows["train"].labels):
            rows = _sets_alike(
                rows, dict(zip(rows, [np.arange(len(names["train"])), *places], strict=True)), len(classes)
            )
        else:
            for side, numbers in zip([side for side in names if side != "train"], places, strict=True):
                rows[side] = renumbered(rows[side], numbers, len(classes))
        if self.group:
            values = [_values(paths, self.group, f"group={self.group}") for paths in files.values()]
            numbered = group_numbers(values, f"column {self.group!r}")
            for side, groups in zip(files, numbered, strict=True):
                rows[side] = replace(rows[side], columns={**rows[side].columns, GROUP: groups})
        return self._placed(rows) if self.placed else rows, classes

    def _placed(self, rows: Mapping[str, Rows]) -> dict[str, Rows]:
        """The rows of each split with their numbers among all."""
        start, placed = 0, {}
        for side, its in rows.items():
            end = start + len(its.labels)
            placed[side] = replace(its, columns={**its.columns, PLACE: np.arange(start, end)})
            start = end
        return placed

    def _by_column(self, rows: Rows, classes: tuple[str, ...]) -> Opened:
        """The splits of one table, as the column says."""
        column = str(self.split_column)
        values = _values(self.files["train"], column, f"split-column={column}")
        sides = sides_of(values, str(self.files["train"][0]), column, whole=self.whole)
        train, test = divided(rows, sides)
        if not len(sides.test):
            train, test = with_drawn_test(train, self.seed, str(self.files["train"][0]))
        name = f"column {column!r}"
        splits_from = SplitsFrom(name if len(sides.validation) else "", name if len(sides.test) else CARVED)
        return Opened(train, test, classes, splits_from=splits_from)

    def _refuse_unlabelled(self, test: Rows) -> None:
        if not has_sets(test.labels) and len(test.labels) and int(test.labels.max()) < 0:
            splits = self.chosen.splits_from.validation or "SPLIT"
            raise DataError(
                f"{self.files['test'][0]}: every label is {int(test.labels[0])}: these images have no classes; "
                f"name another split by ?test={splits} (splits: {', '.join(self.chosen.splits) or 'unknown'})"
            )
