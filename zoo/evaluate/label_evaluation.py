"""One evaluation of a run whose images have several labels: a document, and files in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.base.files import replacing
from zoo.errors import InputError
from zoo.evaluate.asked import Asked, PredictionsKind
from zoo.evaluate.document import write_document
from zoo.evaluate.multi_label import LabelPredictions, label_table
from zoo.evaluate.opened import OpenedSplit
from zoo.evaluate.predictions import columns_of, text_of, write_table

BETWEEN = "|"
"""Between the labels of an image in a file of predictions."""

MEASURED = ("classes", "latency")
"""Parts of an evaluation that images with several labels have."""


def refuse_parts(asked: Asked, *, compares: bool) -> None:
    """Refuse what needs one class an image.

    Raises:
        InputError: names it.
    """
    wrong = sorted(asked.named - set(MEASURED))
    if wrong:
        raise InputError(
            f"--what {','.join(wrong)}: images with several labels have no {wrong[0]} of one class an image; allowed: "
            f"{', '.join(MEASURED)}, all"
        )
    if compares:
        raise InputError(
            "two runs on images with several labels cannot be compared here: the tests count images with one right "
            "class; evaluate each, and compare their predictions"
        )


def of_labels(opened: OpenedSplit, predictions: LabelPredictions, parts: frozenset[str]) -> dict[str, Any]:
    """The parts of a document that are measured on the predictions: the table of the classes."""
    return {"classes": label_table(predictions, opened.classifier.class_names)} if "classes" in parts else {}


def write_labels(
    folder: Path, opened: OpenedSplit, predictions: LabelPredictions, out: dict[str, Any], kind: PredictionsKind
) -> list[str]:
    """Write the document and the predictions.

    Raises:
        WriteError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if kind != "none":
        paths.append(folder / f"predictions.{kind}")
        with replacing(paths[-1]) as temporary:
            write_table(_table(opened, predictions), temporary, kind)
    return write_document(folder, paths, out)


def _table(opened: OpenedSplit, predictions: LabelPredictions) -> Any:
    """A row for each image, as a table of pyarrow.

    The columns: `row`, `source`, `labels` and `predictions` (names with | between), `correct` (exactly the labels),
    then each class's probability, as `zoo.evaluate.predictions.write_predictions` names them.
    """
    import pyarrow as pa

    names = opened.classifier.class_names
    columns = {
        "row": pa.array(range(len(predictions)), pa.int64()),
        "source": pa.array(map(text_of, opened.images.origins()), pa.string()),
        "labels": pa.array(_joined(predictions.labels.bool().tolist(), names), pa.string()),
        "predictions": pa.array(_joined(predictions.predicted.tolist(), names), pa.string()),
        "correct": pa.array(predictions.hits.numpy()),
    }
    arrays = [*columns.values(), *(pa.array(p) for p in predictions.probabilities.T.contiguous().numpy())]
    return pa.Table.from_arrays(arrays, [*columns, *columns_of(names)])


def _joined(rows: list[list[bool]], names: tuple[str, ...]) -> list[str]:
    return [BETWEEN.join(name for name, has in zip(names, row, strict=True) if has) for row in rows]
