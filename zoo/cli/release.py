"""`zoo release`: publishes the best run of every model, and writes the weights into the registry file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import zoo
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunNames, say_last
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import Column
from zoo.cli.shared.terminal import Terminal

COLUMNS = (
    Column("RUN", flexible=True),
    Column("WEIGHTS", drop=3),
    Column("TOP-1", right=True, drop=2),
    Column("STATE"),
    Column("FILES", right=True, drop=1),
    Column("BYTES", right=True),
    Column("STEPS"),
)


@click.command()
@click.argument("runs", nargs=-1, type=RunNames())
@click.option("--to", required=True, metavar="OWNER", help="User or organisation on the Hub: OWNER/NAME-DATASET.")
@click.option(
    "--registry",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Registry file with the models, which gets the entries; default: registry.toml in this folder.",
)
@click.option(
    "--dataset",
    multiple=True,
    metavar="NAME=SPEC",
    help="Runs that were trained on SPEC are weights for dataset NAME of the catalogue. May be repeated.",
)
@click.option(
    "--collection",
    default="hybrid-zoo",
    show_default=True,
    metavar="TITLE",
    help="Title of the collection on the Hub, which is made if there is none.",
)
@click.option("--no-collection", is_flag=True, help="Add nothing to a collection.")
@click.option("--private", is_flag=True, help="Make repositories and a collection private if they are created.")
@click.option(
    "--licence",
    help="Licence of the weights, as the Hub names it; default: apache-2.0, or that of the package in the run.",
)
@options.data_dir
@click.option("--device", help="Device on which test splits are measured; default: the device of each run.")
@click.option(
    "--no-predictions",
    is_flag=True,
    help="Do not measure test splits: no confusion matrix, no table of classes, no data needed.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Number type in which the weights are stored, as for `zoo package`; default: that of each run or package.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, but send and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def release(
    runs: tuple[str, ...], collection: str, no_collection: bool, no_predictions: bool, as_json: bool, **asked: Any
) -> None:
    """Publish the best run of every model and dataset, and write the weights into the registry file.

    RUNS are run folders, folders of runs, names and patterns below runs/; default: all below runs/. Each run becomes a
    package, a repository OWNER/NAME-DATASET, an item of a collection, and the entry [[models.NAME.weights]], so that
    NAME@DATASET means its weights. What is done already is not done again: repeat the command after an interruption.

    Examples:

    \b
      zoo release --to me --dry-run
      zoo release --to me
      zoo release 'best-*' --to me --dataset cifar10=parquet:data/cifar10
      zoo release runs/mine --to me --registry plugin/registry.toml --private
    """
    say_last(runs)
    asked |= {"predictions": not no_predictions, "collection": "" if no_collection else collection}
    with StopRequests():
        made = zoo.release(*runs, reporter=Terminal(), **asked)
    if as_json:
        table.emit_json(made.as_dict())
    else:
        table.emit_table(COLUMNS, [_cells(row) for row in made.rows], table.width())
        table.say(made.summary)
        if made.collection:
            table.say(f"collection: {made.collection}")
    for line in made.left_out:
        table.say(f"left out: {line}")
    for line in made.failed:
        print(f"failed: {table.clean(line)}", file=sys.stderr)
    if made.failed:
        sys.exit(1)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["run"],
        row["name"] or "-",
        "-" if row["top1"] is None else f"{row['top1']:.2%}",
        row["state"],
        f"{row['files']:,}",
        f"{row['bytes']:,}",
        ", ".join(row["steps"]) or "-",
    ]
