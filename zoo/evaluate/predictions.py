"""The predictions of an evaluation as a file: one row for each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from zoo.base.files import replacing
from zoo.evaluate.one_pass import Predictions

Kind = Literal["csv", "parquet"]


def write_predictions(path: Path, predictions: Predictions, classes: Sequence[str], kind: Kind) -> None:
    """Write a row for each image.

    The columns: `row` (of the split, from 0), `label` and `prediction` (class names), `label_index` and
    `prediction_index`, `correct`, `confidence` (of the prediction), then each class's probability
    (float32), named "p_" and the class.

    Raises:
        WriteError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    names = pa.array(list(classes), pa.string())
    label, prediction = (pa.array(t.numpy()) for t in (predictions.labels, predictions.predicted))
    columns = {
        "row": pa.array(range(len(predictions)), pa.int64()),
        "label": names.take(label),
        "prediction": names.take(prediction),
        "label_index": label,
        "prediction_index": prediction,
        "correct": pa.array(predictions.hits.numpy()),
        "confidence": pa.array(predictions.confidence.numpy()),
    }
    arrays = [*columns.values(), *(pa.array(p) for p in predictions.probabilities.T.contiguous().numpy())]
    table = pa.Table.from_arrays(arrays, [*columns, *(f"p_{name}" for name in classes)])
    with replacing(path) as temporary:
        if kind == "csv":
            csv.write_csv(table, temporary)
        else:
            parquet.write_table(table, temporary)
