"""`zoo sweep`: searches for better recipe settings."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.base.plain_json import json_text
from zoo.base.text import plural
from zoo.cli.shared import click_from_fields, spare_words
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import emit, emit_json, say
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry
    from zoo.studies.sweep.space import Space
    from zoo.studies.sweep.trials import Sweep
    from zoo.studies.workers import Engine
    from zoo.train.plan import Entry

DEFAULT_TRIALS = 20


@click.command(cls=spare_words.Command)
@click.argument("model", metavar="NAME")
@click.option(
    "--grid", multiple=True, metavar="KEY=A,B,C", help="Try each of these values: lr=1e-3,3e-4. May be repeated."
)
@click.option(
    "--sample",
    multiple=True,
    metavar="KEY=[log:]LOW..HIGH",
    help="Draw values from a range: lr=log:1e-4..1e-2. May be repeated.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    help=f"Total number of trials; default: the whole grid, or {DEFAULT_TRIALS} with --sample.",
)
@click.option("--prune", is_flag=True, help="Stop trials early that are worse than the median of the others.")
@options.at_once("Number of trials to run at the same time.")
@click.option(
    "--storage",
    metavar="PATH",
    help="Storage of the trials: PATH.db (SQLite), another PATH (a journal), or a database URL.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Folder of the sweep; default: runs/sweep/NAME-DATASET.",
)
@click_from_fields.of_a_run(
    lambda option: option.sweep,
    recipe={"help": "Name of the recipe to start from, or `best`; default: the model's own."},
    settings={"help": "Override a key of the recipe in all trials. May be repeated."},
    seed={"help": "Seed for training, and for drawing the values to try."},
)
@options.checkpoint_seconds
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON on stdout.")
@options.quiet
def sweep(
    model: str,
    grid: tuple[str, ...],
    sample: tuple[str, ...],
    trials: int | None,
    jobs: int,
    engine: Engine,
    prune: bool,
    storage: str | None,
    output: str | None,
    as_json: bool,
    quiet: bool,
    checkpoint_seconds: float,
    **option_values: Any,
) -> None:
    """Search for better recipe settings for the model NAME, by validation accuracy; test images are not used.

    A KEY is one of: a setting of the recipe (lr, or recipe.lr); an argument in the model's tree (build.depth);
    `recipe` or `model`, whose values are names.

    Repeating the command continues an interrupted sweep. The best trial is printed on stdout, as tables for
    a registry.toml.

    Examples:

    \b
      zoo sweep cnn-baseline --grid lr=1e-3,3e-3 --grid batch_size=64,128
      zoo sweep hybrid-alt-1 --sample lr=log:1e-4..1e-2 --trials 20 --prune
      zoo sweep vit-cifar --grid build.depth=4,6 --sample lr=1e-4..1e-3 --jobs 2
    """
    from zoo.catalogue.registry import find_model
    from zoo.studies.sweep.space import check_space, parse_space
    from zoo.train.run_options import Request

    space = parse_space(grid, sample)
    entry = registry, name, _ = find_model(model)
    check_space(space, registry, name)
    trials = _trials(space, trials)
    _need_optuna()
    from zoo.studies.sweep.trials import Sweep

    folder = output or _folder(name, option_values["dataset"])
    chosen = Sweep(
        request=Request(model=model, **option_values),
        space=space,
        folder=folder,
        storage=storage or str(Path(folder) / "trials.db"),
        trials=trials,
        prune=prune,
        checkpoint_seconds=checkpoint_seconds,
    )
    problems = run(chosen, entry, engine, jobs, quiet)
    for line in problems:
        print(f"warning: {line}", file=sys.stderr)
    done = report(chosen, registry, name, as_json)
    if problems and done < chosen.trials:
        say(f"{done} of {chosen.trials} trials are done; repeat the command to continue")
        sys.exit(1)


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


def run(chosen: Sweep, entry: Entry, engine: Engine, jobs: int, quiet: bool) -> list[str]:
    """Run the missing trials; returns a line for each process that failed."""
    import msgspec

    from zoo.studies import workers
    from zoo.studies.sweep.trials import check_options, open_study, work
    from zoo.train.loop import Stop

    check_options(chosen, entry)
    open_study(chosen)  # fails now, before processes are started, if the storage cannot be used
    problems: list[str] = []
    with StopRequests() as stop:
        stop.answer_between_steps()
        try:
            if (engine, jobs) == ("local", 1):
                work(chosen, entry, stop, (lambda line: None) if quiet else say)
            else:
                given = {"sweep": msgspec.to_builtins(chosen), "quiet": quiet}
                gpu = engine == "ray" and chosen.request.device not in ("cpu", "mps") and _has_gpu()
                problems = workers.spread("zoo.studies.sweep.trials:assist", given, jobs, engine, stop, gpu=gpu)
        except Stop:
            pass
        if stop.stopping:
            say(f"stopped; repeat the command to continue (the trials are in {chosen.folder})")
            sys.exit(128 + stop.stopping)
    return problems


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def report(chosen: Sweep, registry: Registry, name: str, as_json: bool) -> int:
    """Write the results beside the trials, draw the importance of each key, and print the best trial.

    The best trial is printed as TOML, or all results as JSON.

    Returns:
        The number of finished trials.
    """
    from zoo.base.files import write_text
    from zoo.studies.sweep import outcome
    from zoo.studies.sweep.trials import open_study

    study = open_study(chosen)
    rows = outcome.trials_of(chosen, study)
    best = outcome.best_of(rows)
    recipe = outcome.as_toml(chosen, registry, name, best, len(rows))
    mattered = outcome.importance(study)
    results = outcome.document(chosen, rows, recipe, mattered)
    data, table, stem = outcome.paths(chosen)
    write_text(data, json_text(results, indent=2) + "\n")
    write_text(table, recipe)
    for key, share in mattered.items():
        say(f"{key} explains {share:.0%} of the variance of validation top-1")
    if mattered:
        from zoo.studies.figures import draw_importance

        title = f"{name}: importance of each key in {plural(sum(r['state'] == 'complete' for r in rows), 'trial')}"
        for path in draw_importance(stem, title, mattered):
            say(f"figure: {path}")
    say(f"best of {len(rows)} trials: {best['folder']}, validation top-1 {best['top1']:.2%}; for your registry.toml:")
    if as_json:
        emit_json(results)
    else:
        emit(recipe.splitlines())
    return len(rows)
