"""The public calls of this room: `zoo.sweep`, `zoo.reproduce`, `zoo.bench`, `zoo.report`, and what `sweep` gives."""

from __future__ import annotations

import copy
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.base.checked_call import checked
from zoo.base.paths import local_path
from zoo.base.reporter import Reporter
from zoo.base.tables import Table
from zoo.errors import InputError
from zoo.runs.api import Run, RunLike, found_runs, open_run, word_of
from zoo.studies.bench.benched import MODELS, WHAT, Bench, parts_of
from zoo.studies.checked import Remembered, check_among, check_least
from zoo.studies.report.written import Report
from zoo.studies.reproduce.reproduction import Reproduction

if TYPE_CHECKING:
    from zoo.catalogue.spec import Node
    from zoo.studies.sweep.searching import Outcome
    from zoo.studies.sweep.space import Grid, Sample
    from zoo.train.events import Listener

ENGINES = ("local", "ray")
MOST_IMAGES = 48


def _never() -> int:
    return 0


# ---- sweep -------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False, eq=False)
class Sweep:
    """A sweep: its trials, and what they found.

    Attributes:
        document: everything as plain data; see `as_dict`.
        figures: the files of a picture of what mattered; empty below three trials.
        problems: a line for each process that failed. stopped: whether `stop` ended it. The same call continues.
    """

    document: Mapping[str, Any]
    figures: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    stopped: bool = False

    @property
    def folder(self) -> Path:
        """Where it is: each trial's run folder, and the results."""
        return Path(self.document["sweep"]["folder"])

    @property
    def trials(self) -> Table:
        """The trials that have ended, a row each, the best first.

        `number`, `state` ("complete", "pruned", "failed"), `top1` (on the validation images, 0..1), `changes` (what was
        set, by key), `folder` (its name below that of the sweep), `seconds` of training, `error`.
        """
        return Table(self.document["trials"], ("number", "state", "top1", "changes", "folder", "seconds", "error"))

    @property
    def finished(self) -> bool:
        """Whether all trials that were asked for have ended."""
        return len(self.document["trials"]) >= self.document["sweep"]["trials"]

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best trial; None if none was completed."""
        return next((row for row in self.trials if row["state"] == "complete"), None)

    @property
    def best_run(self) -> Run | None:
        """The run of the best trial, with its weights; None if none was completed."""
        best = self.best
        return None if best is None else open_run(self.folder / best["folder"])

    @property
    def importance(self) -> dict[str, float]:
        """The share of the variance of validation top-1 that each key explains, 0..1; empty below three trials."""
        return dict(self.document["importance"])

    def to_toml(self) -> str:
        """The best trial as tables for a registry.toml: what `zoo sweep` prints."""
        return str(self.document["recipe"])

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data: what `zoo sweep --json` prints."""
        return copy.deepcopy(dict(self.document))

    @property
    def _told(self) -> str:
        best, sweep = self.best, self.document["sweep"]
        found = "" if best is None else f", best validation top-1 {best['top1']:.2%}: {best['folder']}"
        how = ", stopped" if self.stopped else ""
        return f"Sweep({str(self.folder)!r}: {len(self.trials)} of {sweep['trials']} trials{how}{found})"

    def __reduce__(self) -> tuple[object, ...]:
        """As plain data, so that it can be copied and sent to another process."""
        return Sweep, (self.as_dict(), self.figures, self.problems, self.stopped)

    def __repr__(self) -> str:
        """One line about the whole, and the trials."""
        return f"{self._told}\n{self._shown!r}" if self.trials else self._told

    def _repr_html_(self) -> str:
        """One line about the whole, and the trials."""
        return f"<p>{html.escape(self._told)}</p>{self._shown._repr_html_()}"

    @property
    def _shown(self) -> Table:
        rows = [{**row, **row.pop("changes")} for row in self.trials]
        keys = dict.fromkeys(key for row in self.trials for key in row["changes"])
        return Table(rows, ("folder", "state", "top1", *keys, "seconds", "error"))


@checked
def sweep(
    model: str | Node,
    *,
    grid: Grid | None = None,
    sample: Sample | None = None,
    trials: int | None = None,
    prune: bool = False,
    jobs: int = 1,
    engine: Literal["local", "ray"] = "local",
    storage: str | Path | None = None,
    output: str | Path | None = None,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    limit_train: int | None = None,
    validation: float | str | Path | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    checkpoint_seconds: float = 60.0,
    reporter: Reporter | None = None,
    stop: Callable[[], int] = _never,
) -> Sweep:
    """Search for better recipe settings by validation accuracy; test images are not used.

    A key is a setting of the recipe ("lr"), an argument in the model's tree ("build.depth"), or "recipe" or "model",
    whose values are names. Calling it again continues a sweep: trials that have ended are not trained again.

    Args:
        model: its name, FILE.toml#NAME, or a tree; a tree needs `dataset` and `recipe`.
        grid: keys with the values to try, all combinations of them: {"lr": [1e-3, 3e-4]}, or ["lr=1e-3,3e-4"].
        sample: keys with ranges to draw from: {"lr": "log:1e-4..1e-2", "momentum": (0.8, 0.99)}, or as text.
        trials: how many in all; default: the whole grid, or 20 with `sample`.
        prune: stop trials early that are worse than the median of the others.
        jobs: processes that train at the same time. engine: "ray" runs them as tasks of a Ray cluster.
        storage: PATH.db (SQLite), another path (a journal), or a database URL; default: in the sweep's folder.
        output: the sweep's folder; default: runs/sweep/NAME-DATASET.
        dataset, data_dir, recipe, epochs, device, limit_train, validation: of all trials, as for `zoo.train`.
        settings: of the recipe, for all trials: {"ema": 0.99}, or ["ema=0.99"].
        seed: for training, and for drawing the values.
        checkpoint_seconds: between two checkpoints of a trial; 0: only at the end or when stopped.
        reporter: receives messages, and a warning for each process that failed.
        stop: asked between steps; a number above 0 ends the sweep after a checkpoint.
    Raises:
        InputError: a wrong key, value, range or option, another sweep in the folder, or Optuna is not installed.
        TrainingError: no trial was completed. ZooError: no trial can run, such as a dataset that is not there.

    Example:
        >>> found = zoo.sweep("cnn-baseline", grid={"lr": [1e-3, 3e-3]}, dataset="digits")  # doctest: +SKIP
        >>> print(found.to_toml())  # doctest: +SKIP
    """
    from zoo.studies.sweep.searching import Wanted, asked_for, carry_out, name_of
    from zoo.studies.sweep.space import parse_space
    from zoo.train.run_options import Request, settings_of

    _check_spread(jobs, engine)
    check_least("trials", trials, 1)
    check_least("checkpoint_seconds", checkpoint_seconds, 0)
    space = parse_space(() if grid is None else grid, () if sample is None else sample)
    wanted = Wanted(trials, prune, _text(storage), _text(output), checkpoint_seconds)
    request = Request(
        model=name_of(model, wanted.output, dataset, recipe),
        dataset=dataset,
        data_dir=_text(data_dir),
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        device=device,
        limit_train=limit_train,
        validation=None if validation is None else str(validation),
        settings=settings_of(settings),
    )
    told = reporter or Reporter()
    try:
        search, entry = asked_for(request, space, wanted)
        done: Outcome = carry_out(search, entry, (engine, jobs), told, Remembered(stop))
    finally:
        told.close()
    return Sweep(done.document, done.figures, done.problems, done.stopped)


# ---- reproduce ---------------------------------------------------------------------------------


@checked
def reproduce(
    target: str | None = None,
    *,
    seeds: int = 1,
    first_seed: int = 0,
    budget: Literal["full", "small"] = "full",
    recipe: str = "source",
    only: str | Sequence[str] = (),
    dataset: str | None = None,
    epochs: int | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    limit_train: int | None = None,
    limit_test: int | None = None,
    protocol: Literal["clean", "paper"] = "paper",
    jobs: int = 1,
    engine: Literal["local", "ray"] = "local",
    runs: str | Path = "runs/reproduce",
    results: str | Path = "results",
    checkpoint_seconds: float = 60.0,
    train: bool | None = None,
    figures: bool = False,
    listeners: Sequence[Listener] = (),
    reporter: Reporter | None = None,
    stop: Callable[[], int] = _never,
) -> Reproduction:
    """Train the models of a published table that have no result yet, and put our results beside the published ones.

    Calling it again continues: what is recorded is not trained again.

    Args:
        target: a source, SOURCE/DATASET, a study or a model; None, with `train=False`, lists all but the models.
        seeds: runs for each row. first_seed: of which the first has this seed; above 0, other recorded seeds are kept.
        budget: "full": train as published; "small": a quick trial with 2,000 images and a tenth of the epochs.
        recipe: "source", "best", or the name of any recipe.
        only: globs; only rows whose model, MODEL/DATASET or variant matches one.
        dataset: images to use instead of the published datasets, or NAME=SPEC, instead of dataset NAME.
        epochs, limit_train, limit_test: other numbers for the small budget.
        data_dir, device, protocol: as for `zoo.train`.
        jobs: processes that train at the same time. engine: "ray" runs them as tasks of a Ray cluster.
        runs: the folder for the run folders. results: the folder for the table's file and the figures.
        checkpoint_seconds: between two checkpoints; 0: only at the end or when stopped.
        train: whether to train; else what is there is shown. None: a whole source is shown, all else is trained.
        figures: draw the curves, as PNG and SVG.
        listeners: receive the events of the runs that are trained in this process, one run after another.
        reporter: receives messages. stop: asked between steps; a number above 0 ends it after a checkpoint.
    Raises:
        InputError: an unknown target, or options that contradict one another. WriteError: a folder cannot be written.
        RunError: the table's file is damaged. Runs that fail are in `failed`.

    Example:
        >>> table = zoo.reproduce("cnn-to-others/cifar10", train=False)
        >>> table.rows[0]["model"], table.rows[0]["published_top1"]
        ('cnn-baseline', 0.6411)
    """
    from zoo.catalogue.spec import decode
    from zoo.studies.reproduce.rows import Ask
    from zoo.studies.reproduce.training import How, carry_out, list_targets

    _check_spread(jobs, engine)
    if target is None and train is not False:
        raise InputError("give a source, table, study or model to reproduce; `zoo reproduce --list` shows them")
    if target is None:
        return list_targets()
    asked = {
        "target": target,
        "only": (only,) if isinstance(only, str) else tuple(only),
        "protocol": protocol,
        "budget": budget,
        "seeds": seeds,
        "first_seed": first_seed,
        "recipe": recipe,
        "dataset": dataset,
        "data_dir": _text(data_dir),
        "device": device,
        "epochs": epochs,
        "limit_train": limit_train,
        "limit_test": limit_test,
        "runs": str(local_path(runs)),
        "checkpoint_seconds": checkpoint_seconds,
    }
    told = reporter or Reporter()
    how = How(jobs, engine, listeners, told, Remembered(stop))
    try:
        return carry_out(decode(Ask, asked, "reproduce"), how, local_path(results), train=train, draw=figures)
    finally:
        told.close()


# ---- bench -------------------------------------------------------------------------------------


@checked
def bench(
    *models: str,
    what: str | Sequence[str] = WHAT,
    batch_size: int = 64,
    image_size: int | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile: Literal["auto", "off", "graph", "default", "max"] | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    dataset: str = "digits",
    data_dir: str | Path | None = None,
    seconds: float = 5.0,
    steps: int | None = None,
    repeats: int = 5,
    reporter: Reporter | None = None,
) -> Bench:
    """Measure how fast models train and infer on this machine, each in a process of its own.

    Args:
        models: names; default: five of different kinds.
        what: some of "train", "infer", "latency" and "loop" (the training loop beside its bare step).
        batch_size: images per step. image_size: side in pixels; default: the model's own.
        device, precision, compile, recipe, settings: as for `zoo.train`.
        dataset: where the images come from; only their number and size matter. data_dir: where datasets lie.
        seconds: for each measurement, without its warm-up. steps: per repeat, instead of `seconds`.
        repeats: of each measurement.
        reporter: receives messages.
    Returns:
        A row for each model. One that cannot be measured, such as for lack of memory, has only an `error`.
    Raises:
        InputError: a wrong option, or an unknown model; nothing was measured.

    Example:
        >>> measured = zoo.bench("cnn-baseline", what="infer", steps=1, repeats=1)  # doctest: +SKIP
        >>> measured.rows[0]["infer"]["images_per_second"]["median"]  # doctest: +SKIP
    """
    from zoo.studies.bench.apart import measure_all
    from zoo.train.run_options import settings_of

    for name, number in (
        ("batch_size", batch_size),
        ("image_size", image_size),
        ("steps", steps),
        ("repeats", repeats),
    ):
        check_least(name, number, 1)
    if not seconds > 0:
        raise InputError(f"seconds={seconds!r} must be above 0")
    if compile is not None:
        check_among("compile", compile, ("auto", "off", "graph", "default", "max"))
    how = {
        "what": parts_of(what),
        "batch_size": batch_size,
        "image_size": image_size,
        "device": device,
        "precision": precision,
        "compile": compile,
        "recipe": recipe,
        "settings": settings_of(settings),
        "dataset": dataset,
        "data_dir": _text(data_dir),
        "seconds": seconds,
        "steps": steps,
        "repeats": repeats,
    }
    told = reporter or Reporter()
    try:
        return measure_all(models or MODELS, how, told)
    finally:
        told.close()


# ---- report ------------------------------------------------------------------------------------


@checked
def report(
    *runs: RunLike,
    output: str | Path = "report.html",
    images: int = 12,
    data: bool = True,
    catalogue: Literal["related", "all", "none"] = "related",
    title: str = "hybrid-zoo: runs and results",
    stamp: bool = False,
    data_dir: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> Report:
    """Write one HTML page, readable offline, that shows runs beside published results.

    What test images tell (confusion, per-class results, images) is measured if they are on this machine; nothing is
    downloaded, and what was measured is kept in the cache.

    Args:
        runs: also patterns and folders of runs; default: all below runs/.
        output: where the page is written.
        images: shown for each run, 0 to 48: those misclassified with the highest confidence.
        data: whether to look at test images; without, it is quick.
        catalogue: published results to show: "related" (of the runs' models and datasets), "all" or "none".
        stamp: print the date; without it the same runs give the same page.
        data_dir: where datasets lie. device: on which test images are measured; default: that of each run.
        reporter: receives messages, warnings and progress.
    Raises:
        InputError: no such run, none at all, a wrong option, too many runs for a page, or Bokeh is not installed.
        WriteError: the page cannot be written.

    Example:
        >>> page = zoo.report("resnet18-*", output="resnets.html")  # doctest: +SKIP
        >>> page.path, page.runs  # doctest: +SKIP
    """
    from zoo.studies.report.page import library

    check_among("catalogue", catalogue, ("related", "all", "none"))
    if not 0 <= images <= MOST_IMAGES:
        raise InputError(f"images={images!r}: allowed: 0 to {MOST_IMAGES}")
    library()  # first, so that a missing one is said before anything is measured
    told = reporter or Reporter()
    found = found_runs([word_of(run) if isinstance(run, Run) else run for run in runs], told)
    if not found:
        raise InputError("no runs below runs/; `zoo train MODEL --dataset NAME` makes one")
    _say_last(runs, told)
    from zoo.studies.report.gather import Wanted, write_page

    wanted = Wanted(images, data, catalogue, title, stamp, _text(data_dir), device)
    return write_page(found, local_path(output), wanted, told)


def _say_last(runs: Sequence[RunLike], reporter: Reporter) -> None:
    """Say which run "last" is, where that word was given."""
    from zoo.runs.which import LAST, known

    if LAST in runs and str(folder := known(LAST)) != LAST:
        reporter.say(f"last: {folder}")


# ---- what they share ---------------------------------------------------------------------------


def _check_spread(jobs: int, engine: str) -> None:
    check_least("jobs", jobs, 1)
    check_among("engine", engine, ENGINES)


def _text(path: str | Path | None) -> str | None:
    """A path as text, with the home folder for `~`; the address of a database stays as it is."""
    return None if path is None else str(path) if "://" in str(path) else str(local_path(path))
