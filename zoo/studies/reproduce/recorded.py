"""The recorded results of a table beside the published ones: rows of plain data, merged into a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from zoo.base.files import WriteError, bytes_of_file, write_text
from zoo.base.plain_json import json_text
from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Published
from zoo.catalogue.vary import label
from zoo.errors import RunError
from zoo.runs.folder import read_metrics, read_result
from zoo.runs.record import DIRTY, read_record
from zoo.studies.reproduce import energy
from zoo.studies.reproduce.rows import Ask, Job, Row

FORMAT = 1
IDENTITY = ("table", "variant", "model", "dataset", "protocol", "budget", "recipe", "images")
"""Two rows with equal values of these keys are the same row; the later measurement replaces the earlier."""

OF_ALL_SEEDS = ("train_images", "validation_images", "test_images", "epochs")
"""What is equal in the runs of a row, whatever their seed."""

TRAINED_IN = "trained_in.json"
"""In a run's folder: the folder of the run whose training it has, as a text of JSON."""


def measured(rows: Sequence[Row], jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Each row with the results of its recorded runs.

    Returns:
        Tables of plain data; `top1` (the mean over seeds) is None if no run is recorded.
    Raises:
        RunError: the result of a run has no top-1.
    """
    return [_row(row, [job for job in jobs if job.row == row]) for row in rows]


def _row(row: Row, jobs: Sequence[Job]) -> dict[str, Any]:
    runs = [_run(job) for job in jobs if job.recorded]
    published = row.published
    means = _over(runs, published.top1 if published else None)
    table: dict[str, Any] = {
        "model": row.model,
        "dataset": row.dataset,
        **{key: means[key] for key in ("top1", "spread", "published_top1", "difference")},
        "protocol": row.protocol,
        "budget": row.budget,
        "recipe": row.recipe,
        "seeds": means["seeds"],
        "parameters": runs[0]["result"]["parameters"] if runs else None,
        "published_parameters": published.params if published else None,
        "minutes": means["minutes"],
        "published_minutes": _minutes(published),
        "energy_wh": means["energy_wh"],
        "table": row.table,
        "source": row.source,
        "published_as": published.published_as if published else "",
        "variant": label(row.changes),
        "changes": row.changes,
        "images": row.images.spec,
        "stand_in": row.images.stand_in,
        "why_not": row.why_not,
        "decides": jobs[0].decides if jobs else "",
        "runs": runs,
    }
    return table


def _over(runs: Sequence[Mapping[str, Any]], published: float | None) -> dict[str, Any]:
    """What the runs of a row give together."""
    scores = [run["result"]["test"]["top1"] for run in runs]
    return {
        "top1": mean(scores) if scores else None,
        "spread": stdev(scores) if len(scores) > 1 else None,
        "published_top1": published,
        "difference": mean(scores) - published if scores and published is not None else None,
        "seeds": [run["seed"] for run in runs],
        "minutes": mean(run["result"]["train"]["seconds"] for run in runs) / 60 if runs else None,
        "energy_wh": _energy(runs),
    }


def _run(job: Job) -> dict[str, Any]:
    record, result = read_record(job.folder), read_result(job.folder)
    if "top1" not in (result.get("test") or {}):
        raise RunError(
            f"{job.folder}: has no top-1 of test images, which a table compares; remove it, or give another --runs"
        )
    return {
        "seed": job.seed,
        "folder": job.folder.as_posix(),
        "train_images": record.data.train,
        "validation_images": record.data.validation,
        "test_images": record.data.test,
        "epochs": record.settings.epochs,
        "energy": energy.recorded(job.folder),
        **({} if (other := trained_in(job.folder)) is None else {"trained_in": other}),
        "result": result,
    }


def trained_in(folder: Path) -> str | None:
    """The folder of the run whose training a run has; None: it was trained itself."""
    data = bytes_of_file(f"{folder}/{TRAINED_IN}")
    return None if data is None else str(json.loads(data))


def _minutes(published: Published | None) -> float | None:
    if published is None:
        return None
    if published.minutes is None and published.minutes_per_epoch and published.epochs:
        return round(published.minutes_per_epoch * published.epochs, 2)
    return published.minutes


def _energy(runs: Sequence[Mapping[str, Any]]) -> float | None:
    joules = [run["energy"]["joules"] for run in runs if run["energy"]]
    return mean(joules) / energy.JOULES_PER_WH if joules else None


# ---- the file -------------------------------------------------------------------------------------


def file_of(ask: Ask, results: Path) -> Path:
    """`results/<table>.json`, with "-" for the "/" of a table's name."""
    return results / f"{ask.target.replace('/', '-')}.json"


def store(path: Path, ask: Ask, registry: Registry, rows: Sequence[Mapping[str, Any]]) -> None:
    """Merge measured rows into the file; other rows are kept, a row with more seeds of the same runs, and notes.

    Raises:
        RunError: the file exists and is not such a table. WriteError: it cannot be written.
    """
    from zoo.runs.lock import WaitingLock

    guard = Path(ask.runs)
    try:
        guard.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"--runs {guard}: cannot be created: {error.strerror}") from None
    with WaitingLock(guard):
        stored = read(path)
        if ask.first_seed:
            for row in rows:
                if (old := _of_the_same(row, stored)) is not None:
                    _refuse_other_training(row, old)
        rows = [with_other_seeds(row, stored) if ask.first_seed else row for row in rows]
        fuller = {_identity(old) for old in stored for new in rows if _has_more(old, new)}
        notes = {_identity(old): old for old in stored if old.get("note")}
        fresh = [
            _with_note(row, notes.get(_identity(row)))
            for row in rows
            if row["top1"] is not None and _identity(row) not in fuller
        ]
        replaced = {_identity(row) for row in fresh}
        merged = [*fresh, *(row for row in stored if _identity(row) not in replaced)]
        merged.sort(key=lambda row: (row["budget"] != "full", row["protocol"] != "paper"))
        source = registry.sources.get(merged[0]["source"]) if merged else None
        title = source.title if source else ask.target
        document = {"format": FORMAT, "table": ask.target, "title": title, "rows": merged}
        write_text(path, json_text(document, indent=2) + "\n")


def commits(row: Mapping[str, Any]) -> list[str]:
    """The commits by which the runs of a row were trained, in their order: where they began, and where they went on."""
    results = [run["result"] for run in row["runs"]]
    parts = [part for result in results for part in (result["environment"], *result.get("resumed", ()))]
    return list(dict.fromkeys(part["commit"] for part in parts if part.get("commit")))


def unclean(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each row that a commit with changes measured and whose `note` does not say what they were."""
    lines = []
    for row in rows:
        dirty = [commit for commit in commits(row) if commit.endswith(DIRTY)]
        if dirty and not row.get("note"):
            lines.append(
                f"{row['model']} on {row['dataset']} was measured at {dirty[0]}, a commit with changes: commit them "
                "and measure again, or say in the row's `note` what they were"
            )
    return lines


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a table's file; empty if it does not exist.

    Raises:
        RunError: the file is damaged, or from a newer version.
    """
    if not path.is_file():
        return []
    try:
        return _rows_in(json.loads(path.read_bytes()), path)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a table of `zoo reproduce` ({error}); move it away, or use --results") from None


def read_tables(folder: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """The files of tables in a folder, each with its rows; files of other commands are left out.

    Raises:
        RunError: as `read`.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_bytes())
            if isinstance(document, dict) and "table" in document:
                yield path, _rows_in(document, path)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: not a table of `zoo reproduce` ({error}); move it away") from None


def _rows_in(document: Any, path: Path) -> list[dict[str, Any]]:
    if document["format"] > FORMAT:
        raise RunError(f"{path}: written by a newer version of hybrid-zoo; upgrade it")
    rows: list[dict[str, Any]] = document["rows"]
    for row in rows:
        _identity(row)
    return rows


def with_other_seeds(row: Mapping[str, Any], stored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row with the recorded runs of other seeds.

    Raises:
        RunError: the others had another training under the same names.
    """
    old = _of_the_same(row, stored)
    if old is None or row["top1"] is None:
        return dict(row)
    _refuse_other_training(row, old)
    runs = [*(run for run in old["runs"] if run["seed"] not in row["seeds"]), *row["runs"]]
    runs.sort(key=lambda run: run["seed"])
    return {**row, **_over(runs, row["published_top1"]), "runs": runs}


def _refuse_other_training(row: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Refuse to add seeds to those of another training under the same names.

    Raises:
        RunError: names the row.
    """
    was, now = old.get("decides"), row.get("decides")
    others = [run for run in old["runs"] if run["seed"] not in row["seeds"]]
    sizes = [{key: run[key] for key in OF_ALL_SEEDS} for run in (*others, *row["runs"])]
    if (others and was and now and was != now) or any(size != sizes[0] for size in sizes):
        raise RunError(
            f"{row['model']} on {row['dataset']}: its recorded seeds had another training (recipe, model, images or "
            "their number), so that no seed can be added to them; leave out --first-seed, or give another --results"
        )


def _of_the_same(row: Mapping[str, Any], stored: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((other for other in stored if _identity(other) == _identity(row)), None)


def _with_note(row: Mapping[str, Any], old: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A row with the `note` that somebody wrote to it, as long as its runs are the same."""
    return {**row, "note": old["note"]} if old is not None and old["runs"] == row["runs"] else row


def _has_more(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a recorded row contains all runs of the new row, and others."""
    same = _identity(old) == _identity(new) and all(run in old["runs"] for run in new["runs"])
    return same and len(old["runs"]) > len(new["runs"])


def figures(ask: Ask, rows: Sequence[Row], jobs: Sequence[Job], results: Path) -> list[Path]:
    """Draw the curves of the recorded runs into `results/figures`, one plot for each dataset.

    Returns:
        The files; empty if nothing is recorded.
    """
    from zoo.studies.figures import Series, draw_table

    written = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        series = []
        for row in (row for row in rows if row.dataset == dataset):
            runs = [read_metrics(job.folder) for job in jobs if job.row == row and job.recorded]
            series += [Series(row.name, runs)] if runs else []
        if series:
            marks = [ask.protocol, *([ask.recipe] if ask.recipe != "source" else [])]
            marks += ["small"] if ask.budget == "small" else []
            name = "-".join([ask.target.partition("/")[0], dataset, *marks])
            title = f"{ask.target.partition('/')[0]}, {dataset}: {ask.protocol} protocol, {ask.recipe} recipe"
            title += ", small budget: not comparable" if ask.budget == "small" else ""
            if any(row.images.stand_in for row in rows):
                title += f" (images of {ask.dataset})"
            written += draw_table(results / "figures" / name, title, series)
    return written


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in IDENTITY)


def state(job: Job) -> str:
    """The progress of a run in a word or two, for `--list`."""
    if job.recorded:
        return "recorded"
    if not job.folder.is_dir():
        return "missing"
    return f"{plural(len(read_metrics(job.folder)), 'epoch')} done"
