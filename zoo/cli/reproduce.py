"""`zoo reproduce`: trains the models of a published table."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from zoo.cli.shared import click_from_fields
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import Column, emit, emit_json, emit_table, say, width
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry
    from zoo.studies.reproduce.rows import Ask, Job, Row
    from zoo.studies.workers import Engine


@click.command()
@click.argument("target", metavar="SOURCE|TABLE|STUDY|MODEL", required=False)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Number of seeds: runs for each row."
)
@click.option(
    "--budget",
    type=click.Choice(["full", "small"]),
    default="full",
    show_default=True,
    help="full: train as published; small: a quick trial with 2,000 images and a tenth of the epochs, marked as such.",
)
@click.option(
    "--recipe",
    default="source",
    show_default=True,
    metavar="NAME",
    help="Recipe to train with: source, best, or the name of any recipe.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Train only rows whose model, MODEL/DATASET or variant matches GLOB. May be repeated.",
)
@click.option(
    "--dataset",
    metavar="[NAME=]SPEC",
    help="Use these images instead of the published datasets (or instead of dataset NAME).",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs of the small budget.")
@click_from_fields.of_a_run(
    lambda option: option.reproduce,
    protocol={"default": "paper"},
    limit_train={"help": "Number of training images of the small budget."},
    limit_test={"help": "Number of test images of the small budget."},
)
@options.at_once("Number of runs to train at the same time.")
@click.option(
    "--runs",
    type=click.Path(file_okay=False),
    default="runs/reproduce",
    show_default=True,
    metavar="DIR",
    help="Folder for the run folders.",
)
@click.option(
    "--results",
    type=click.Path(file_okay=False),
    default="results",
    show_default=True,
    metavar="DIR",
    help="Folder for the table and the figures.",
)
@options.checkpoint_seconds
@click.option(
    "--list", "listing", is_flag=True, help="Show the rows, and which of them have a recorded result, without training."
)
@click.option(
    "--figures", is_flag=True, help="Draw the training curves for each dataset, as PNG and SVG in results/figures."
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON on stdout.")
@options.quiet
def reproduce(
    target: str | None,
    jobs: int,
    engine: Engine,
    results: str,
    listing: bool,
    figures: bool,
    as_json: bool,
    quiet: bool,
    **option_values: Any,
) -> None:
    """Train the models of a published table that have no result yet, and print our results beside the published ones.

    Examples:

    \b
      zoo reproduce --list
      zoo reproduce mixture-models/cifar10 --list
      zoo reproduce cnn-to-others --only 'cnn-*'
      zoo reproduce hybrid-alt-1 --budget small --dataset digits
    """
    from zoo.catalogue.registry import load_registry
    from zoo.studies.reproduce.rows import Ask, jobs_of, rows_of

    registry = load_registry()
    if target is None:
        if not listing:
            raise InputError("give a source, table, study or model to reproduce; `zoo reproduce --list` shows them")
        return list_targets(registry, as_json)
    ask = Ask(target=target, **option_values)
    rows = rows_of(ask, registry)
    runs = jobs_of(ask, registry, rows)
    failed: list[str] = []
    if not listing:
        failed = train(ask, registry, rows, runs, Path(results), (engine, jobs), quiet)
        warn_of_changes(ask, Path(results))
    show(ask, registry, rows, runs, as_json, listing)
    if figures:
        draw(ask, registry, Path(results))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    if failed:
        sys.exit(1)
    return None


def warn_of_changes(ask: Ask, results: Path) -> None:
    """Say which rows of the table a commit with changes measured."""
    from zoo.studies.reproduce.recorded import file_of, read, unclean

    for line in unclean(read(file_of(ask, results))):
        print(f"warning: {line}", file=sys.stderr)


def train(
    ask: Ask,
    registry: Registry,
    rows: list[Row],
    runs: list[Job],
    results: Path,
    spread: tuple[Engine, int],
    quiet: bool,
) -> list[str]:
    """Train the missing runs, and store the table after each one.

    Returns:
        A line for each run that failed.
    """
    from zoo.studies.reproduce.perform import failure
    from zoo.studies.reproduce.recorded import file_of, measured, store

    path, invocation = file_of(ask, results), uuid.uuid4().hex
    store(path, ask, registry, measured(rows, runs))  # fails now, before any training, if it cannot be written
    problems: list[str] = []
    with StopRequests() as stop:
        stop.answer_between_steps()
        if spread == ("local", 1):
            alone(ask, registry, rows, runs, path, invocation, stop, quiet)
        elif not all(job.recorded for job in runs):
            problems = together(ask, path, invocation, spread, stop, quiet)
        if stop.stopping:
            leave(ask, stop.stopping)
    store(path, ask, registry, measured(rows, runs))
    reasons = {job.title: failure(job, invocation) for job in runs if not job.recorded}
    other = "; ".join(problems) or "not finished"
    return [f"{title}: {reason or other}; repeat the command to continue" for title, reason in reasons.items()]


def alone(
    ask: Ask,
    registry: Registry,
    rows: list[Row],
    runs: list[Job],
    path: Path,
    invocation: str,
    stop: StopRequests,
    quiet: bool,
) -> None:
    """Train in this process."""
    from zoo.cli.shared.display import make_display
    from zoo.studies.reproduce.perform import work
    from zoo.studies.reproduce.recorded import measured, store
    from zoo.train.loop import Stop

    def done() -> None:
        store(path, ask, registry, measured(rows, runs))

    try:
        work(ask, registry, invocation, stop, lambda: make_display(quiet), _silent if quiet else say, done)
    except Stop as stopped:
        leave(ask, stopped.signal)


def together(
    ask: Ask, path: Path, invocation: str, spread: tuple[Engine, int], stop: StopRequests, quiet: bool
) -> list[str]:
    """Train in several processes; returns a line for each that failed."""
    import msgspec

    from zoo.studies import workers

    engine, jobs = spread
    given = {"ask": msgspec.to_builtins(ask), "invocation": invocation, "results": str(path), "quiet": quiet}
    gpu = ask.device not in ("cpu", "mps") and engine == "ray" and _has_gpu()
    return workers.spread("zoo.studies.reproduce.perform:assist", given, jobs, engine, stop, gpu=gpu)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def leave(ask: Ask, number: int) -> NoReturn:
    """Say how to continue, and exit with the code of the signal."""
    say(f"stopped; repeat the command to continue (the runs are in {ask.runs})")
    sys.exit(128 + number)


def _silent(line: str) -> None:
    del line


def draw(ask: Ask, registry: Registry, results: Path) -> None:
    """Draw the recorded runs of the whole target, whatever `--only` selected, and print the paths."""
    import msgspec

    from zoo.studies.reproduce import recorded as table
    from zoo.studies.reproduce.rows import jobs_of, rows_of

    ask = msgspec.structs.replace(ask, only=())
    rows = rows_of(ask, registry)
    runs = jobs_of(ask, registry, rows)
    for path in table.figures(ask, rows, runs, results):
        say(f"figure: {path}")


def list_targets(registry: Registry, as_json: bool) -> None:
    """Print every source, table and study."""
    from zoo.studies.reproduce.rows import targets

    summaries = targets(registry)
    if as_json:
        return emit_json([{"name": name, "summary": text} for name, text in summaries.items()])
    emit_table([Column("NAME"), Column("SUMMARY", flexible=True)], list(summaries.items()), width())
    return say("next: zoo reproduce NAME --list, with one of these names or any model of `zoo list`")


COLUMNS = (
    Column("MODEL"),
    Column("DATASET"),
    Column("BUDGET"),
    Column("PUBL.", right=True),
    Column("OURS", right=True),
    Column("DIFF.", right=True),
    Column("SPREAD", right=True),
    Column("SEEDS", right=True, drop=3),
    Column("PARAMS", right=True, drop=4),
    Column("PUBL. MIN", right=True, drop=5),
    Column("MIN", right=True, drop=6),
    Column("WH", right=True, drop=1),
    Column("PUBLISHED AS", flexible=True, drop=2),
)


def show(ask: Ask, registry: Registry, rows: list[Row], runs: list[Job], as_json: bool, listing: bool) -> None:
    """Print the table on stdout, as text or as JSON."""
    from zoo.studies.reproduce.recorded import measured, state

    results = measured(rows, runs)
    if as_json:
        return emit_json(results)
    emit([heading(ask, registry, rows)])
    cells = [_cells(row) for row in results]
    columns = list(COLUMNS)
    if listing:
        columns.append(Column("STATE"))
        states = [", ".join(dict.fromkeys(state(job) for job in runs if job.row == row)) for row in rows]
        cells = [[*line, text or "not trained"] for line, text in zip(cells, states, strict=True)]
    emit_table(columns, cells, width())
    for line in dict.fromkeys(f"{row.name}: {row.why_not}" for row in rows if row.why_not):
        say(f"note: {line}")
    for row in rows if listing else ():
        if row.weights and not row.why_not:
            say(
                f"note: {row.name} is fine-tuned from {row.weights}; to train it alone: "
                f"zoo reproduce {row.table} --only {row.model}/{row.dataset}"
            )
    return None


def heading(ask: Ask, registry: Registry, rows: list[Row]) -> str:
    """The line above the table: source, protocol, recipe, budget, and the images if others were given."""
    source = registry.sources.get(rows[0].source)
    parts = [source.title if source else ask.target, f"{ask.protocol} protocol", f"recipe {ask.recipe}"]
    if ask.budget == "small":
        parts.append("SMALL BUDGET (few images and epochs: not comparable)")
    if any(row.images.stand_in for row in rows):
        parts.append(f"images of {ask.dataset}")
    return "; ".join(parts)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["variant"] or row["model"],
        row["dataset"],
        row["budget"],
        _percent(row["published_top1"]),
        _percent(row["top1"]),
        f"{row['difference'] * 100:+.2f}" if row["difference"] is not None else "-",
        f"{row['spread'] * 100:.2f}" if row["spread"] is not None else "-",
        str(len(row["seeds"])),
        f"{row['parameters']:,}" if row["parameters"] else "-",
        _number(row["published_minutes"]),
        _number(row["minutes"]),
        _number(row["energy_wh"]),
        row["published_as"],
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
