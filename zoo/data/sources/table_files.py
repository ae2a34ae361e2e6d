"""Tables in files: comma-separated values (with any usual separator), JSON lines, Parquet; read batch by batch."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import msgspec

from zoo.base.explain import shown
from zoo.base.text import first_line
from zoo.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["csv", "jsonl", "parquet"]

SEPARATORS = ",;\t|"
BATCH = 1 << 16
LIST = "\0"
"""A cell that is a list is this sign, and the list in JSON, with its parts as text."""

HEAD = 1 << 16
"""Characters that the separator of a file is told by."""

TOLD = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
"""A first line by which a spreadsheet says how its columns are separated."""


@dataclass(frozen=True)
class TableFile:
    """A file that holds a table.

    Attributes:
        first: the number that messages give to the first row: a spreadsheet counts the header as row 1, and shows no
            line that names the separator.
    """

    path: Path
    kind: Kind

    @property
    def first(self) -> int:
        """The number of the first row."""
        return {"csv": 2, "jsonl": 1, "parquet": 0}[self.kind]

    def columns(self) -> list[str]:
        """The names of the columns, in their order.

        Raises:
            DataError: the file cannot be read as such a table, or has no rows.
        """
        with _said(self.path):
            names = {"csv": self._header, "jsonl": self._keys, "parquet": self._schema}[self.kind]()
        if not names:
            raise DataError(f"{self.path} is empty; needed is a table with a column of paths and one of labels")
        return names

    def read(self, columns: Sequence[str], lists: str = "") -> dict[str, pa.ChunkedArray]:
        """The cells of some columns as text, blanks around them removed; a cell without anything is null.

        Args:
            lists: the column whose cells may be lists; these are texts that begin with `LIST`.
        Returns:
            By column, large_string (N,).
        Raises:
            DataError: the file cannot be read, or a cell is a table, or a list in another column.
        """
        import pyarrow as pa

        read = {"csv": self._csv, "jsonl": self._jsonl, "parquet": self._parquet}[self.kind]
        chunks: dict[str, list[pa.Array]] = {name: [] for name in columns}
        with _said(self.path):
            for batch in read(columns, lists):
                for name in columns:
                    chunks[name].append(_text(batch[name], may_be_list=name == lists))
        kind = pa.large_string()
        return {name: pa.chunked_array(arrays, kind) for name, arrays in chunks.items()}

    # ---- comma-separated values -----------------------------------------------------------------

    def _head(self) -> tuple[str, list[str], int]:
        """The separator, the header as it is written, and how many lines come before it."""
        with _opened(self.path) as file:
            data = file.read(HEAD)
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{self.path} is UTF-16; save it as UTF-8")
        text = data.decode("utf-8-sig", "replace")
        complete = text if len(data) < HEAD else text[: text.rfind("\n") + 1] or text
        if told := TOLD.match(complete):
            separator, complete = told[1], complete[told.end() :]
        else:
            separator = "\t" if ".tsv" in self.path.suffixes else _separator(complete)
        lines = csv.reader(io.StringIO(complete, newline=""), delimiter=separator)
        return separator, next((line for line in lines if line), []), int(told is not None)

    def _header(self) -> list[str]:
        return [name.strip() for name in self._head()[1]]

    def _csv(self, columns: Sequence[str], lists: str) -> Iterator[dict[str, pa.Array]]:
        import pyarrow as pa
        import pyarrow.csv

        separator, header, before = self._head()
        written = {name.strip(): name for name in header}
        reader = pa.csv.open_csv(
            pa.input_stream(str(self.path), compression="detect"),
            read_options=pa.csv.ReadOptions(block_size=4 << 20, skip_rows=before),
            parse_options=pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=[written[name] for name in columns],
                column_types={written[name]: pa.large_string() for name in columns},
            ),
        )
        for batch in reader:
            yield {name: batch.column(written[name]) for name in columns}

    # ---- JSON lines -----------------------------------------------------------------------------

    def _lines(self) -> Iterator[dict[str, Any]]:
        decoder = msgspec.json.Decoder(dict[str, Any])
        with _opened(self.path) as file:
            written = (text for line in file if (text := line.removeprefix(b"\xef\xbb\xbf").strip()))
            for number, line in enumerate(written, self.first):
                try:
                    yield decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise DataError(
                        f"{self.path} row {number}: {first_line(error, 80)}; needed is an object "
                        '{"path": ..., "label": ...} on each line'
                    ) from None

    def _keys(self) -> list[str]:
        names: dict[str, None] = {}
        for line in self._lines():  # all of them: a split or a weight may be said of the last rows alone
            names.update(dict.fromkeys(line))
        return list(names)

    def _jsonl(self, columns: Sequence[str], lists: str) -> Iterator[dict[str, pa.Array]]:
        import pyarrow as pa

        lines, start = self._lines(), self.first
        while batch := list(islice(lines, BATCH)):
            cells = {
                name: [self._plain(line.get(name), row, name, lists) for row, line in enumerate(batch, start)]
                for name in columns
            }
            yield {name: pa.array(texts, pa.large_string()) for name, texts in cells.items()}
            start += len(batch)

    def _plain(self, value: Any, row: int, column: str, lists: str = "") -> str | None:
        """A cell of JSON as a CSV file would hold it; a list in the column `lists` as text."""
        if isinstance(value, list) and column == lists:
            return _list_text([self._plain(part, row, column) for part in value], f"row {row}: column {column!r}")
        if isinstance(value, list | dict):
            raise DataError(
                f"{self.path} row {row}: column {column!r} holds {shown(value)}; needed is a text or a number"
            )
        return (
            value if value is None or isinstance(value, str) else str(int(value) if isinstance(value, bool) else value)
        )

    # ---- Parquet --------------------------------------------------------------------------------

    def _schema(self) -> list[str]:
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(self.path) as file:
            return list(file.schema_arrow.names)

    def _parquet(self, columns: Sequence[str], lists: str) -> Iterator[dict[str, pa.Array]]:
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                yield {name: batch.column(name) for name in columns}


def _list_text(parts: list[str | None], where: str) -> str:
    if None in parts:
        raise DataError(f"{where} holds a list with nothing (null) in it; needed are texts or numbers")
    return LIST + msgspec.json.encode([str(part).strip() for part in parts]).decode()


def _lists(array: pa.Array) -> pa.Array:
    """Cells that are lists as text."""
    import pyarrow as pa

    cells = (
        None if cell is None else [None if part is None else str(part) for part in cell] for cell in array.to_pylist()
    )
    texts = [None if cell is None else _list_text(cell, "a cell of labels") for cell in cells]
    return pa.array(texts, pa.large_string())


def _text(array: pa.Array, *, may_be_list: bool = False) -> pa.Array:
    """Cells as text without blanks around them; truth values are 0 and 1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if may_be_list and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        array, kind = _lists(array), pa.large_string()
    if pa.types.is_nested(kind):
        raise DataError(f"a cell holds {shown(array[0].as_py())}; needed is a text or a number")
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    trimmed = pc.utf8_trim_whitespace(array.cast(pa.large_string()))
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.large_string()), trimmed)


def _separator(text: str) -> str:
    """The separator that divides all lines into equally many fields, the most of them."""
    header, *_ = text.splitlines() or [""]
    even = {sep: _fields(text, sep) for sep in SEPARATORS}
    return max(SEPARATORS, key=lambda sep: (even[sep], header.count(sep)))


def _fields(text: str, separator: str) -> int:
    """Into how many fields each line is divided; 0 where that differs from line to line."""
    counts = {len(line) for line in islice(csv.reader(io.StringIO(text, newline=""), delimiter=separator), 100) if line}
    return counts.pop() if len(counts) == 1 and counts != {1} else 0


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """What a reader says as one line that names the file."""
    import pyarrow as pa

    try:
        yield
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except (OSError, EOFError, csv.Error, pa.ArrowException) as error:
        reason = first_line(error, 200)
        advice = "; save it as UTF-8" if "UTF8" in reason else ""
        raise DataError(f"{path} cannot be read: {reason}{advice}") from None
