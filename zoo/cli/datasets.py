"""`zoo datasets`: lists the datasets of the catalogue, and checks one before training on it."""

from __future__ import annotations

from typing import Any

import click

import zoo
from zoo.base.text import plural
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.bad_images import some_of_each_kind
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.table import Column
from zoo.cli.shared.terminal import Terminal
from zoo.errors import BadImagesError

COLUMNS = (
    Column("NAME"),
    Column("TRAIN", right=True),
    Column("TEST", right=True),
    Column("CLASSES", right=True),
    Column("SIZE", right=True),
    Column("SOURCE", drop=2),
    Column("LICENCE", drop=1),
    Column("SUMMARY", flexible=True, drop=3),
)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.pass_context
def datasets(context: click.Context, as_json: bool) -> None:
    """List the datasets, or check one.

    A dataset is a name from this list, or folder:PATH, csv:FILE, jsonl:FILE, parquet:PATH, wds:PATTERN,
    hf:OWNER/NAME[@REVISION], torchvision:NAME or idx:PATH.

    Examples:

    \b
      zoo datasets
      zoo datasets check folder:photos
    """
    if context.invoked_subcommand is None:
        _list(as_json)


@datasets.command()
@click.argument("spec")
@options.data_dir
@click.option("--image-size", type=click.IntRange(min=1), help="Resize images to this side, in pixels.")
@click.option("--skip-bad", is_flag=True, help="Call unreadable images a warning, since a run can leave them out.")
@click.option(
    "--label-noise",
    type=RunName(),
    metavar="RUN",
    help="Find labels that are probably wrong, by a run that has not learnt from the images.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="K",
    help="With --label-noise: judge the training images too, by training K runs, each without a part of them.",
)
@click.option("--device", help="Device of --label-noise: cpu, cuda, cuda:N or mps; default: that of the run.")
@click.option("--html", type=click.Path(dir_okay=False), help="Write a page with pictures of what was found.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.pass_context
def check(context: click.Context, spec: str, as_json: bool, folds: int | None, **given: Any) -> None:
    """Read every image of SPEC and report all problems at once.

    The check finds images that cannot be read, are blank or have an odd size; images that occur twice or look
    nearly the same, within a split or in several, with the same label or another one; empty and unbalanced
    classes; and files that are not read. With --label-noise, it also finds labels that are probably wrong.
    The exit code is 1 if the dataset cannot be trained on.

    Examples:

    \b
      zoo datasets check folder:photos --image-size 64
      zoo datasets check folder:photos --html check.html
      zoo datasets check folder:photos --label-noise last --folds 5
      zoo datasets check cifar10 --json
    """
    try:
        found = zoo.check_dataset(spec, folds=folds or 0, **given, reporter=Terminal())
    except BadImagesError as error:
        if as_json:
            table.emit_json({"spec": spec, "unreadable": list(error.problems)})
        else:
            table.emit(map(table.clean, some_of_each_kind(error)))
        raise
    if as_json:
        table.emit_json(found.as_dict())
    else:
        table.emit(map(table.clean, found.lines()))
    if not found.usable:
        context.exit(1)


def _list(as_json: bool) -> None:
    rows = zoo.datasets(reporter=Terminal())
    if as_json:
        table.emit_json(rows.rows)
        return
    dropped = table.emit_table(COLUMNS, [_cells(row) for row in rows], table.width())
    if dropped:
        table.say(f"hint: a wider terminal or --json also shows: {', '.join(dropped)}")
    table.say(f"{plural(len(rows), 'dataset')}; next: zoo train MODEL --dataset NAME")


def _cells(row: dict[str, Any]) -> list[str]:
    counts = [f"{row[key]:,}" if row[key] else "" for key in ("train", "test", "classes")]
    size = f"{row['size'][1]}x{row['size'][0]}" if row["size"] else ""
    return [row["name"], *counts, size, row["source"], row["licence"], row["summary"]]
