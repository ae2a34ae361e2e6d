"""What run folders say, as plain data: nothing here imports torch, and a stranger's file is only data."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from zoo.base.headline import MAP, TOP1
from zoo.base.paths import SteadyPath, local_path
from zoo.catalogue.recipe import SELECTED_BY
from zoo.errors import InputError, RunError
from zoo.runs.folder import MetricRows, any_result
from zoo.runs.lock import is_held
from zoo.runs.record import RECORD, RESULT, RunRecord, read_record
from zoo.runs.record_tables import RecordTables, keep_tables, kept_tables
from zoo.runs.which import LAST, RUNS, below, last, name_of, unknown, written

State = Literal["finished", "stopped", "training"]


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes:
        name: what it is called here: its path below the folder it was found in, no two the same.
        rows: of `metrics.jsonl`. result: of `result.json`; None where the run was not finished.
        state: "training" while a living process holds its lock.
        modified: when it was last written to, in seconds since 1970.
    """

    name: str
    folder: Path
    record: RunRecord
    rows: Sequence[dict[str, Any]]
    result: dict[str, Any] | None
    state: State
    modified: float

    def __hash__(self) -> int:
        """By its name: what it read are tables, and the path of its folder may become a whole one."""
        return hash(self.name)


Run.folder = SteadyPath("folder")  # type: ignore[assignment]  # a program may change its own folder


# ---- finding and reading ---------------------------------------------------------------------


def find(words: Sequence[str], root: Path = RUNS) -> tuple[list[Run], list[str]]:
    """The runs that words stand for, each once, by name.

    Args:
        words: run folders, folders that hold runs, names below `root`, globs of those names, or "last" (see
            `zoo.runs.which`); none: all below `root`.
    Returns:
        The runs, and one line for each folder that looks like a run and cannot be read.
    Raises:
        InputError: a word stands for nothing. RunError: a run that was named is damaged.
    """
    places = [pair for word in words for pair in _places(word, root)] if words else list(below(root, root))
    named = {path.resolve() for word in words for path in (local_path(word), root / word)}
    runs, problems = [], []
    tables = kept_tables(root)
    for folder, name in _distinct(places):
        try:
            runs.append(read(folder, name, tables))
        except RunError as error:
            if folder.resolve() in named:
                raise
            problems.append(str(error))
    keep_tables(tables, root, everything=not words)
    return sorted(runs, key=lambda run: run.name), problems


def read(folder: Path, name: str = "", tables: RecordTables | None = None) -> Run:
    """Read one run folder.

    Args:
        tables: what has read other runs' records, where many are read.
    Raises:
        RunError: no run folder, or a damaged one.
    """
    try:
        try:
            record = read_record(folder, tables)
        except RunError:
            os.scandir(folder).close()  # fails if the folder cannot be listed
            raise
        rows = MetricRows(folder)
        result = any_result(folder)
        modified = written(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{folder}: cannot be read: {error}") from None
    if result is not None and not isinstance(result, dict):
        raise RunError(f"{folder / RESULT}: damaged: not a JSON object")
    state: State = "training" if is_held(folder) else "finished" if result else "stopped"
    return Run(name or folder.resolve().name, folder, record, rows, result, state, modified)


def folders_of(word: str, root: Path = RUNS) -> set[Path]:
    """The run folders, resolved, that one word stands for; the word itself where they are gone."""
    try:
        return {folder.resolve() for folder, _ in _places(word, root)}
    except InputError:
        return {local_path(word).resolve()}


def _places(word: str, root: Path) -> list[tuple[Path, str]]:
    """The run folders that one word stands for, with their names."""
    path = local_path(word)
    for candidate in (path, root / word):
        if os.path.isfile(candidate / RECORD):
            return [(candidate, name_of(candidate, root))]
        if found := list(below(candidate, root)):
            return found
    found = [(folder, name) for folder, name in below(root, root) if fnmatchcase(name, word)]
    if not found and word == LAST and (folder := last(root)) is not None:
        return [(folder, name_of(folder, root))]
    if not found:
        raise unknown(word, root)
    return found


def _distinct(places: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Each folder once; those of one name are told apart by their whole path."""
    once = {_identity(folder): (folder, name) for folder, name in reversed(list(places))}
    names = Counter(name for _, name in once.values())
    return [(f, name if names[name] == 1 else f.as_posix()) for f, name in once.values()]


def _identity(folder: Path) -> Any:
    """What two paths to one folder share."""
    try:
        status = os.stat(folder)
    except OSError:
        return folder
    return status.st_dev, status.st_ino


# ---- one row for each run --------------------------------------------------------------------


def number(value: Any, path: str = "") -> float | int | None:
    """The finite number at "a.b" in nested tables; None where there is none."""
    if path:
        for key in path.split("."):
            if not isinstance(value, dict):
                return None
            value = value.get(key)
    kind = type(value)  # True is no number
    return value if kind is int or (kind is float and math.isfinite(value)) else None


def row_of(run: Run) -> dict[str, Any]:
    """One object of `zoo runs --json`: fractions, seconds and counts; None for what is not known.

    Until a run is finished, `val_top1` and `val_loss` are those of the epoch that it would select so far.
    """
    record, result = run.record, run.result or {}
    best = {} if number(result, "selection.epoch") else _selected_epoch(run)
    seconds = number(result, "train.seconds") or max((number(r, "seconds") or 0 for r in run.rows), default=0)
    return {
        "name": run.name,
        "folder": str(run.folder),
        "state": run.state,
        "model": record.model,
        "dataset": record.data.spec,
        "protocol": record.protocol,
        "recipe": record.recipe,
        "seed": record.seed,
        "top1": number(result, "test.top1"),
        "map": number(result, "test.map"),
        # Of five classes the right one is always among the first five.
        "top5": number(result, "test.top5") if record.sizes.num_classes > 5 else None,
        "loss": number(result, "test.loss"),
        "val_top1": number(result, "validation.top1") if result else number(best, "val_top1"),
        "val_map": number(result, "validation.map") if result else number(best, "val_map"),
        "val_loss": number(result, "validation.loss") if result else number(best, "val_loss"),
        "parameters": number(result, "parameters"),
        "epochs": number(result, "train.epochs") or len(run.rows),
        "epochs_planned": None if record.soup else record.settings.epochs,  # a soup has those of all its runs
        "selected_epoch": number(result, "selection.epoch") or number(best, "epoch"),
        "seconds": seconds or None,
        "images_per_second": number(result, "train.images_per_second"),
        "device": record.device,
        "precision": record.precision,
        "modified": round(run.modified),
    }


def shown_columns(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The columns of the table in which notebooks show rows of runs; mAP where a run has it."""
    several = ("map",) if any(row["map"] is not None for row in rows) else ()
    test = ("top1", *several, "val_top1")
    return ("name", "model", "dataset", *test, "parameters", "epochs", "seconds", "protocol", "seed", "state")


def _selected_epoch(run: Run) -> dict[str, Any]:
    """The row of the epoch whose weights an unfinished run would keep, by its recipe's rule."""
    split, rule = "val" if run.record.protocol == "clean" else "test", run.record.settings.select
    if rule == "last":
        return run.rows[-1] if run.rows else {}
    key, sign = f"{split}_{SELECTED_BY[rule]}", -1 if rule == "loss" else 1
    rows = [row for row in run.rows if number(row, key) is not None]
    return max(rows, key=lambda row: sign * row[key], default={})


def best_of_each(runs: Iterable[Run]) -> list[Run]:
    """For each model, dataset and protocol the finished run with the best test top-1 (or mAP) on the most images."""
    best: dict[tuple[str, str, str], tuple[float, float, Run]] = {}
    for run in runs:
        score = number(run.result, f"test.{MAP.key if run.record.data.is_multi_label else TOP1.key}")
        key = (run.record.model, run.record.data.spec, run.record.protocol)
        images = number(run.result, "test.count") or 0
        if score is not None and (images, score) > best.get(key, (-1.0, -1.0, run))[:2]:
            best[key] = (images, score, run)
    return [run for _, _, run in best.values()]


# ---- curves ----------------------------------------------------------------------------------

CURVES = (*(f"{split}_{figure}" for split in ("train", "val", "test") for figure in ("loss", TOP1.key, MAP.key)), "lr")
MAX_POINTS = 400


def curves(run: Run, most: int = MAX_POINTS) -> dict[str, list[float | None]]:
    """Columns over epochs: epoch, minutes, and of `CURVES` those that the run has; six digits.

    Args:
        most: longer runs keep every n-th epoch and the last.
    """
    rows = [row for row in run.rows if number(row, "epoch") is not None]
    every = math.ceil(len(rows) / most) if rows else 1
    kept = [row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1]
    columns: dict[str, list[float | None]] = {"epoch": [number(row, "epoch") for row in kept]}
    columns["minutes"] = [_digits((number(row, "seconds") or 0) / 60) for row in kept]
    for key in CURVES:
        values = [_digits(number(row, key)) for row in kept]
        if any(value is not None for value in values):
            columns[key] = values
    return columns


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


# ---- comparing -------------------------------------------------------------------------------


def said(value: Any) -> str:
    """A value as people read it in a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(said(v) for v in value) or "-"
    return str(value)


def short(count: int) -> str:
    """A count with two decimals and k, M, G or T."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return str(count)
