"""Checkpoints: the whole state of a run in one file, which is either complete or absent.

    checkpoints/00001234-<sha256>.safetensors   state after step 1234
    checkpoints/best-<sha256>.safetensors       the selected weights, which the state refers to

The name holds the sha256 of the content, so that a single rename commits tensors, numbers and checksum
together, and any damage is detected. Tensors are stored as tensors and everything else as JSON in the
header, without pickle. The newest `KEEP` checkpoints are kept, with the best weights that they refer to.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from zoo.base.files import clear_temporaries, write_bytes
from zoo.errors import RunError
from zoo.models.tensors import to_bytes

KEEP = 2
FORMAT = 1
NAME = re.compile(r"(\d{8,}|best)-([0-9a-f]{64})\.safetensors")
TENSOR, TUPLE, DTYPE = "$tensor", "$tuple", "$dtype"
"""Keys that mark a tensor (by its name), a tuple and a dtype (by its name) in the JSON."""


class Checkpoint(NamedTuple):
    """A checkpoint on disk whose content matches the checksum in its name."""

    path: Path
    state: dict[str, Any]


def save(folder: Path, step: int, state: dict[str, Any], *, keep: int = KEEP) -> Path:
    """Write a checkpoint of nested dicts, lists, tuples, numbers, strings, dtypes and tensors.

    Args:
        folder: `checkpoints/` of the run. step: total steps taken; orders the checkpoints.
    Returns:
        The file.
    Raises:
        WriteError: the disk is full or read-only; earlier checkpoints are unchanged.
    """
    path = _write(folder, f"{step:08d}", state)
    _prune(folder, keep)
    return path


def save_best(folder: Path, weights: dict[str, Tensor]) -> str:
    """Write the selected weights; returns the file name that the state of a checkpoint refers to."""
    return _write(folder, "best", weights).name


def load_best(folder: Path, name: str) -> dict[str, Tensor]:
    """Read what `save_best` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    state: dict[str, Tensor] = _read(folder / name)
    return state


def newest(folder: Path, say: Any = None) -> Checkpoint | None:
    """The newest undamaged checkpoint; each damaged one is reported through `say` and skipped.

    Raises:
        RunError: there are checkpoints, and all are damaged.
    """
    clear_temporaries(folder)
    damaged = []
    for path in reversed(list(_all(folder))):
        try:
            state = _read(path)
            best = state.get("best")
            if best is not None:
                state["best_weights"] = load_best(folder, best)
            return Checkpoint(path, state)
        except RunError as error:
            damaged.append(str(error))
            if say:
                say(f"{error}; the checkpoint before it is used")
    if damaged:
        raise RunError(f"{folder}: all checkpoints are damaged: {damaged[0]}")
    return None


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint, damaged or not."""
    return bool(names(folder))


def names(folder: Path) -> list[str]:
    """The file names of all checkpoints, damaged or not, oldest first."""
    return [path.name for path in _all(folder)]


def _write(folder: Path, stem: str, state: Any) -> Path:
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_flatten(state, tensors, ""))
    data = to_bytes(tensors, {"zoo": plain, "zoo.format": str(FORMAT)})
    path = folder / f"{stem}-{hashlib.sha256(data).hexdigest()}.safetensors"
    write_bytes(path, data)
    return path


def _read(path: Path) -> Any:
    match = NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"checkpoint {path}: cannot be read: {error.strerror}") from None
    if match is None or hashlib.sha256(data).hexdigest() != match[2]:
        raise RunError(f"checkpoint {path}: damaged: its content does not match the sha256 in its name")
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        if int(header["zoo.format"]) > FORMAT:
            raise RunError(f"checkpoint {path}: written by a newer version of hybrid-zoo; upgrade it")
        return _restore(json.loads(header["zoo"]), load_tensors(data))
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"checkpoint {path}: not a checkpoint of hybrid-zoo: {error}") from None


def _all(folder: Path) -> Iterator[Path]:
    """Checkpoints by step, oldest first."""
    if folder.is_dir():
        matches = [m for path in folder.iterdir() if (m := NAME.fullmatch(path.name)) and m[1] != "best"]
        yield from (folder / m[0] for m in sorted(matches, key=lambda m: (int(m[1]), m[0])))


def _prune(folder: Path, keep: int) -> None:
    steps = list(_all(folder))
    for old in steps[:-keep]:
        old.unlink(missing_ok=True)
    wanted = {_best_of(path) for path in steps[-keep:]}
    for path in folder.glob("best-*.safetensors"):
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def _best_of(path: Path) -> str | None:
    """The file name of the best weights that a checkpoint refers to, read from its header only."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        best: str | None = json.loads(header["__metadata__"]["zoo"]).get("best")
    except (OSError, ValueError, KeyError):
        return None
    return best


def _flatten(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """Convert a nested value to JSON; its tensors are moved to `tensors` under their path."""
    if isinstance(value, Tensor):
        name = path or "tensor"
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {TENSOR: name}
    if isinstance(value, dict):
        items = [[k, _flatten(v, tensors, f"{path}/{k}")] for k, v in value.items()]
        return {str(k): v for k, v in items} if all(isinstance(k, str) for k, _ in items) else {"$items": items}
    if isinstance(value, tuple):
        return {TUPLE: _flatten(list(value), tensors, path)}
    if isinstance(value, list):
        return [_flatten(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]
    if isinstance(value, torch.dtype):
        return {DTYPE: str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"checkpoint state {path}: {type(value).__name__} is not plain data")


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restore(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {TENSOR}:
        return tensors[value[TENSOR]]
    if value.keys() == {TUPLE}:
        return tuple(_restore(value[TUPLE], tensors))
    if value.keys() == {DTYPE}:
        return getattr(torch, value[DTYPE])
    if value.keys() == {"$items"}:
        return {k: _restore(v, tensors) for k, v in value["$items"]}
    return {k: _restore(v, tensors) for k, v in value.items()}
