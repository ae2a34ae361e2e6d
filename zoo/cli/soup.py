"""`zoo soup`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

import zoo
from zoo.base.headline import test_score
from zoo.base.plain_json import json_text
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.terminal import Terminal


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RunName())
@click.option(
    "--method",
    type=click.Choice(["greedy", "uniform", "ensemble"]),
    default="greedy",
    show_default=True,
    help="greedy: average each run that does not make validation worse, from the best on; uniform: average all; "
    "ensemble: keep all, and average their probabilities.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the new run. Default: a new one below runs/.",
)
@options.data_dir
@click.option("--device", default=None, help="Device to measure on. Default: the device of the first run.")
@click.option("--json", "as_json", is_flag=True, help="Print the new run's result as JSON on stdout.")
@options.quiet
def soup(
    runs: tuple[str, ...],
    method: Literal["greedy", "uniform", "ensemble"],
    as_json: bool,
    quiet: bool,
    **option_values: Any,
) -> None:
    """Average the weights of RUNS into one run: a model soup. Or make one run of them that answers together.

    It helps runs that were fine-tuned from the same weights, and costs no more to use than one of them. The runs must
    have the same composition, images, classes and transform. The result is a run like any other.

    Examples:

    \b
      zoo soup runs/a runs/b runs/c
      zoo soup runs/a runs/b --method uniform --output runs/soup
      zoo soup runs/a runs/b --method ensemble
    """
    made = zoo.soup(*runs, method=method, reporter=Terminal(quiet=quiet), **option_values)
    result = made.result or {}
    if as_json:
        print(json_text({"folder": str(made.folder), **result}))
    else:
        print(made.folder)
    if not quiet:
        table.say(f"{result['selection']['rule']}{test_score(result)}")
