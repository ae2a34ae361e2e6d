"""`parquet:PATH`: parquet files in the layout of the Hugging Face Hub."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.base.text import first_line
from zoo.data.sources.source import Opened, Request, Rows
from zoo.data.types import Chunk, Item
from zoo.errors import DataError, InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH = 512
TEST_NAMES = ("test", "validation", "valid", "val")


@dataclass(frozen=True)
class _Columns:
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


def _columns(path: Path, image: str | None, label: str | None) -> _Columns:
    """Find the columns by the schema's features; options win."""
    with _reader(path) as reader:
        schema = reader.schema_arrow
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        features = {}
    kinds = {name: f.get("_type", "") for name, f in features.items() if isinstance(f, dict)}
    image = image or next((n for n, kind in kinds.items() if kind == "Image"), None)
    label = label or next((n for n, kind in kinds.items() if kind == "ClassLabel"), None)
    image = image or next((n for n in ("image", "img") if n in schema.names), None)
    label = label or next((n for n in ("label", "labels", "fine_label") if n in schema.names), None)
    for option, name in (("image", image), ("label", label)):
        if name not in schema.names:
            given = f"no column {name!r}" if name else f"no {option} column found"
            raise InputError(
                f"{path}: {given}; columns: {', '.join(schema.names)}; name it by ?{option}=COLUMN"
            )
    names = features.get(label, {}).get("names", ()) if isinstance(features.get(label), dict) else ()
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return _Columns(str(image), str(label), tuple(map(str, names)))


def split_of(path: str) -> str:
    """The split that a file's name tells: "train" of "data/train-00000-of-00001.parquet"."""
    stem = path.rsplit("/", 1)[-1].removesuffix(".parquet")
    match = re.match(r"([A-Za-z]+)", stem)
    folder = path.rsplit("/", 2)[-2] if "/" in path else ""
    known = ("train", *TEST_NAMES)
    name = match.group(1).lower() if match else ""
    return name if name in known or folder.lower() not in known else folder.lower()


def pick_splits(
    paths: Sequence[str], train: str | None, test: str | None, where: str
) -> tuple[list[str], list[str]]:
    """Sort files into train and test by the split in their names.

    Raises:
        InputError: a split has no file; lists the splits there are.
    """
    by_split: dict[str, list[str]] = {}
    for path in sorted(paths):
        by_split.setdefault(split_of(path), []).append(path)
    train = train or "train"
    test = test or next((name for name in TEST_NAMES if name in by_split), "test")
    for option, name in (("train", train), ("test", test)):
        if name not in by_split:
            have = ", ".join(sorted(by_split)) or "none"
            raise InputError(
                f"{where}: no parquet file of split {name!r}; splits: {have}; name it by ?{option}=SPLIT"
            )
    return by_split[train], by_split[test]


def _label_values(files: Sequence[Path], column: str) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = []
    for path in files:
        with _reader(path) as reader:
            try:
                values += reader.read(columns=[column]).column(column).to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path}: {first_line(error, None)}") from None
    return values


def _labels(files: Sequence[Path], column: str, classes: tuple[str, ...]) -> np.ndarray:
    """Label numbers of all rows; texts are looked up among the classes."""
    values = _label_values(files, column)
    numbers = {name: i for i, name in enumerate(classes)}
    for row, value in enumerate(values):
        known = numbers.get(value) if isinstance(value, str) else value
        if known is None or isinstance(known, float):
            raise DataError(
                f"{files[0].parent}: row {row} of column {column!r} holds {value!r}, which is not a class"
            )
        values[row] = known
    return np.asarray(values, np.int64)


def _item(cell: object, folder: Path) -> Item:
    if isinstance(cell, dict):
        data = cell.get("bytes")
        return data if data is not None else folder / str(cell.get("path"))
    return cell if isinstance(cell, bytes) else b""


def _rows(files: Sequence[Path], columns: _Columns, classes: tuple[str, ...]) -> Rows:
    import pyarrow as pa

    labels = _labels(files, columns.label, classes)
    counts = []
    for path in files:
        with _reader(path) as reader:
            counts.append(reader.metadata.num_rows)
    ends = np.cumsum(counts)

    def chunks() -> Iterator[Chunk]:
        for path in files:
            with _reader(path) as reader:
                try:
                    for batch in reader.iter_batches(BATCH, columns=[columns.image]):
                        yield [_item(cell, path.parent) for cell in batch.column(0).to_pylist()]
                except (OSError, pa.ArrowException) as error:
                    raise DataError(f"{path}: {first_line(error, None)}") from None

    def where(row: int) -> str:
        file = int(np.searchsorted(ends, row, side="right"))
        return f"{files[file]} row {row - (int(ends[file - 1]) if file else 0)}"

    return Rows(labels, chunks, where)


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files, sorted into splits by their names.

    Columns are found by the schema's `huggingface` features (one Image, one ClassLabel), else by the
    usual names, or given by the options `image` and `label`.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    image: str | None = None
    label: str | None = None

    @classmethod
    def make(cls, request: Request) -> ParquetSource:
        """The source for `parquet:PATH` with PATH a folder (searched below), a file pattern or a file.

        Raises:
            InputError: nothing there, or a split without files.
        """
        root = Path(request.rest).expanduser()
        pattern = str(root / "**" / "*.parquet") if root.is_dir() else str(root)
        paths = [p for p in glob.glob(pattern, recursive=True) if p.endswith(".parquet")]
        if not paths:
            raise InputError(f"no parquet files in {root}; parquet:PATH needs a folder or a pattern of them")
        return cls.of_files(
            [str(Path(p).resolve()) for p in paths], request.options, f"parquet:{request.rest}"
        )

    @classmethod
    def of_files(cls, paths: Sequence[str], options: dict[str, Any], where: str) -> ParquetSource:
        """The source for these files, split by name."""
        train, test = pick_splits(paths, options.get("train"), options.get("test"), where)
        return cls(
            tuple(map(Path, train)), tuple(map(Path, test)), options.get("image"), options.get("label")
        )

    def identity(self) -> dict[str, Any]:
        """Each file's path, size and time, and the chosen columns."""

        def stamp(path: Path) -> list[Any]:
            status = path.stat()
            return [str(path), status.st_size, status.st_mtime_ns]

        return {
            "scheme": "parquet",
            "train": [stamp(p) for p in self.train],
            "test": [stamp(p) for p in self.test],
            "columns": [self.image, self.label],
        }

    def open(self) -> Opened:
        """The splits, read a batch of rows at a time."""
        first, second = (_columns(files[0], self.image, self.label) for files in (self.train, self.test))
        if first.classes != second.classes:
            raise DataError(
                f"train and test have different classes: {len(first.classes)} in {self.train[0]}, "
                f"{len(second.classes)} in {self.test[0]}, or another order"
            )
        classes = first.classes
        if not classes:
            values = set(_label_values(self.train, first.label))
            if values and all(isinstance(v, str) for v in values):
                classes = tuple(sorted(values))
        return Opened(_rows(self.train, first, classes), _rows(self.test, second, classes), classes)
