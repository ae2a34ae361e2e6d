"""`zoo eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from zoo.cli.shared import options
from zoo.errors import InputError

WHAT = ("classes", "confusion", "calibration", "latency", "robustness")
OF_A_FOLDER = ("classes", "confusion", "calibration")


def _parts(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    words = tuple(word.strip() for word in (value or "").split(",") if word.strip())
    wrong = [word for word in words if word not in (*WHAT, "all")]
    if wrong or (value is not None and not words):
        raise InputError(
            f"--what {value!r}: nothing named {(wrong or [''])[0]!r}; allowed: {', '.join(WHAT)}, all"
        )
    return WHAT if "all" in words else words


def _severities(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    words = [word.strip() for word in value.split(",")]
    if any(word not in ("1", "2", "3", "4", "5") for word in words):
        raise InputError(f"--severities {value!r}: give some of 1,2,3,4,5 with commas between")
    return tuple(sorted({int(word) for word in words}))


@click.command()
@click.argument("run")
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train"]),
    default="test",
    show_default=True,
    help="Of the run; with --on: test or train.",
)
@click.option(
    "--what", callback=_parts, metavar="PARTS", help=f"More than accuracy: {', '.join(WHAT)}; or all."
)
@click.option(
    "--compare", "other", metavar="RUN2", help="Compare with RUN2 on the same images, by a paired test."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help=f"Write eval.json, predictions and pictures there; --what is then {','.join(OF_A_FOLDER)}.",
)
@click.option(
    "--predictions",
    type=click.Choice(["csv", "parquet", "none"]),
    default="csv",
    show_default=True,
    help="Format of the predictions in FOLDER.",
)
@click.option(
    "--corruptions",
    default="common",
    show_default=True,
    metavar="NAMES",
    help="Of robustness: names or groups.",
)
@click.option(
    "--severities", default="1,2,3,4,5", show_default=True, callback=_severities, help="Of robustness."
)
@click.option(
    "--images",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Of robustness: how many, a stratified subset; 0: all.",
)
@click.option(
    "--workers", type=click.IntRange(min=0), help="Of robustness: processes. Default: by the cores."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Of latency, beside 1."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="For each latency.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of corruptions and bootstrap."
)
@click.option(
    "--dataset", metavar="SPEC", help="Where the same images are here, if not at the recorded place."
)
@click.option(
    "--on",
    metavar="SPEC",
    help="Other images, as `zoo train --dataset` takes them, with the run's classes or some of them.",
)
@options.data_dir
@click.option("--device", default=None, help="Default: the device of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def evaluate(run: str, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Evaluate RUN: the recorded test accuracy, measured again; with --what, --compare, --output more.

    RUN is a run folder, a package, or hf://OWNER/NAME[@REVISION].

    Examples:

    \b
      zoo eval runs/hybrid-alt-1-digits-20261121-120000
      zoo eval hf://me/hybrid-digits
      zoo eval RUN --what classes,calibration --split val
      zoo eval RUN --compare RUN2 --output evaluation
      zoo eval RUN --on folder:new-photos
      zoo eval RUN --what robustness --severities 1,3,5 --json
    """
    from zoo.cli.assessed import assessed, emit_accuracy, settle

    out = assessed(run, quiet=quiet, **asked)
    recorded = out.pop("recorded")
    if as_json:
        print(json.dumps(out))
    else:
        emit_accuracy(out)
    settle(run, out, recorded)
