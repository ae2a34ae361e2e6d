"""The run folder: what is in it, reading it and writing it.

run.toml           everything resolved: model tree, recipe, dataset, seed, versions, commit
metrics.jsonl      one line for each epoch
checkpoints/       to go on after an interruption
model.safetensors  the selected weights
result.json        what came out, and how it was measured
curves.png         loss and top-1 over epochs
source/            code of the user's own, if the run is made of any, see `zoo.runs.own_source`
before/            while a finished run is extended: what it was, see `zoo.runs.before`
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import msgspec

from zoo.base.files import WriteError, bytes_of_file, write_bytes, write_text
from zoo.base.plain_json import json_text
from zoo.base.text import plural
from zoo.errors import PackageError, RunError
from zoo.runs.before import BEFORE, is_kept
from zoo.runs.lock import is_held
from zoo.runs.record import METRICS, RESULT, WEIGHTS, RunRecord

if TYPE_CHECKING:
    from torch import Tensor

CALIBRATION = "calibration"
"""Where a result keeps the temperature that `zoo calibrate` fitted."""


def append_metrics(folder: Path, row: dict[str, Any]) -> None:
    """Add one line to `metrics.jsonl`."""
    path = folder / METRICS
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json_text(row) + "\n")
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror}") from error


def rewrite_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write `metrics.jsonl` whole: what a resumed run knows to be true."""
    write_text(folder / METRICS, "".join(json_text(row) + "\n" for row in rows))


def _with_losses(table: dict[str, Any]) -> dict[str, Any]:
    """A loss that was not finite stands as null in the file."""
    return {
        key: math.nan if value is None and (key == "loss" or key.endswith("_loss")) else value
        for key, value in table.items()
    }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`; a half-written last line (a crash) is left out."""
    return _rows_of(_lines(folder))


class MetricRows(Sequence[dict[str, Any]]):
    """The rows of `metrics.jsonl` as its bytes were when they were read; lists of runs never look into most of them."""

    __slots__ = ("_data", "_rows")

    def __init__(self, folder: Path) -> None:
        """Read the file, which need not be there.

        Raises:
            OSError: it cannot be read. ValueError: it is not UTF-8.
        """
        self._data = _lines(folder)
        self._rows: tuple[dict[str, Any], ...] | None = None

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Sequence[dict[str, Any]]:
        """One row, or some."""
        return self._read()[index]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._read())

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same rows."""
        return isinstance(other, Sequence) and self._read() == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # rows are tables

    def __repr__(self) -> str:
        """The rows."""
        return repr(self._read())

    def _read(self) -> tuple[dict[str, Any], ...]:
        if self._rows is None:
            self._rows = tuple(row for row in _rows_of(self._data) if isinstance(row, dict))
            self._data = b""
        return self._rows


def _lines(folder: Path) -> bytes:
    """The bytes of `metrics.jsonl`, none where it is not there."""
    data = bytes_of_file(f"{folder}/{METRICS}") or b""
    if not data.isascii():
        data.decode("utf-8")
    return data


def _rows_of(data: bytes) -> list[Any]:
    rows = []
    for line in data.splitlines():
        try:
            rows.append(_from_json(line))
        except (ValueError, RecursionError):
            break
    return rows


def _from_json(data: bytes) -> Any:
    """What `json.loads` gives, faster where there is nothing that only it takes; losses of null are NaN."""
    if b"null" not in data:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(data)
    return json.loads(data, object_hook=_with_losses)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write `result.json`."""
    write_text(folder / RESULT, json_text(result, indent=2) + "\n")


def read_result(folder: Path, *, checked: bool = True) -> dict[str, Any]:
    """Read `result.json`.

    Args:
        checked: counts and parameters must be there and possible; without it, whatever is there is shown.
    Raises:
        RunError: absent (the run was not finished) or damaged.
    """
    result = any_result(folder, checked=checked)
    if result is None:
        hint = f"; {folder / BEFORE} keeps what it was before it was extended" if is_kept(folder) else ""
        raise RunError(f"{folder}: has no {RESULT}: this run was not finished{hint}")
    return result


def any_result(folder: Path, *, checked: bool = False) -> dict[str, Any] | None:
    """As `read_result`, but None where the run was not finished."""
    path = f"{folder}/{RESULT}"
    if (data := bytes_of_file(path)) is None:
        return None
    try:
        result: dict[str, Any] = _from_json(data)
        if checked:
            _check_result(result)
    except (ValueError, KeyError, TypeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path}: damaged: {what}") from None
    return result


def known_test_images(folder: Path) -> str:
    """What a package says its test images are (`zoo.data.content`): a copy of them from elsewhere is known by it.

    Returns:
        A hash; "" where nothing is said, as in a run folder, or there is no result.
    """
    return str(read_result(folder).get("test_images_sha256", "")) if (folder / RESULT).is_file() else ""


def _check_result(result: dict[str, Any]) -> None:
    for part in (result["test"], result.get("validation")):
        if part is not None and "correct" in part and not 0 <= part["correct"] <= part["count"]:
            raise ValueError(f"{part['correct']} of {part['count']} correct")
    if not isinstance(result["parameters"], int):
        raise ValueError("parameters is no number")


def extensions_of(result: Mapping[str, Any] | None) -> list[str]:
    """How a run's schedule was changed while it was trained, in words; its record has the last number of epochs."""
    rows = result.get("extended") if isinstance(result, dict) else None
    told = []
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and all(isinstance(row.get(key), int) for key in ("epoch", "epochs")):
            before = f", before for {plural(row['before'], 'epoch')}" if isinstance(row.get("before"), int) else ""
            told.append(f"from epoch {row['epoch']} on planned for {plural(row['epochs'], 'epoch')}{before}")
    return told


def thresholds_of(folder: Path, record: RunRecord) -> tuple[float, ...]:
    """From which probability on each class is predicted, where images have several labels; else nothing.

    Returns:
        Those that the result records; 0.5 for each class of a run that has none: it is not finished, or had no
        validation images to choose them by.
    Raises:
        RunError: the result is damaged.
    """
    if not record.data.is_multi_label:
        return ()
    count = len(record.data.classes)
    chosen = read_result(folder).get("thresholds") if (folder / RESULT).is_file() else None
    if chosen is None:
        return (0.5,) * count
    values = chosen.get("values") if isinstance(chosen, dict) else None
    known = isinstance(values, list) and len(values) == count
    if not (known and all(isinstance(value, int | float) and 0 <= value <= 1 for value in values or ())):
        raise RunError(f"{folder / RESULT}: is damaged: `thresholds` needs {count} numbers from 0 to 1")
    return tuple(float(value) for value in values or ())


def temperature_of(folder: Path) -> float:
    """What a run's logits are divided by before the softmax; 1 where `zoo calibrate` fitted nothing.

    Raises:
        RunError: the result is damaged.
    """
    if not (folder / RESULT).is_file():
        return 1.0
    found = read_result(folder, checked=False)
    kept = found.get(CALIBRATION) if isinstance(found, dict) else None
    if kept is None:
        return 1.0
    value = kept.get("temperature") if isinstance(kept, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not (0 < value < math.inf):
        raise RunError(f"{folder / RESULT}: is damaged: `{CALIBRATION}.temperature` needs a number above 0")
    return float(value)


def why_no_result(folder: Path, record: RunRecord) -> str:
    """Which weights a run without a result has, for a message: what it would select so far, as of its checkpoint."""
    which = "of the last epoch" if record.settings.select == "last" else "the best so far"
    trained = plural(len(read_metrics(folder)), "epoch")
    state = "is being trained" if is_held(folder) else "was not finished"
    return f"the run {state}: its weights are {which} at its last checkpoint ({trained} of {record.settings.epochs})"


def why_no_weights(folder: Path) -> str:
    """Why a run has no weights yet."""
    if is_held(folder):
        return f"{folder}: is being trained, and has no {WEIGHTS} yet: it is written with the next checkpoint"
    return f"{folder}: has no {WEIGHTS}: no epoch of this run was finished"


def has_weights(folder: Path) -> bool:
    """Whether a run's weights are there and whole, by their header and their length."""
    return (folder / WEIGHTS).is_file() and not damage_of_weights(folder)


def damage_of_weights(folder: Path) -> str:
    """What is wrong with a run's weights, by their header and their length; "" where nothing is."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    if not path.is_file():
        return f"{folder}: finished, and has no {WEIGHTS}" if (folder / RESULT).is_file() else ""
    try:
        with safe_open(path, "np") as file:
            return "" if file.keys() else f"{path}: damaged: it holds no weights"
    except (SafetensorError, OSError) as error:
        return f"{path}: damaged: {error}"


def write_weights(folder: Path, state: dict[str, Tensor], record: RunRecord) -> None:
    """Write `model.safetensors`, with the model's name and tree in its metadata."""
    from zoo.models.tensors import to_bytes

    metadata = {"format": "pt", "zoo.model": record.model, "zoo.build": json.dumps(record.build)}
    write_bytes(folder / WEIGHTS, to_bytes(state, metadata))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read `model.safetensors`; what a package stores in 16 bits comes as float32.

    Raises:
        RunError: absent or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from zoo.models.header import read_header, stored_type
    from zoo.models.tensors import widened

    path = folder / WEIGHTS
    if not path.is_file():
        raise RunError(why_no_weights(folder))
    try:
        weights: dict[str, Tensor] = load_file(path)
        if not any(tensor.dtype.itemsize == 2 for tensor in weights.values()):
            return weights
        return widened(weights, stored_type(path, read_header(path)))
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged: {error}") from None
    except PackageError as error:
        raise RunError(str(error)) from None


def is_finished(folder: Path) -> bool:
    """Whether a run has its result and its weights: there is nothing left to train."""
    return (folder / RESULT).is_file() and not damage_of_weights(folder)
