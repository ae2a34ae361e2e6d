"""`zoo runs`: lists, filters, compares and removes run folders; nothing here imports torch."""

from __future__ import annotations

import sys
from shlex import quote
from typing import Any

import click

import zoo
from zoo.base.text import plural
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunNames, say_last
from zoo.cli.shared.run_facts import short, told
from zoo.cli.shared.table import Column
from zoo.cli.shared.terminal import Terminal
from zoo.errors import InputError, UnknownNameError

SORTS = ("name", "model", "dataset", "top1", "loss", "parameters", "epochs", "seconds", "modified", "state")
COLUMNS = (
    Column("NAME"),
    Column("MODEL", drop=6),
    Column("DATASET", flexible=True, drop=8),
    Column("TOP-1", right=True),
    Column("VAL.", right=True, drop=7),
    Column("PARAMS", right=True, drop=4),
    Column("EPOCHS", right=True, drop=5),
    Column("TIME", right=True, drop=3),
    Column("PROTOCOL", drop=2),
    Column("SEED", right=True, drop=1),
    Column("STATE"),
)


@click.command()
@click.argument("runs", nargs=-1, type=RunNames())
@click.option(
    "--model", default="", metavar="NAME", help="Only runs of models that match (a glob, or part of the name)."
)
@click.option(
    "--dataset", default="", metavar="SPEC", help="Only runs on datasets that match (a glob, or part of the name)."
)
@click.option("--state", type=click.Choice(["finished", "stopped", "training"]), help="Only runs in this state.")
@click.option(
    "--best",
    is_flag=True,
    help="Only the best run of each model, dataset and protocol: of those with the most test images, by top-1.",
)
@click.option("--sort", type=click.Choice(SORTS), default="name", show_default=True, help="Column to sort the rows by.")
@click.option("--compare", is_flag=True, help="Show how the runs differ in recipe, model, data and results.")
@click.option("--all", "everything", is_flag=True, help="With --compare: also show what is the same.")
@click.option("--remove", is_flag=True, help="Remove the folders of these runs, after a confirmation.")
@click.option("--yes", is_flag=True, help="With --remove: do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of objects on stdout.")
def runs(
    runs: tuple[str, ...],
    model: str,
    dataset: str,
    state: str | None,
    best: bool,
    sort: str,
    compare: bool,
    everything: bool,
    remove: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """List RUNS: run folders, folders of runs, names and patterns below runs/, `last`, hf://; default: all below runs/.

    TOP-1 is the accuracy on the test split, VAL. that on the validation split (of an unfinished run: of the
    epoch that it would select so far). VAL. of a finished run was measured once more in fp32, so it may differ
    a little from the line that training printed for that epoch, often in bf16.

    Examples:

    \b
      zoo runs --best --sort top1
      zoo runs 'resnet18-*' --dataset cifar10
      zoo runs --compare runs/a runs/b
      zoo runs --remove --state stopped
    """
    if remove and (compare or as_json):
        raise InputError("--remove removes runs; leave out --compare and --json, or look at them first")
    if (yes and not remove) or (everything and not compare):
        idle, needed = ("--yes", "--remove") if yes and not remove else ("--all", "--compare")
        raise InputError(f"{idle} has no meaning without {needed}; add that, or leave it out")
    if remove and not (runs or model or dataset or state):
        raise InputError("--remove needs a selection: give names, patterns, --model, --dataset or --state")
    if remove and (there := [word for word in runs if word.startswith("hf://")]):
        raise InputError(f"--remove {there[0]}: only runs on this machine can be removed")
    say_last(runs)
    order = "given" if compare and runs else sort
    try:
        chosen = zoo.runs(
            *runs,
            model=model,
            dataset=dataset,
            state=state,  # type: ignore[arg-type]  # click has checked it
            best=best,
            sort=order,  # type: ignore[arg-type]
            reporter=Terminal(),
        )
    except UnknownNameError as error:
        if as_json and error.kind.startswith("run with"):
            table.emit_json([])
        raise
    if compare:
        return _compare(chosen, everything, as_json)
    if remove:
        return _remove(chosen, yes)
    _list(chosen, as_json)


def _list(chosen: zoo.Runs, as_json: bool) -> None:
    rows = [run.row for run in chosen]
    if as_json:
        return table.emit_json(rows)
    if not rows:
        return table.say(
            "no run is left by these options; `zoo runs` lists all"
            if chosen.of
            else "no runs; `zoo train MODEL --dataset NAME` creates one below runs/"
        )
    dropped = table.emit_table(COLUMNS, [_cells(row) for row in rows], table.width())
    if sys.stdout.isatty():
        if dropped:
            table.say(f"hint: a wider terminal or --json also shows: {', '.join(dropped)}")
        table.say(f"{plural(len(rows), 'run')}; next: zoo report   or: zoo plot {quote(rows[0]['name'])}")


def _cells(row: dict[str, Any]) -> list[str]:
    epochs = "/".join(str(n) for n in (row["epochs"], row["epochs_planned"]) if n is not None)
    return [
        row["name"],
        row["model"],
        row["dataset"],
        _score(row, ""),
        _score(row, "val_"),
        short(row["parameters"]) if row["parameters"] is not None else "-",
        epochs,
        _time(row["seconds"]),
        row["protocol"],
        str(row["seed"]),
        row["state"],
    ]


def _score(row: dict[str, Any], split: str) -> str:
    """Top-1, or mAP of a run on images with several labels."""
    several = row[f"{split}map"]
    return _percent(row[f"{split}top1"]) if several is None else f"mAP {several:.2%}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


# ---- comparing -------------------------------------------------------------------------------


def _compare(chosen: zoo.Runs, everything: bool, as_json: bool) -> None:
    rows = chosen.compare(everything=everything).rows
    names = [run.name for run in chosen]
    if as_json:
        told_apart = [{"group": r["group"], "key": r["key"], "values": {n: r[n] for n in names}} for r in rows]
        return table.emit_json(told_apart)
    columns = [Column("FACT"), *(Column(name, flexible=True) for name in names)]
    cells = [
        [f"{row['group']}.{row['key']}", *(told(row["group"], row["key"], row[name]) for name in names)] for row in rows
    ]
    table.emit_table(columns, cells, table.width())
    if not rows:
        table.say("no differences")


# ---- removing --------------------------------------------------------------------------------


def _remove(chosen: zoo.Runs, yes: bool) -> None:
    if not chosen:
        return table.say("no runs to remove")
    chosen.refuse_unremovable()
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(
                f"--remove would remove {plural(len(chosen), 'run')}; add --yes to confirm when not in a terminal"
            )
        for run in chosen:
            table.say(f"  {table.clean(str(run.folder))}   {run.size / 1e6:,.1f} MB, {run.state}")
        if not click.confirm(
            f"Remove {'this run' if len(chosen) == 1 else 'these ' + plural(len(chosen), 'run')}?", err=True
        ):
            return table.say("nothing was removed")
    for run in chosen:
        run.remove()
        print(run.folder)
