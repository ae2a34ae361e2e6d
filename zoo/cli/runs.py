"""`zoo runs`: lists, filters, compares and removes run folders; nothing here imports torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.base.text import plural
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunNames, found_runs
from zoo.cli.shared.table import Column
from zoo.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from zoo.runs.find import Run

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
@click.option("--best", is_flag=True, help="Only the best run of each model, dataset and protocol.")
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
    from zoo.runs.find import best_of_each

    if remove and not (runs or model or dataset or state):
        raise InputError("--remove needs a selection: give names, patterns, --model, --dataset or --state")
    if remove and (there := [word for word in runs if word.startswith("hf://")]):
        raise InputError(f"--remove {there[0]}: only runs on this machine can be removed")
    all_runs = found_runs(runs)
    for option, pattern, values in (
        ("model", model, {run.record.model for run in all_runs}),
        ("dataset", dataset, {run.record.data.spec for run in all_runs}),
    ):
        _check_known(option, pattern, values, as_json)
    chosen = [
        run
        for run in all_runs
        if _matches(run.record.model, model) and _matches(run.record.data.spec, dataset) and state in (None, run.state)
    ]
    chosen = best_of_each(chosen) if best else chosen
    chosen = sorted(chosen, key=_order(sort)) if not (compare and runs) else _as_given(chosen, runs)
    if compare:
        return _compare(chosen, everything, as_json)
    if remove:
        return _remove(chosen, yes)
    _list(chosen, as_json, bool(all_runs))


def _matches(value: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    glob = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return not pattern or fnmatchcase(value, glob)


def _check_known(option: str, pattern: str, values: set[str], as_json: bool) -> None:
    """Refuse a model or a dataset that neither a run has nor the catalogue.

    Raises:
        UnknownNameError: names those that runs have.
    """
    from zoo.catalogue.registry import load_registry

    if not pattern or any(_matches(value, pattern) for value in values):
        return
    registry = load_registry()
    if any(_matches(name, pattern) for name in (registry.models if option == "model" else registry.datasets)):
        return
    if as_json:
        table.emit_json([])
    hint = "" if values else "there are no runs; `zoo train MODEL --dataset NAME` creates one below runs/"
    raise UnknownNameError(f"run with the {option}", pattern, values, hint)


def _order(sort: str) -> Callable[[Run], Any]:
    """Sort key: text from a to z, top-1 and dates from the largest, other numbers from the smallest, unknown last."""
    from zoo.runs.find import row_of

    def key(run: Run) -> tuple[bool, Any, str]:
        value = row_of(run)[sort]
        if value is not None and sort in ("top1", "modified"):
            value = -value
        return value is None, 0 if value is None else value, run.name

    return key


def _as_given(chosen: Sequence[Run], words: Sequence[str]) -> list[Run]:
    """The runs in the order of the arguments: `--compare A B` shows A first."""
    places = [str(Path(word)) for word in words]

    def place(run: Run) -> int:
        names = (str(run.folder), run.name)
        return next((i for i, word in enumerate(places) if word in names), len(places))

    return sorted(chosen, key=place)


def _list(chosen: Sequence[Run], as_json: bool, some: bool) -> None:
    from zoo.runs.find import row_of

    rows = [row_of(run) for run in chosen]
    if as_json:
        return table.emit_json(rows)
    if not rows:
        return table.say(
            "no run is left by these options; `zoo runs` lists all"
            if some
            else "no runs; `zoo train MODEL --dataset NAME` creates one below runs/"
        )
    dropped = table.emit_table(COLUMNS, [_cells(row) for row in rows], table.width())
    if sys.stdout.isatty():
        if dropped:
            table.say(f"hint: a wider terminal or --json also shows: {', '.join(dropped)}")
        table.say(f"{plural(len(rows), 'run')}; next: zoo report   or: zoo plot {rows[0]['name']}")


def _cells(row: dict[str, Any]) -> list[str]:
    from zoo.runs.find import short

    epochs = f"{row['epochs']}/{row['epochs_planned']}"
    return [
        row["name"],
        row["model"],
        row["dataset"],
        _percent(row["top1"]),
        _percent(row["val_top1"]),
        short(row["parameters"]) if row["parameters"] is not None else "-",
        epochs,
        _time(row["seconds"]),
        row["protocol"],
        str(row["seed"]),
        row["state"],
    ]


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


def _compare(chosen: Sequence[Run], everything: bool, as_json: bool) -> None:
    from zoo.runs.compare import differences, told

    if len(chosen) < 2:
        raise InputError(f"--compare needs at least two runs, {len(chosen)} given: zoo runs --compare A B")
    rows = differences(chosen, everything=everything)
    if as_json:
        return table.emit_json(
            [
                {"group": group, "key": key, "values": dict(zip([r.name for r in chosen], values, strict=True))}
                for group, key, values in rows
            ]
        )
    columns = [Column("FACT"), *(Column(run.name, flexible=True) for run in chosen)]
    cells = [[f"{group}.{key}", *(told(group, key, value) for value in values)] for group, key, values in rows]
    table.emit_table(columns, cells, table.width())
    if not rows:
        table.say("no differences")


# ---- removing --------------------------------------------------------------------------------


def _remove(chosen: Sequence[Run], yes: bool) -> None:
    from zoo.runs.remove import check_removable, remove, size

    if not chosen:
        return table.say("no runs to remove")
    for run in chosen:
        check_removable(run.folder)
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(
                f"--remove would remove {plural(len(chosen), 'run')}; add --yes to confirm when not in a terminal"
            )
        for run in chosen:
            table.say(f"  {table.clean(str(run.folder))}   {size(run.folder) / 1e6:,.1f} MB, {run.state}")
        if not click.confirm(
            f"Remove {'this run' if len(chosen) == 1 else 'these ' + plural(len(chosen), 'run')}?", err=True
        ):
            return table.say("nothing was removed")
    for run in chosen:
        remove(run.folder)
        print(run.folder)
