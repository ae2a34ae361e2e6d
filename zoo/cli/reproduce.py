"""`zoo reproduce`: trains the models of a published table, or prints what is recorded of a source."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

import zoo
from zoo.cli.shared import click_from_fields
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.display import make_display
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import Column, emit, emit_json, emit_table, say, width
from zoo.cli.shared.terminal import Terminal


@click.command()
@click.argument("target", metavar="SOURCE|TABLE|STUDY|MODEL", required=False)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Number of seeds: runs for each row."
)
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The first of the seeds; above 0, the table's file keeps the results of other seeds, and adds these.",
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
@click.option("--list", "listing", is_flag=True, help="Show the rows, and which of them have a run, without training.")
@click.option(
    "--train", "training", is_flag=True, help="Train the rows of a whole source; without it they are only shown."
)
@click.option(
    "--figures", is_flag=True, help="Draw the training curves for each dataset, as PNG and SVG in results/figures."
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON on stdout.")
@options.quiet
def reproduce(
    target: str | None, listing: bool, training: bool, as_json: bool, quiet: bool, **option_values: Any
) -> None:
    """Train the models of a published table that have no result yet, and print our results beside the published ones.

    A whole SOURCE is printed as it is recorded, without training; add --train to train its rows.

    Examples:

    \b
      zoo reproduce --list
      zoo reproduce cnn-to-others
      zoo reproduce mixture-models/cifar10 --list
      zoo reproduce cnn-to-others --train --only 'cnn-*'
      zoo reproduce hybrid-alt-1 --budget small --dataset digits
    """
    with StopRequests() as stop:
        made = zoo.reproduce(
            target,
            train=False if listing else True if training else None,
            listeners=[make_display(quiet)],
            reporter=Terminal(quiet=quiet),
            stop=stop.between_steps,
            **option_values,
        )
    if made.stopped:
        say(f"stopped; repeat the command to continue (the runs are in {option_values['runs']})")
        sys.exit(128 + stop.stopping)
    if as_json:
        emit_json(list(made.rows))
    elif target is None:
        show_targets(made.rows)
    elif made.states:
        emit([made.heading])
        show(made.rows, made.states if listing else ())
        for line in made.notes:
            say(f"note: {line}")
    else:
        emit([made.heading])
        show_recorded(made.rows)
    for path in made.figures:
        say(f"figure: {path}")
    for line in made.failed:
        print(f"failed: {line}", file=sys.stderr)
    if made.failed:
        sys.exit(1)


def show_targets(rows: zoo.Table) -> None:
    """Print every source, table and study."""
    cells = [[row["name"], row["summary"]] for row in rows]
    emit_table([Column("NAME"), Column("SUMMARY", flexible=True)], cells, width())
    say("next: zoo reproduce NAME --list, with one of these names or any model of `zoo list`")


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


def show(rows: zoo.Table, states: Sequence[str]) -> None:
    """Print the table on stdout; with the states of its rows, where there are any."""
    cells = [_cells(row) for row in rows]
    columns = list(COLUMNS)
    if states:
        columns.append(Column("STATE"))
        cells = [[*line, state] for line, state in zip(cells, states, strict=True)]
    emit_table(columns, cells, width())


RECORDED = (
    Column("MODEL"),
    Column("DATASET"),
    Column("PUBL.", right=True),
    Column("OURS", right=True),
    Column("DIFF.", right=True),
    Column("BY"),
    Column("SEEDS", right=True, drop=4),
    Column("SPREAD", right=True),
    Column("STANDING", drop=5),
    Column("IMAGES", drop=2),
    Column("DEVICE", drop=3),
    Column("COMMIT", drop=1),
    Column("NOTE", flexible=True),
)


def show_recorded(rows: zoo.Table) -> None:
    """Print the recorded results of a whole source on stdout."""
    cells = [
        [
            row["model"],
            row["dataset"],
            _percent(row["published_top1"]),
            _percent(row["top1"]),
            _points(row["difference"], "+"),
            row["by"] or "-",
            str(row["seeds"]),
            _points(row["spread"]),
            row["standing"] or "-",
            row["images"] or "-",
            row["device"] or "-",
            row["commit"] or "-",
            row["note"],
        ]
        for row in rows
    ]
    emit_table(list(RECORDED), cells, width())


def _points(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value * 100:{sign}.2f}"


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["variant"] or row["model"],
        row["dataset"],
        row["budget"],
        _percent(row["published_top1"]),
        _percent(row["top1"]),
        _points(row["difference"], "+"),
        _points(row["spread"]),
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
