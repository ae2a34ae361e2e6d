"""Parquet files whose images stay in them: `parquet:PATH?stream` and `hf:OWNER/NAME?stream`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.base.text import first_line, plural
from zoo.data.cache import check_labels
from zoo.data.files.image_files import Listing
from zoo.data.files.reading import Span
from zoo.data.findings import Finding
from zoo.data.label_sets import has_sets
from zoo.data.shards.packed import READERS, Packed
from zoo.data.shards.shuffle import Shuffle
from zoo.data.sources.listed import Part
from zoo.data.sources.parquet import PLACE, ParquetSource, image_item
from zoo.data.sources.parquet_columns import Place, parquet_reader
from zoo.data.sources.source import Opened, Request, Rows, Show, silent
from zoo.data.types import Chunk, Labels, SplitsFrom
from zoo.errors import DataError

if TYPE_CHECKING:
    import pyarrow.parquet as pq


@dataclass(frozen=True)
class ParquetStore:
    """Reads images out of row groups, which are the blocks.

    Attributes:
        files: of the row groups, in their order. images: the column of each file. metadata: the footer of each file.
        file_of, group_of: of each block. starts: int64, the first row of each block, among all rows.
    """

    files: Sequence[Place]
    images: Sequence[str]
    metadata: Sequence[pq.FileMetaData] = field(repr=False)
    file_of: Labels = field(repr=False)
    group_of: Labels = field(repr=False)
    starts: Labels = field(repr=False)

    is_local = False

    def read(self, block: int, rows: Labels) -> list[bytes]:
        """Some images of a row group; b"" where a row has none."""
        import pyarrow as pa

        number = int(self.file_of[block])
        path = self.files[number]
        try:
            with parquet_reader(path, self.metadata[number]) as reader:
                table = reader.read_row_group(int(self.group_of[block]), columns=[self.images[number]])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: {first_line(error, None)}") from None
        cells = table.column(0)
        inside = (rows - self.starts[block]).tolist()
        return [_content(cells[row].as_py(), path, row) for row in inside]

    def span(self, row: int) -> Span:
        """There is none: what a row group holds is compressed together."""
        raise NotImplementedError

    def where(self, row: int) -> str:
        """The file, and the row in it."""
        block = int(np.searchsorted(self.starts, row, side="right")) - 1
        number = int(self.file_of[block])
        first = int(np.searchsorted(self.file_of, number))
        return f"{self.files[number]} row {row - int(self.starts[first])}"


def _content(cell: object, path: Place, row: int) -> bytes:
    """The encoded bytes of one cell; nothing where it has none, which is said when they are decoded."""
    item = image_item(cell, path, row)
    if isinstance(item, Path):
        try:
            return item.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {item} cannot be read ({error.strerror})") from None
    return item if isinstance(item, bytes) else b""


def packed_parquet(files: Sequence[Place], images: Sequence[str], shuffle: Shuffle) -> Packed:
    """The images of several files, in their order.

    Args:
        images: the column of each file that holds the images.
    Raises:
        DataError: a file cannot be read.
    """
    metadata = []
    for path in files:
        with parquet_reader(path) as reader:
            metadata.append(reader.metadata)
    groups = [(file, group) for file, its in enumerate(metadata) for group in range(its.num_row_groups)]
    counts = np.array([metadata[file].row_group(group).num_rows for file, group in groups], np.int64)
    held = np.array([_bytes_of(metadata[file].row_group(group), images[file]) for file, group in groups], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    file_of, group_of = (np.array(column, np.int64) for column in zip(*groups, strict=True))
    names = [os.fsencode(f"{path.name}\0") for path in files]
    read = [path if isinstance(path, Path) else replace(path, keeps=False) for path in files]
    store = ParquetStore(tuple(read), tuple(images), tuple(metadata), file_of, group_of, starts)
    return Packed(
        Path(str(files[0])).parent,
        np.frombuffer(b"".join(names), np.uint8),
        np.cumsum([len(name) for name in names]),
        np.repeat(-(-held // np.maximum(counts, 1)), counts),
        np.repeat(np.array([_time_of(path) for path in files], np.int64)[file_of], counts),
        np.repeat(np.arange(len(counts)), counts),
        store,
        shuffle,
    )


def _time_of(path: Place) -> int:
    """When a file was changed, or a number that stands for its address and version: another one holds other images."""
    if isinstance(path, Path):
        return path.stat().st_mtime_ns
    return replace(path, version=f"{path.url} {path.version}").stamp.time


def _bytes_of(group: pq.RowGroupMetaData, image: str) -> int:
    """The bytes of the images of a row group."""
    parts = map(group.column, range(group.num_columns))
    return sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] == image)


class _Read(NamedTuple):
    """What was read from the files."""

    listing: Listing
    train: Part
    test: Part
    opened: Opened


@dataclass(frozen=True)
class ParquetShards:
    """Parquet files that are read a row group at a time, while a run trains.

    Attributes:
        source: their splits, columns and labels. scheme: for messages and identity.
    """

    source: ParquetSource
    shuffle: Shuffle
    scheme: str = "parquet"
    show: Show = silent

    streams = True

    @classmethod
    def of(cls, source: ParquetSource, request: Request, scheme: str) -> ParquetShards:
        """The source for what a SPEC with `?stream` asks for.

        Raises:
            InputError: an option is wrong.
        """
        shuffle = request.shuffle or Shuffle.asked(request.options, f"{scheme}:{request.rest}")
        return cls(replace(source, placed=True), shuffle, scheme, request.show)

    @cached_property
    def _read(self) -> _Read:
        files = self.source.files
        every = [path for paths in files.values() for path in paths]
        self._fetch_footers(every)
        columns = self.source.columns()
        packed = packed_parquet(
            every, [columns[side].image for side, paths in files.items() for _ in paths], self.shuffle
        )
        opened = self.source.open()
        check_labels(opened, f"{self.scheme}:{packed.root}")
        labels = np.zeros((len(packed), *opened.train.labels.shape[1:]), opened.train.labels.dtype)
        for side in (opened.train, opened.test):
            labels[side.columns[PLACE]] = side.labels
        count = labels.shape[1] if has_sets(labels) else 1 + int(labels.max())
        classes = opened.classes or tuple(map(str, range(count)))
        listing = Listing(packed, labels, classes, opened.ignored, named=bool(opened.classes))
        return _Read(listing, _part(listing, opened.train), _part(listing, opened.test), opened)

    def _fetch_footers(self, files: Sequence[Place]) -> None:
        """Bring the footers of remote files here, several at a time."""
        remote = [path for path in files if not isinstance(path, Path)]
        with ThreadPoolExecutor(READERS) as threads:
            for done, reader in enumerate(threads.map(parquet_reader, remote), 1):
                reader.close()
                self.show(f"reading what {plural(len(remote), 'file')} say of themselves", done, len(remote))

    def parts(self) -> tuple[Part, Part]:
        """Training images, with those that validate, and test images."""
        return self._read.train, self._read.test

    def splits_from(self) -> SplitsFrom:
        """The names of the splits that are validation and test."""
        return self._read.opened.splits_from

    def findings(self, listings: Sequence[Listing] | None = None) -> tuple[Finding, ...]:
        """What was seen while the labels were read, and splits that are not read."""
        return (*self.source.findings(), *self._read.opened.findings)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the splits, a line each."""
        return self.source.notes

    def content(self, listings: Sequence[Listing] | None = None) -> tuple[str, Iterator[Chunk]]:
        """Nothing is looked at before it is needed."""
        return f"{self.scheme} {self._read.listing.digest(times=True)}", iter(())

    def identity(self) -> dict[str, Any]:
        """A hash over names, sizes and labels."""
        return {"scheme": self.scheme, "stream": self._read.listing.digest(times=True)}

    def open(self) -> Opened:
        """The splits; images are decoded when they are read."""
        return replace(self.source, placed=False).open()


def _part(listing: Listing, rows: Rows) -> Part:
    columns: Mapping[str, Any] = {name: values for name, values in rows.columns.items() if name != PLACE}
    return Part(listing, rows.columns[PLACE], columns)
