"""Features to a file while images are read: in parts, with which another process goes on after one was killed.

Parts lie in a folder beside the file, FILE.parts: `identity.json` says what they are of, each part is a Parquet file of
consecutive images that is whole or not there, and the file itself appears by a rename when all parts are there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from zoo.base.files import make_folder, replacing, write_text
from zoo.base.plain_json import json_text
from zoo.errors import BusyError, InputError
from zoo.evaluate.predictions import text_of
from zoo.predict.embedding import FEATURES, HEADER
from zoo.runs.lock import RunLock

if TYPE_CHECKING:
    from zoo.predict.embedded_images import Rows, Wanted

PART_ROWS = 4096
"""Images of a part, at least, unless `PART_SECONDS` have passed."""
PART_SECONDS = 30.0
GROUP_ROWS = 4096
"""Images of a row group of the finished file, whatever the parts were."""

IDENTITY = "identity.json"
TAKEN = b"taken"


def write_features(
    path: Path,
    wanted: Wanted,
    read: Callable[[Any], NDArray[np.float32]],
    header: Mapping[str, Any],
    *,
    identity: str,
    batch_size: int,
    show: Callable[[int, int], None],
) -> int:
    """Compute the features of all images into a file; go on where an earlier process stopped.

    Args:
        path: .parquet or .npy. read: pixels uint8 (B, 3, H, W) to float32 (B, width).
        header: goes into the file's metadata. identity: what decides the features, so that others are not continued.
        show: told how many of how many images are done.
    Returns:
        How many images were computed now.
    Raises:
        InputError: FILE.parts holds the beginning of other features. BusyError: another process is writing it.
        WriteError: the disk is full, or the folder cannot be written.
    """
    folder = path.with_name(f"{path.name}.parts")
    make_folder(folder)
    schema = schema_of(wanted, int(header["width"]))
    with _locked(folder):
        parts = _begun(folder, identity)
        start = sum(map(_taken, parts))
        total = sum(wanted.counts.values())
        done = start
        show(done, total)
        for number, (table, taken) in enumerate(_parts(wanted.batches(start, batch_size), read, schema, wanted)):
            with replacing(folder / f"{len(parts) + number:06}.parquet") as temporary:
                parquet.write_table(table.replace_schema_metadata({TAKEN: str(taken).encode()}), temporary)
            done += taken
            show(done, total)
        _finish(path, _present(folder), schema.with_metadata({HEADER: json_text(dict(header)).encode()}))
        shutil.rmtree(folder, ignore_errors=True)
    return total - start


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = RunLock(folder).__enter__()
    except BusyError as error:
        raise BusyError(str(error).replace("is being trained", "is being written")) from None
    try:
        yield
    finally:
        lock.__exit__()


def _begun(folder: Path, identity: str) -> list[Path]:
    """The parts that an earlier process wrote, in their order.

    Raises:
        InputError: they are of other features.
    """
    file, parts = folder / IDENTITY, _present(folder)
    if not parts:
        write_text(file, json.dumps(identity))
    elif _identity(file) != identity:
        raise InputError(
            f"{folder} holds the beginning of other features: of another model, layer or images; delete this folder, "
            "or name another --output"
        )
    return parts


def _identity(file: Path) -> object:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _present(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.parquet"))


def _taken(part: Path) -> int:
    return int(parquet.read_schema(part).metadata[TAKEN])


def schema_of(wanted: Wanted, width: int) -> pa.Schema:
    """The columns: `image`, of a dataset `split`, and `label` and `class` or else `labels`; then `features`."""
    fields = [pa.field("image", pa.string())]
    if wanted.spec:
        fields += [pa.field("split", pa.string())]
        fields += (
            [pa.field("labels", pa.list_(pa.string()))]
            if wanted.has_sets
            else [pa.field("label", pa.int64()), pa.field("class", pa.string())]
        )
    return pa.schema([*fields, pa.field(FEATURES, pa.list_(pa.float32(), width))])


def _parts(
    batches: Iterable[Rows], read: Callable[[Any], NDArray[np.float32]], schema: pa.Schema, wanted: Wanted
) -> Iterator[tuple[pa.Table, int]]:
    """Tables of whole batches, with how many images were asked for."""
    held: list[pa.Table] = []
    taken, since = 0, time.monotonic()
    for rows in batches:
        held.append(_table(rows, read, schema, wanted))
        taken += rows.taken
        if taken >= PART_ROWS or time.monotonic() - since > PART_SECONDS:
            yield pa.concat_tables(held), taken
            held, taken, since = [], 0, time.monotonic()
    if held:
        yield pa.concat_tables(held), taken


def _table(rows: Rows, read: Callable[[Any], NDArray[np.float32]], schema: pa.Schema, wanted: Wanted) -> pa.Table:
    if not rows.names:
        return schema.empty_table()
    vectors = np.ascontiguousarray(read(rows.pixels), np.float32)
    columns: dict[str, Any] = {"image": pa.array(map(text_of, rows.names), pa.string())}
    if rows.labels is not None:
        columns["split"] = pa.array([rows.split] * len(rows.names))
        columns |= _labels(rows.labels.numpy(), wanted.classes)
    columns[FEATURES] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return pa.Table.from_pydict(columns, schema=schema)


def _labels(labels: NDArray[Any], classes: tuple[str, ...]) -> dict[str, Any]:
    if labels.ndim == 2:
        return {"labels": pa.array([[classes[k] for k in np.flatnonzero(row)] for row in labels])}
    return {"label": pa.array(labels), "class": pa.array([classes[k] for k in labels.tolist()])}


# ---- the finished file -------------------------------------------------------------------------------


def _finish(path: Path, parts: list[Path], schema: pa.Schema) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".npy":
            _write_array(temporary, parts, schema)
            return
        with parquet.ParquetWriter(temporary, schema) as writer:
            for table in _groups(parts, schema):
                writer.write_table(table)


def _groups(parts: Iterable[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of all parts in groups of one size, so that the file does not show where a process was killed."""
    held = schema.empty_table()
    for part in parts:
        held = pa.concat_tables([held, parquet.read_table(part).cast(schema)])
        while len(held) >= GROUP_ROWS:
            yield held.slice(0, GROUP_ROWS).combine_chunks()
            held = held.slice(GROUP_ROWS)
    if len(held):
        yield held.combine_chunks()


def _write_array(path: Path, parts: list[Path], schema: pa.Schema) -> None:
    """A structured array; its field `features` bears the feature's name as its title, and the width in its shape."""
    header = json.loads(schema.metadata[HEADER])
    names = [name for name in schema.names if name != FEATURES]
    kinds = [(name, _kind(name, parts, schema)) for name in names]
    dtype = np.dtype([*kinds, ((header["feature"], FEATURES), "<f4", (header["width"],))])
    total = sum(parquet.read_metadata(part).num_rows for part in parts)
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": dtype.descr, "fortran_order": False, "shape": (total,)})
        for table in _groups(parts, schema):
            rows = np.zeros(len(table), dtype)
            for name in names:
                rows[name] = _texts(table[name]) if schema.field(name).type != pa.int64() else table[name].to_numpy()
            vectors = table[FEATURES].combine_chunks().flatten().to_numpy()
            rows[FEATURES] = vectors.reshape(-1, header["width"])
            rows.tofile(file)


def _texts(column: Any) -> list[str]:
    return ["; ".join(value) if isinstance(value, list) else value for value in column.to_pylist()]


def _kind(name: str, parts: list[Path], schema: pa.Schema) -> str:
    if schema.field(name).type == pa.int64():
        return "<i8"
    longest = (len(text) for part in parts for text in _texts(parquet.read_table(part, columns=[name])[name]))
    return f"<U{max(longest, default=1) or 1}"
