"""`parquet:PATH`: parquet files in the layout of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from zoo.base.explain import shown
from zoo.base.text import first_line
from zoo.data.findings import Finding
from zoo.data.sources.labels import class_number, why_no_class
from zoo.data.sources.parquet_files import local_files, unread_splits
from zoo.data.sources.source import Opened, Request, Rows
from zoo.data.split import TEST_SHARE, drawn_test
from zoo.data.types import Chunk, Item, Labels
from zoo.errors import DataError, InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 512
IMAGES, LABELS = ("image", "img"), ("label", "labels", "fine_label")
"""Usual names of the columns."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold images and labels, and the class names where the schema has them."""

    image: str
    label: str
    classes: tuple[str, ...]


def _reader(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {first_line(error, None)}") from None


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the Hub's metadata say of each column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def columns_of(path: Path, image: str | None, label: str | None) -> Columns:
    """Find one file's columns by its schema's features; options win.

    Raises:
        InputError: no such column, or several that could be it. DataError: the file cannot be read, or the column
            cannot hold images.
    """
    with _reader(path) as reader:
        schema = reader.schema_arrow
    features = _features(schema)
    kinds = {name: feature.get("_type", "") for name, feature in features.items() if name in schema.names}
    image = image or _column(path, schema, kinds, "image", "Image", IMAGES)
    label = label or _column(path, schema, kinds, "label", "ClassLabel", LABELS)
    for option, name in (("image", image), ("label", label)):
        if name not in schema.names:
            raise InputError(
                f"{path}: no column {name!r}; columns: {', '.join(schema.names)}; name it by ?{option}=COLUMN"
            )
    _check_image_type(path, schema, image)
    names = features.get(label, {}).get("names") or ()
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return Columns(image, label, tuple(map(str, names)))


def _column(
    path: Path, schema: pa.Schema, kinds: dict[str, str], option: str, kind: str, usual: tuple[str, ...]
) -> str:
    """The one column of the kind, else the one with a usual name."""
    of_kind = [name for name, its in kinds.items() if its == kind]
    candidates = [name for name in usual if name in (of_kind or schema.names)] or of_kind
    if len(candidates) == 1:
        return candidates[0]
    what = f"several columns could hold the {option}s ({', '.join(candidates)})" if candidates else ""
    raise InputError(
        f"{path}: {what or f'no {option} column found'}; columns: {', '.join(schema.names)}; "
        f"name it by ?{option}=COLUMN"
    )


def _check_image_type(path: Path, schema: pa.Schema, image: str) -> None:
    """Refuse a column that holds no encoded files: one line, not one for each row."""
    import pyarrow as pa

    kind = schema.field(image).type
    if pa.types.is_struct(kind):
        fits = not {"bytes", "path"}.isdisjoint(field.name for field in kind)
    else:
        fits = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not fits:
        with _reader(path) as reader:
            batch = next(reader.iter_batches(1, columns=[image]), None)
        cells = batch.column(0).to_pylist() if batch is not None else []
        first = f" (row 0 holds {shown(cells[0])})" if cells else ""
        raise DataError(
            f"{path}: column {image!r} holds {kind}{first}, not images; needed are the bytes of image files, "
            "or {bytes, path} as the Hub has them; another column is named by ?image=COLUMN"
        )


def _same_columns(files: Sequence[Path], image: str | None, label: str | None) -> Columns:
    """The columns of all files, which must agree: a label means one class in every shard.

    Raises:
        DataError: names the file that differs, and how.
    """
    first = columns_of(files[0], image, label)
    for path in files[1:]:
        other = columns_of(path, image, label)
        if (other.image, other.label) != (first.image, first.label):
            raise DataError(
                f"{path}: images and labels are in the columns {other.image!r} and {other.label!r}, "
                f"in {files[0].name} in {first.image!r} and {first.label!r}; these are no shards of one split"
            )
        if other.classes != first.classes:
            raise DataError(f"{path}: {_difference(other.classes, first.classes, files[0].name)}")
    return first


def _difference(classes: tuple[str, ...], others: tuple[str, ...], where: str) -> str:
    """How the class names of one file differ from those of another one."""
    if sorted(classes) == sorted(others):
        place = next(i for i, (one, other) in enumerate(zip(classes, others, strict=True)) if one != other)
        what = f"class {place} is {classes[place]!r}, in {where} {others[place]!r}"
    else:
        what = f"{len(classes)} in this file, {len(others)} in {where}"
        extra = [name for name in (*classes, *others) if (name in classes) != (name in others)]
        what += f" ({extra[0]!r} is in one of them only)" if extra else ""
    return f"different classes, or another order of them: {what}; write the files with one list of class names"


def _cells(files: Sequence[Path], column: str) -> Iterator[tuple[Path, list[Any]]]:
    """The values of a column, file by file."""
    import pyarrow as pa

    for path in files:
        with _reader(path) as reader:
            try:
                yield path, reader.read(columns=[column]).column(column).to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path}: {first_line(error, None)}") from None


def _text_classes(files: Sequence[Path], column: str) -> tuple[str, ...]:
    """The texts of a label column, sorted; none where its labels are numbers."""
    texts: set[str] = set()
    for _, values in _cells(files, column):
        texts.update(value for value in values if isinstance(value, str))
    return tuple(sorted(texts))


def _labels(files: Sequence[Path], column: str, classes: tuple[str, ...]) -> Labels:
    """Label numbers of all rows; texts are looked up among the classes."""
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


def _refuse(message: str) -> NoReturn:
    raise DataError(message)


def _item(cell: object, path: Path, row: int) -> Item:
    """What one cell of the image column holds: a file's bytes, or its path beside the parquet file."""
    if isinstance(cell, dict):
        data, name = cell.get("bytes"), cell.get("path")
        if data is not None:
            return bytes(data)
        if name:
            return path.parent / str(name)
    elif isinstance(cell, bytes):
        return cell
    what = "null" if cell is None or isinstance(cell, dict) else shown(cell)
    return partial(_refuse, f"{path} row {row}: holds no image ({what})")


def _rows(files: Sequence[Path], columns: Columns, classes: tuple[str, ...], chosen: Labels | None = None) -> Rows:
    """A split of all rows, or of the chosen ones (ascending)."""
    import pyarrow as pa

    labels = _labels(files, columns.label, classes)
    counts = []
    for path in files:
        with _reader(path) as reader:
            counts.append(reader.metadata.num_rows)
    ends = np.cumsum(counts)
    kept = None if chosen is None else set(chosen.tolist())

    def chunks() -> Iterator[Chunk]:
        for path, end, count in zip(files, ends, counts, strict=True):
            row = 0
            with _reader(path) as reader:
                try:
                    for batch in reader.iter_batches(BATCH, columns=[columns.image]):
                        cells = list(enumerate(batch.column(0).to_pylist(), row))
                        row += len(cells)
                        yield [
                            _item(cell, path, i) for i, cell in cells if kept is None or int(end) - count + i in kept
                        ]
                except (OSError, pa.ArrowException) as error:
                    raise DataError(f"{path}: {first_line(error, None)}") from None

    def where(i: int) -> str:
        row = i if chosen is None else int(chosen[i])
        file = int(np.searchsorted(ends, row, side="right"))
        return f"{files[file]} row {row - (int(ends[file - 1]) if file else 0)}"

    return Rows(labels if chosen is None else labels[chosen], chunks, where)


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


def _digest_of_images(files: Sequence[Path], image: str) -> str:
    """A hash over size and time of every image that lies beside the files; "" where all are inside them."""
    digest, count = hashlib.sha256(), 0
    for path in files:
        with _reader(path) as reader:
            if not _has_paths(reader, image):
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
        test: empty where the files have one split alone, which is divided by `seed` (stratified, 20% are test
            images); or, `whole`, both are all of it: for an evaluation, which reads one of them.
        splits: names of all splits there are, for messages. unread: those that are not read.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    image: str | None = None
    label: str | None = None
    seed: int = 0
    whole: bool = False
    splits: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @classmethod
    def make(cls, request: Request) -> ParquetSource:
        """The source for `parquet:PATH` with PATH a folder (searched below), a file pattern or a file.

        Raises:
            InputError: nothing there, or a split without files. DataError: shards are missing.
        """
        options = request.options
        chosen = local_files(request.rest, options, f"parquet:{request.rest}", whole=request.whole)
        train, test = (tuple(map(Path, side)) for side in (chosen.train, chosen.test))
        image, label = options.get("image"), options.get("label")
        return cls(train, test, image, label, request.seed, request.whole, chosen.splits, chosen.unread)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the splits, a line each."""
        if self.test or self.whole:
            return ()
        return (f"the files have one split, which is divided by chance: {TEST_SHARE:.0%} are test images",)

    def findings(self) -> tuple[Finding, ...]:
        """Splits of the files that are not read."""
        return unread_splits(self.unread)

    def columns(self) -> tuple[Columns, Columns]:
        """The columns of train and test, after a look at the schema of every file.

        Raises:
            InputError, DataError: a file lacks them, or its classes differ from the others'.
        """
        first = _same_columns(self.train, self.image, self.label)
        if not self.test:
            return first, first
        second = _same_columns(self.test, self.image, self.label)
        if first.classes != second.classes:
            difference = _difference(first.classes, second.classes, str(self.test[0]))
            raise DataError(f"train and test have different classes: {self.train[0]}: {difference}")
        return first, second

    def identity(self) -> dict[str, Any]:
        """Each file's path, size and time, the chosen columns, and the images that lie beside the files.

        Raises:
            InputError, DataError: as `columns`; said before a cache could answer in the files' place.
        """

        def stamp(path: Path) -> list[Any]:
            status = path.stat()
            return [str(path), status.st_size, status.st_mtime_ns]

        identity: dict[str, Any] = {
            "scheme": "parquet",
            "train": [stamp(p) for p in self.train],
            "test": [stamp(p) for p in self.test],
            "columns": [self.image, self.label],
        }
        first, second = self.columns()
        beside = [_digest_of_images(self.train, first.image), _digest_of_images(self.test, second.image)]
        if any(beside):
            identity["images"] = beside
        return identity if self.test else identity | {"seed": "whole" if self.whole else self.seed}

    def open(self) -> Opened:
        """The splits, read a batch of rows at a time."""
        first, second = self.columns()
        classes = first.classes or _text_classes(self.train, first.label)
        train = _rows(self.train, first, classes)
        if self.test:
            test = _rows(self.test, second, classes)
            self._refuse_unlabelled(test)
            return Opened(train, test, classes)
        if self.whole:
            return Opened(train, train, classes)
        rest, chosen = drawn_test(train.labels, self.seed, str(self.train[0]))
        train, test = (_rows(self.train, first, classes, rows) for rows in (rest, chosen))
        return Opened(train, test, classes)

    def _refuse_unlabelled(self, test: Rows) -> None:
        if len(test.labels) and int(test.labels.max()) < 0:
            raise DataError(
                f"{self.test[0]}: every label is {int(test.labels[0])}: these images have no classes; "
                f"name another split by ?test=SPLIT (splits: {', '.join(self.splits) or 'unknown'})"
            )
