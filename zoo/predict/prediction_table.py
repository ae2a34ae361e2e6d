"""Predictions as a file: a row for each image, written as they come."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.files import replacing
from zoo.base.paths import local_path
from zoo.errors import DataError, InputError
from zoo.predict.prediction import Prediction

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".parquet")
FIRST = ("image", "prediction", "confidence")
"""The columns before those of the classes."""

SIGNS = ";|/\t"
"""What may stand between the labels of an image in a CSV file: the first one that no class has."""

ROWS = 1024
"""How many rows are held before they are written."""


def checked_table(path: str | Path) -> Path:
    """The path of a file of predictions.

    Raises:
        InputError: its name does not say the format, or there is another file, which would be lost.
    """
    output = local_path(path)
    if output.suffix not in SUFFIXES:
        raise InputError(f"--output {path}: the name must end with {' or '.join(SUFFIXES)}")
    if output.exists() and not _is_table(output):
        raise InputError(f"--output {path}: already exists and is no table of predictions; choose another name")
    return output


def written(
    found: Generator[Prediction | DataError], path: Path, classes: Sequence[str], *, several: bool
) -> Generator[Prediction | DataError]:
    """Pass predictions on, and write each of them; the file is there when all have been taken.

    Where no image can be read, a wrong name of a folder for example, none is written, and an earlier one stays.

    The columns: `image`, `prediction` (the most probable class; of several labels an image, the labels that reach their
    thresholds: a list in Parquet, joined in CSV by a semicolon, or by the next of `|`, `/` and a tab that no class
    has), `confidence` (0..1, of the most probable class), and each class's probability, float32, named as in the files
    of `zoo eval`.

    Args:
        path: of `checked_table`. classes: in the order of the logits; empty where they have numbers in place of names.
        several: an image may have several labels.
    Raises:
        WriteError: it cannot be written.
    """
    with closing(found), ExitStack() as opened:

        def start(names: Sequence[str]) -> _Table:
            temporary = opened.enter_context(replacing(path))
            return opened.enter_context(closing(_Table(temporary, path.suffix, names, several)))

        table, bad = None, False
        for one in found:
            if isinstance(one, Prediction):
                table = table or start(classes or [str(number) for number in range(len(one.probabilities))])
                table.add(one)
            else:
                bad = True
            yield one
        if not (table or bad):  # an empty list
            start(classes)


class _Table:
    def __init__(self, path: Path, suffix: str, classes: Sequence[str], several: bool) -> None:
        import pyarrow as pa
        from pyarrow import csv, parquet

        from zoo.evaluate.predictions import columns_of

        lists = several and suffix == ".parquet"
        self.sign = next((sign for sign in SIGNS if not any(sign in name for name in classes)), SIGNS[0])
        self.several, self.lists = several, lists
        self.schema = pa.schema(
            [
                ("image", pa.string()),
                ("prediction", pa.list_(pa.string()) if lists else pa.string()),
                ("confidence", pa.float32()),
                *((name, pa.float32()) for name in columns_of(classes)),
            ]
        )
        self.file: Any = (csv.CSVWriter if suffix == ".csv" else parquet.ParquetWriter)(str(path), self.schema)
        self.rows: list[Prediction] = []

    def add(self, one: Prediction) -> None:
        """Add a row."""
        self.rows.append(one)
        if len(self.rows) >= ROWS:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        self._write()
        self.file.close()

    def _write(self) -> None:
        import numpy as np
        import pyarrow as pa

        from zoo.evaluate.predictions import text_of

        if not self.rows:
            return
        probabilities = np.stack([one.probabilities for one in self.rows]).astype(np.float32)
        columns: list[pa.Array] = [
            pa.array([text_of(one.image) for one in self.rows], pa.string()),
            pa.array([self._said(one) for one in self.rows], self.schema.field("prediction").type),
            pa.array(probabilities.max(axis=1)),
            *(pa.array(column) for column in np.ascontiguousarray(probabilities.T)),
        ]
        self.file.write_table(pa.Table.from_arrays(columns, schema=self.schema))
        self.rows.clear()

    def _said(self, one: Prediction) -> str | list[str]:
        if not self.several:
            return one.top1
        labels = [name for name, _ in one.labels or ()]
        return labels if self.lists else self.sign.join(labels)


def _is_table(path: Path) -> bool:
    """Whether a file is an earlier table of predictions."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        if path.suffix == ".parquet":
            names = parquet.read_schema(path).names
        else:
            with path.open(encoding="utf-8") as file:
                names = file.readline(200).replace('"', "").split(",")
    except (OSError, ValueError, pa.ArrowException):
        return False
    return tuple(names[: len(FIRST)]) == FIRST
