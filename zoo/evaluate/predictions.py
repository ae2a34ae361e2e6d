"""The predictions of an evaluation as a file: one row for each image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from zoo.base.files import replacing
from zoo.evaluate.one_pass import Predictions

Kind = Literal["csv", "parquet"]


def text_of(path: str) -> str:
    """A path as UTF-8; bytes that are none stand as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def columns_of(classes: Sequence[str]) -> list[str]:
    """A name of its own for each class's column."""
    often = Counter(classes)
    names = [f"p_{name}" if often[name] == 1 else f"p_{name} {i}" for i, name in enumerate(classes)]
    return names if len(set(names)) == len(names) else [f"p_{name} {i}" for i, name in enumerate(classes)]


def write_predictions(
    path: Path, predictions: Predictions, classes: Sequence[str], kind: Kind, origins: Sequence[str] = ()
) -> None:
    """Write a row for each image.

    The columns: `row` (of the split, from 0), `source` (the file, or the row of a file, that the image came from:
    `origins`, where they are known), `label` and `prediction` (class names), `label_index` and
    `prediction_index`, `correct`, `confidence` (of the prediction), then each class's probability
    (float32), named "p_" and the class, and its number where several classes have one name ("p_crane 517").

    Raises:
        WriteError: it cannot be written.
    """
    import pyarrow as pa

    names = pa.array(list(classes), pa.string())
    label, prediction = (pa.array(t.numpy()) for t in (predictions.labels, predictions.predicted))
    columns = {
        "row": pa.array(range(len(predictions)), pa.int64()),
        **({"source": pa.array(map(text_of, origins), pa.string())} if origins else {}),
        "label": names.take(label),
        "prediction": names.take(prediction),
        "label_index": label,
        "prediction_index": prediction,
        "correct": pa.array(predictions.hits.numpy()),
        "confidence": pa.array(predictions.confidence.numpy()),
    }
    arrays = [*columns.values(), *(pa.array(p) for p in predictions.probabilities.T.contiguous().numpy())]
    table = pa.Table.from_arrays(arrays, [*columns, *columns_of(classes)])
    with replacing(path) as temporary:
        write_table(table, temporary, kind)


def write_table(table: Any, path: Path, kind: Kind) -> None:
    """Write a table of pyarrow."""
    from pyarrow import csv, parquet

    if kind == "csv":
        csv.write_csv(table, path)
    else:
        parquet.write_table(table, path)
