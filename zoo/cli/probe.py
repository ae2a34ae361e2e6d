"""`zoo probe`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

import zoo
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.table import Column
from zoo.cli.shared.terminal import Terminal

COLUMNS = (
    Column("MODEL", flexible=True),
    Column("METHOD"),
    Column("SHOTS", right=True),
    Column("VALIDATION", right=True),
    Column("TEST", right=True),
    Column("INTERVAL OR SPREAD", drop=3),
    Column("BALANCED", right=True, drop=2),
    Column("CHOSEN", drop=1),
    Column("WIDTH", right=True, drop=4),
)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RunName(weights=True))
@click.option(
    "--on",
    metavar="SPEC",
    help="Dataset to probe on: a SPEC as for `zoo train --dataset`. Default: the dataset of the runs.",
)
@click.option(
    "--method", default="linear,knn", show_default=True, metavar="NAMES", help="linear, knn, or both with a comma."
)
@click.option(
    "--shots", default="", metavar="NUMBERS", help="Also probe with so many training images of each class: 1,5,10."
)
@click.option(
    "--draws", type=click.IntRange(1, 1000), default=5, show_default=True, help="How often those images are drawn."
)
@click.option(
    "--layer", metavar="NAME", help="Module of the models whose output is taken. Default: what the last layer takes."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Images computed at once."
)
@options.data_dir
@options.device_or_cpu
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@options.quiet
def probe(runs: tuple[str, ...], as_json: bool, quiet: bool, **asked: Any) -> None:
    """Compare the features of RUNS on one dataset, by a linear classifier and by nearest neighbours.

    The training images fit the classifier, the validation images choose its C (linear) or k (knn), and the test
    images are read once, after that. The table is sorted by the validation accuracy. Features are kept in the cache.

    RUNS are named as for `zoo predict`.

    Examples:

    \b
      zoo probe hybrid-alt-1@digits last --on digits
      zoo probe pico@cifar10 timm/resnet18.a1_in1k --on folder:a --shots 1,5
      zoo probe RUN --method knn --layer body --json
    """
    found = zoo.probe(*runs, reporter=Terminal(quiet=quiet), **asked)
    if as_json:
        table.emit_json(found.as_dict())
        return
    document = found.as_dict()
    dropped = table.emit_table(COLUMNS, [_cells(row) for row in document["rows"]], table.width())
    counts = ", ".join(f"{count:,} {name}" for name, count in document["counts"].items())
    more = f"; --json also shows: {', '.join(dropped)}" if dropped else ""
    table.say(
        f"{document['dataset']} ({counts}); sorted by validation top-1, the test was read once for each row{more}"
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    if row["shots"] is None:
        low, high = row["interval"]["ends"]
        about = f"{low:.2%} to {high:.2%}"
    else:
        about = "" if row["spread"] is None else f"± {row['spread']:.2%} over {row['draws']} draws"
    return [
        row["model"],
        row["method"],
        "all" if row["shots"] is None else str(row["shots"]),
        f"{row['validation_top1']:.2%}",
        f"{row['top1']:.2%}",
        about,
        f"{row['balanced_accuracy']:.2%}",
        ", ".join(f"{name} = {_value(value)}" for name, value in row["chosen"].items()),
        str(row["width"]),
    ]


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return f"{value:g}"
    least, most = min(value), max(value)
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"
