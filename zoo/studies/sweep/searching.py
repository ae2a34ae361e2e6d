"""A whole sweep: what was asked for, the trials that are missing, and the results beside them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from zoo.base.files import write_text
from zoo.base.plain_json import json_text
from zoo.base.reporter import Reporter
from zoo.base.text import plural
from zoo.catalogue.registry import Registry, find_model, load_registry
from zoo.catalogue.spec import Node
from zoo.catalogue.vary import inline
from zoo.errors import InputError
from zoo.studies.checked import Remembered, stays
from zoo.studies.sweep.space import Space, check_space
from zoo.train.run_options import Request

if TYPE_CHECKING:
    from zoo.studies.sweep.trials import Search
    from zoo.studies.workers import Engine
    from zoo.train.plan import Entry

DEFAULT_TRIALS = 20


@dataclass(frozen=True)
class Wanted:
    """What a sweep is asked for, beside its space and the options of its runs; as `zoo.sweep`."""

    trials: int | None
    prune: bool
    storage: str | None
    output: str | None
    checkpoint_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What a sweep has found.

    Attributes:
        document: everything as plain data, as `sweep.json` has it; the recipe is "" without a completed trial.
        figures: the files of the picture of what mattered.
        problems: a line for each process that failed.
    """

    document: Mapping[str, Any]
    figures: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    stopped: bool = False


def name_of(model: str | Node, output: str | None, dataset: str | None, recipe: str | None) -> str:
    """The name of a model. A tree gets one in a file of the sweep's folder, where every process finds it.

    Raises:
        InputError: the tree has no dataset or recipe, or the folder has the sweep of another tree.
        UnknownNameError: there is no such recipe.
    """
    if not isinstance(model, Node):
        return model
    if dataset is None or recipe is None:
        raise InputError("a sweep of a tree needs a dataset and a recipe; only models of the catalogue have their own")
    load_registry().recipe(recipe)
    name = f"tree-of-{model.use.replace('.', '-')}"  # no model of the catalogue is called so
    table = {"summary": "a tree of one's own", "family": "own", "recipe": recipe, "build": model.to_table()}
    text = "".join([f"[models.{name}]\n", *(f"{key} = {inline(value)}\n" for key, value in table.items())])
    file = Path(output or _folder(name, dataset)) / "model.toml"
    begun = file.is_file() and any(file.parent.glob("trial-*"))
    if begun and file.read_text("utf-8") != text:
        raise InputError(f"{file}: contains another tree; give the same one to continue its sweep, or another output")
    write_text(file, text)
    return f"{file}#{name}"


def asked_for(request: Request, space: Space, wanted: Wanted) -> tuple[Search, Entry]:
    """The sweep as plain data, and its model.

    Raises:
        InputError: no such key, a value that it does not take, more trials than the grid has points, or no Optuna.
    """
    entry = registry, name, _ = find_model(request.model)
    check_space(space, registry, name)
    trials = _trials(space, wanted.trials)
    _need_optuna()
    from zoo.studies.sweep.trials import Search

    folder = wanted.output or _folder(name, request.dataset)
    search = Search(
        request=request,
        space=space,
        folder=folder,
        storage=wanted.storage or str(Path(folder) / "trials.db"),
        trials=trials,
        prune=wanted.prune,
        checkpoint_seconds=wanted.checkpoint_seconds,
    )
    return search, entry


def _trials(space: Space, requested: int | None) -> int:
    """The number of trials: all points of the grid, unless a number was given."""
    size = math.prod(len(choice.values) for choice in space.choices)
    if not space.ranges and requested is not None and requested > size:
        raise InputError(
            f"--trials {requested}: the grid has {plural(size, 'point')}; leave out --trials to try them all"
        )
    return requested or (DEFAULT_TRIALS if space.ranges else size)


def _folder(name: str, dataset: str | None) -> str:
    data = (dataset or "own").rpartition("/")[2].rpartition(":")[2].partition("?")[0] or "data"
    return f"runs/sweep/{name.replace('/', '-')}-{data}"


def _need_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        from zoo.base.install import install_line

        raise InputError(f"zoo sweep needs Optuna: {install_line('sweep')}") from None


def carry_out(
    search: Search, entry: Entry, spread: tuple[Engine, int], reporter: Reporter, stop: Remembered
) -> Outcome:
    """Run the missing trials, and write the results beside them.

    Args:
        spread: where, and how many processes.
    Raises:
        TrainingError: no trial was completed. ZooError: no trial can run, or the storage holds another sweep.
    """
    from zoo.studies.sweep.meaning import meaning, refuse_other_meaning
    from zoo.studies.sweep.trials import check_options, open_study

    check_options(search, entry)
    study = open_study(search)  # fails now, before processes are started, if the storage cannot be used
    refuse_other_meaning(study, meaning(search.request, search.space, *entry[:2]), search.storage)
    if line := stays(Path(search.folder).glob("trial-*"), search.request.device):
        reporter.warn(line)
    problems = tuple(_run(search, entry, spread, reporter, stop))
    if stop() > 0:
        return Outcome(_so_far(search), problems=problems, stopped=True)
    for line in problems:
        reporter.warn(line)
    return _written(search, entry[0], entry[1], problems)


def _run(search: Search, entry: Entry, spread: tuple[Engine, int], reporter: Reporter, stop: Remembered) -> list[str]:
    """Run the missing trials; returns a line for each process that failed."""
    from zoo.studies import workers
    from zoo.studies.sweep.trials import work
    from zoo.train.call import as_before
    from zoo.train.loop import Stop

    engine, jobs = spread
    if (engine, jobs) != ("local", 1):
        given = msgspec.to_builtins(search)
        gpu = workers.takes_gpu(engine, search.request.device)
        return workers.spread("zoo.studies.sweep.trials:assist", given, jobs, engine, stop, reporter, gpu=gpu)
    with contextlib.suppress(Stop), as_before(search.request.device):  # `stop` remembers it
        work(search, entry, stop, reporter)
    return []


def _so_far(search: Search) -> dict[str, Any]:
    """The document of a sweep that was stopped: the trials that have ended."""
    from zoo.studies.sweep import outcome
    from zoo.studies.sweep.trials import open_study

    return outcome.document(search, outcome.trials_of(search, open_study(search)), "", {})


def _written(search: Search, registry: Registry, name: str, problems: tuple[str, ...]) -> Outcome:
    """Write the results beside the trials, and draw the importance of each key."""
    from zoo.studies.sweep import outcome
    from zoo.studies.sweep.trials import open_study

    study = open_study(search)
    rows = outcome.trials_of(search, study)
    recipe = outcome.as_toml(search, registry, name, outcome.best_of(rows, problems), len(rows))
    mattered = outcome.importance(study)
    results = outcome.document(search, rows, recipe, mattered)
    data, table, stem = outcome.paths(search)
    write_text(data, json_text(results, indent=2) + "\n")
    write_text(table, recipe)
    figures: tuple[Path, ...] = ()
    if mattered:
        from zoo.studies.figures import draw_importance

        completed = plural(sum(row["state"] == "complete" for row in rows), "trial")
        figures = tuple(draw_importance(stem, f"{name}: importance of each key in {completed}", mattered))
    return Outcome(MappingProxyType(results), figures, problems)
