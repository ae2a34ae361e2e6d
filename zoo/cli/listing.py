"""`zoo list`: prints what `zoo.models` lists; nothing here may cost it time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

import click

import zoo
from zoo.base.text import plural
from zoo.cli.shared import table
from zoo.cli.shared.table import Column
from zoo.cli.shared.terminal import Terminal
from zoo.errors import InputError, UnknownNameError

Sort = Literal["name", "family", "parameters", "published", "own", "dataset", "source"]
COLUMNS = (
    Column("NAME"),
    Column("FAMILY", drop=4),
    Column("PARAMS", right=True, drop=6),
    Column("PUBL.", right=True),
    Column("OWN", right=True, drop=7),
    Column("DATASET", drop=3),
    Column("WEIGHTS", drop=2),
    Column("SOURCE", drop=1),
    Column("SUMMARY", flexible=True, drop=5),
)


@click.command("list", short_help="List the models of the catalogue.")
@click.argument("pattern", default="*")
@click.option("--family", default="", metavar="NAME", help="List only models of this family.")
@click.option("--tag", default="", metavar="TAG", help="List only models with this tag.")
@click.option("--dataset", default="", metavar="NAME", help="List only models built or published for this dataset.")
@click.option("--sort", type=click.Choice(get_args(Sort)), show_default="name", help="Column to sort the rows by.")
@click.option("--hub", is_flag=True, help="List packages on the Hub instead, as `zoo search PATTERN --tag TAG` does.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of objects on stdout.")
def list_models(pattern: str, family: str, tag: str, dataset: str, sort: Sort | None, hub: bool, as_json: bool) -> None:
    """List the models whose name matches PATTERN (a glob, or part of the name).

    PUBL. and OWN are top-1 accuracies on the dataset in column DATASET: the best published one, and the best
    that we measured, with its protocol and perhaps with another recipe (`zoo info NAME` lists all). WEIGHTS are the
    datasets that there are trained weights for: `zoo predict NAME@DATASET IMAGE` uses them. Models of
    timm and torchvision are listed only if PATTERN starts with timm/ or torchvision/.

    Examples:

    \b
      zoo list
      zoo list 'hybrid-*' --sort published
      zoo list --family cnn --dataset cifar10 --json
      zoo list 'timm/resnet*'
      zoo list digits --hub
    """
    if hub:
        if sort is not None:
            raise InputError("--hub lists packages as the Hub orders them; leave out --sort")
        from zoo.cli.hub import show_hits

        tags = tuple(t for t in (tag, family) if t)
        return show_hits(pattern.strip("*"), tags, 50, as_json, dataset)
    try:
        found = zoo.models(pattern, family=family, tag=tag, dataset=dataset, sort=sort or "name", reporter=Terminal())
    except UnknownNameError:
        if as_json:
            table.emit_json([])
        raise
    if as_json:
        table.emit_json(found.rows)
    elif found:
        dropped = table.emit_table(COLUMNS, [_cells(row) for row in found.short], table.width())
        _hint(len(found), dropped, found.namespaces)


def _cells(row: dict[str, Any]) -> list[str]:
    own = f"{row['own']:.2%} {row['protocol']}" if row["protocol"] else "-"
    elsewhere = f" {row['own_dataset']}" if row["protocol"] and row["own_dataset"] != row["dataset"] else ""
    return [
        row["name"],
        row["family"],
        _short(row["parameters"]),
        f"{row['published']:.2%}" if row["published"] is not None else "-",
        f"{own}{elsewhere}",
        row["dataset"],
        " ".join(row["weights"]) or "-",
        row["source"] or "-",
        row["summary"],
    ]


def _short(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.{2 if count < 100 * size else 1}f}{unit}"
    return str(count)


def _hint(shown: int, dropped: list[str], spaces: Sequence[str]) -> None:
    if not sys.stdout.isatty():
        return
    if dropped:
        table.say(f"hint: a wider terminal or --json also shows: {', '.join(dropped)}")
    more = "".join(f"; zoo list '{space}/*'" for space in spaces)
    table.say(f"{plural(shown, 'model')}; next: zoo info NAME{more}")
