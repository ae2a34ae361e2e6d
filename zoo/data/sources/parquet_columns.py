"""Which columns of parquet files hold images and labels, and what the Hub's metadata say of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.explain import shown
from zoo.base.text import first_line
from zoo.data.shards.remote import RemoteFile
from zoo.data.sources.parquet_sets import holds_lists, inner_feature
from zoo.data.sources.table_columns import usual_column
from zoo.errors import DataError, InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGES, LABELS = ("image", "img"), ("label", "labels", "fine_label")
"""Usual names of the columns."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold images and labels, and the class names where the schema has them.

    Attributes:
        lists: whether the label column holds a list of labels for each image.
        several: a column of 0 and 1 for each class, in the place of one label column.
    """

    image: str
    label: str
    classes: tuple[str, ...]
    lists: bool = False
    several: tuple[str, ...] = ()


Place = Path | RemoteFile
"""Where a parquet file is."""


def parquet_reader(path: Place, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a file.

    Args:
        metadata: its footer, if it is known.
    Raises:
        DataError: it cannot be read as parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        source = path.opened() if isinstance(path, RemoteFile) else path
        return parquet.ParquetFile(source, metadata=metadata)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {first_line(error, None)}") from None


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the Hub's metadata say of each column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def columns_of(path: Place, image: str | None, label: str | None, several: tuple[str, ...] = ()) -> Columns:
    """Find one file's columns by its schema's features; options win.

    Args:
        several: the columns of the classes, where each class has one.
    Raises:
        InputError: no such column, or several that could be it. DataError: the file cannot be read, or the column
            cannot hold images.
    """
    with parquet_reader(path) as reader:
        schema = reader.schema_arrow
    features = _features(schema)
    kinds = {name: feature.get("_type", "") for name, feature in features.items() if name in schema.names}
    image = image or _column(path, schema, kinds, "image", "Image", IMAGES)
    label = "" if several else label or _column(path, schema, kinds, "label", "ClassLabel", LABELS)
    labels = [("labels", name) for name in several] or [("label", label)]
    for option, name in (("image", image), *labels):
        if name not in schema.names:
            raise InputError(
                f"{path}: no column {name!r}; columns: {', '.join(schema.names)}; name it by ?{option}=COLUMN"
            )
    _check_image_type(path, schema, image)
    if several:
        return Columns(image, "", several, several=several)
    names = inner_feature(features.get(label, {})).get("names") or ()
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return Columns(image, label, tuple(map(str, names)), holds_lists(schema, label))


def _column(
    path: Place, schema: pa.Schema, kinds: dict[str, str], option: str, kind: str, usual: tuple[str, ...]
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


def _check_image_type(path: Place, schema: pa.Schema, image: str) -> None:
    """Refuse a column that holds no encoded files: one line, not one for each row."""
    import pyarrow as pa

    kind = schema.field(image).type
    if pa.types.is_struct(kind):
        fits = not {"bytes", "path"}.isdisjoint(field.name for field in kind)
    else:
        fits = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not fits:
        with parquet_reader(path) as reader:
            batch = next(reader.iter_batches(1, columns=[image]), None)
        cells = batch.column(0).to_pylist() if batch is not None else []
        first = f" (row 0 holds {shown(cells[0])})" if cells else ""
        raise DataError(
            f"{path}: column {image!r} holds {kind}{first}, not images; needed are the bytes of image files, "
            "or {bytes, path} as the Hub has them; another column is named by ?image=COLUMN"
        )


def path_column(path: Place, image: str | None) -> str | None:
    """The column of a file that holds paths of images, as text; None where a column holds the images themselves.

    Args:
        image: the column that the user named.
    Raises:
        DataError: the file cannot be read. InputError: several columns may hold the paths.
    """
    import pyarrow as pa

    with parquet_reader(path) as reader:
        schema = reader.schema_arrow
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    if image is not None:
        return image if image in texts else None
    kinds = [feature.get("_type") for name, feature in _features(schema).items() if name in schema.names]
    if "Image" in kinds or any(name in schema.names and name not in texts for name in IMAGES):
        return None
    return usual_column("path", texts, str(path))


def class_names(path: Place, label: str) -> tuple[str, ...]:
    """The names that the Hub's metadata give to the numbers in a column; none where they do not say."""
    with parquet_reader(path) as reader:
        names = inner_feature(_features(reader.schema_arrow).get(label, {})).get("names") or ()
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def same_columns(
    files: Sequence[Place], image: str | None, label: str | None, several: tuple[str, ...] = ()
) -> Columns:
    """The columns of all files, which must agree: a label means one class in every shard.

    Raises:
        DataError: names the file that differs, and how.
    """
    first = columns_of(files[0], image, label, several)
    for path in files[1:]:
        other = columns_of(path, image, label, several)
        if other.lists != first.lists:
            which = (path, files[0].name) if other.lists else (files[0], path.name)
            raise DataError(f"{which[0]}: the column {first.label!r} holds lists of labels, in {which[1]} one label")
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
