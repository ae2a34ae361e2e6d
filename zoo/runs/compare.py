"""The facts of runs, and in what two runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from zoo.base.text import duration
from zoo.runs.find import Run, number, row_of, said
from zoo.runs.folder import CALIBRATION, extensions_of
from zoo.runs.record import Soup, TeacherRecord

GROUPS = ("result", "model", "recipe", "data", "run", "environment")

DIGITS = 12
"""Of a hash, as many as are shown."""

_RUN_FIELDS = ("protocol", "seed", "device", "precision", "channels_last", "compile", "max_steps", "base_model")


def facts(run: Run) -> dict[tuple[str, str], Any]:
    """Everything that a run is and came to, flat: (group of `GROUPS`, key) to a plain value."""
    record: dict[str, Any] = msgspec.to_builtins(run.record)
    found: dict[tuple[str, str], Any] = {("result", "state"): run.state}
    row = row_of(run)
    for key in ("top1", "top5", "map", "loss", "val_top1", "val_map", "val_loss", "parameters", "epochs", "seconds"):
        found["result", key] = row[key]
    found["model", "model"] = record["model"]
    for key, value in _flat(record["build"]):
        found["model", key] = value
    for key, value in record["sizes"].items():
        found["model", key] = value
    found["recipe", "recipe"] = record["recipe"]
    for key, value in record["settings"].items():
        if key not in ("summary", "source"):
            found["recipe", key] = _steps(value) if key == "augment" else value
    for key, value in record["data"].items():
        found["data", key] = value
    for key in _RUN_FIELDS:
        found["run", key] = record.get(key)
    for key, value in _made_of(run).items():
        found["run", key] = value
    for key, value in {**record["environment"], **record["plugins"]}.items():
        found["environment", str(key)] = value
    return found


def _made_of(run: Run) -> dict[str, Any]:
    """What a run was made of besides its recipe, by hashes where it has no other name; and its calibration."""
    made: dict[str, Any] = {}
    record = run.record
    if isinstance(record.teacher, TeacherRecord):
        made["teacher"] = f"{record.teacher.model} {record.teacher.sha256[:DIGITS]}"
    if isinstance(record.soup, Soup):
        made["made of"] = [f"{one.name} {one.sha256[:DIGITS]} ({one.weight:.3g})" for one in record.soup.of]
        made["made by"] = record.soup.method
    for part in record.own if isinstance(record.own, tuple) else ():
        made[part.use] = [hash[:DIGITS] for hash in (part.sha256, *part.beside.values())]
    made["schedule"] = "; ".join(extensions_of(run.result)) or None
    made["temperature"] = number(run.result, f"{CALIBRATION}.temperature")
    return made


def told(group: str, key: str, value: Any) -> str:
    """A fact as people read it: measured values with as many digits as mean something, settings with all of theirs."""
    if group == "result" and isinstance(value, int | float):
        if key.endswith(("top1", "top5", "map")):
            return f"{value:.2%}"
        if key.endswith("loss"):
            return f"{value:.4f}"
        if key == "seconds":
            return duration(value)
    if group == "data" and isinstance(value, list | tuple) and all(isinstance(v, float) for v in value):
        return ", ".join(f"{v:.4g}" for v in value) or "-"
    return said(value)


def differences(runs: Sequence[Run], *, everything: bool = False) -> list[tuple[str, str, list[Any]]]:
    """Rows (group, key, the value of each run); without `everything` only where runs differ."""
    tables = [facts(run) for run in runs]
    keys = sorted(
        {key: None for table in tables for key in table}, key=lambda k: GROUPS.index(k[0])
    )  # stable: inside a group as a run lists them
    rows = [(group, key, [table.get((group, key)) for table in tables]) for group, key in keys]
    return [row for row in rows if everything or any(value != row[2][0] for value in row[2])]


def _flat(value: Any, path: str = "build") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{i}]")
    else:
        yield path, value


def _steps(augment: list[dict[str, Any]]) -> str:
    """Augmentation in one line: "flip(p=0.5), crop(padding=4, mode=zero)"."""
    told = []
    for step in augment:
        options = ", ".join(f"{k}={said(v)}" for k, v in step.items() if k != "op")
        told.append(f"{step['op']}({options})")
    return ", ".join(told)
