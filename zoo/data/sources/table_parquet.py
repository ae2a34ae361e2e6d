"""`parquet:PATH`: files that hold images, or tables of the paths of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zoo.data.shards.shuffle import refuse_unstreamed
from zoo.data.sources.parquet import ParquetSource
from zoo.data.sources.parquet_columns import class_names, path_column
from zoo.data.sources.parquet_files import local_files
from zoo.data.sources.parquet_shards import ParquetShards
from zoo.data.sources.source import Request, Source
from zoo.data.sources.table_columns import find_columns
from zoo.data.sources.table_files import TableFile
from zoo.data.sources.table_rows import NO_SIDE, SIDES
from zoo.data.sources.table_source import OF_TEXT, TableSource
from zoo.errors import InputError

OPTIONS = frozenset(OF_TEXT - {"test", "validation"})
"""Options of files that hold paths, beside those of all Parquet files."""


def parquet(request: Request) -> Source:
    """The source for `parquet:PATH`.

    Raises:
        InputError, DataError: as `ParquetSource.make` and `TableSource.made`.
    """
    options, where = request.options, f"parquet:{request.rest}"
    refuse_unstreamed(options, where)
    if "path" not in options:
        chosen = local_files(request.rest, options, where, whole=True)
        column = path_column(Path(chosen.train[0]), options.get("image"))
        if column is None:
            _refuse_of_paths(options.keys() & (OPTIONS - {"label", "labels", "group", "split_column"}), where)
            made = ParquetSource.make(request)
            return ParquetShards.of(made, request, "parquet") if options.get("stream") else made
        options = {name: value for name, value in options.items() if name != "image"} | {"path": column}
    return _table(replace(request, options=options), where)


def _refuse_of_paths(options: set[str], where: str) -> None:
    if options:
        raise InputError(f"{where}: ?{min(options)}= is for tables of paths; these files hold the images themselves")


def _table(request: Request, where: str) -> TableSource:
    """The source for Parquet files that hold paths: each file's split is in its name, else in a column."""
    options = request.options
    if options.get("stream"):
        raise InputError(f"{where}: ?stream is for files that hold images; these hold paths: give --data-mode stream")
    chosen = local_files(request.rest, options, where, whole=request.whole)
    files = {"train": chosen.train, "val": chosen.validation, "test": chosen.test}
    if chosen.test == chosen.train:
        files["test"] = ()
    tables = [(Path(path), SIDES.index(side)) for side, paths in files.items() for path in paths]
    if not files["val"] and not files["test"]:
        tables = [(path, NO_SIDE) for path, _ in tables]
    made = TableSource.made(tables, "parquet", request, where)
    if "classes" in options:
        return made
    first = TableFile(tables[0][0], "parquet")
    label = find_columns(first.columns(), made.columns, str(first.path)).label
    return replace(made, order=replace(made.order, listed=class_names(first.path, label), source=str(first.path)))
