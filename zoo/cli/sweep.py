"""`zoo sweep`: searches for better recipe settings."""

from __future__ import annotations

import sys
from typing import Any

import click

import zoo
from zoo.cli.shared import click_from_fields, spare_words
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import emit, emit_json, say
from zoo.cli.shared.terminal import Terminal


@click.command(cls=spare_words.Command)
@click.argument("model", metavar="NAME")
@click.option(
    "--grid", multiple=True, metavar="KEY=A,B,C", help="Try each of these values: lr=1e-3,3e-4. May be repeated."
)
@click.option(
    "--sample",
    multiple=True,
    metavar="KEY=[log:]LOW..HIGH",
    help="Draw values from a range: lr=log:1e-4..1e-2. May be repeated.",
)
@click.option(
    "--trials", type=click.IntRange(min=1), help="Total number of trials; default: the whole grid, or 20 with --sample."
)
@click.option("--prune", is_flag=True, help="Stop trials early that are worse than the median of the others.")
@options.at_once("Number of trials to run at the same time.")
@click.option(
    "--storage",
    metavar="PATH",
    help="Storage of the trials: PATH.db (SQLite), another PATH (a journal), or a database URL.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Folder of the sweep; default: runs/sweep/NAME-DATASET.",
)
@click_from_fields.of_a_run(
    lambda option: option.sweep,
    recipe={"help": "Name of the recipe to start from, or `best`; default: the model's own."},
    settings={"help": "Override a key of the recipe in all trials. May be repeated."},
    seed={"help": "Seed for training, and for drawing the values to try."},
)
@options.checkpoint_seconds
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON on stdout.")
@options.quiet
def sweep(model: str, as_json: bool, quiet: bool, **option_values: Any) -> None:
    """Search for better recipe settings for the model NAME, by validation accuracy; test images are not used.

    A KEY is one of: a setting of the recipe (lr, or recipe.lr); an argument in the model's tree (build.depth);
    `recipe` or `model`, whose values are names.

    Repeating the command continues an interrupted sweep. The best trial is printed on stdout, as tables for
    a registry.toml.

    Examples:

    \b
      zoo sweep cnn-baseline --grid lr=1e-3,3e-3 --grid batch_size=64,128
      zoo sweep hybrid-alt-1 --sample lr=log:1e-4..1e-2 --trials 20 --prune
      zoo sweep vit-cifar --grid build.depth=4,6 --sample lr=1e-4..1e-3 --jobs 2
    """
    with StopRequests() as stop:
        found = zoo.sweep(model, reporter=Terminal(quiet=quiet), stop=stop.between_steps, **option_values)
    if found.stopped:
        say(f"stopped; repeat the command to continue (the trials are in {found.folder})")
        sys.exit(128 + stop.stopping)
    show(found, as_json)
    if found.problems and not found.finished:
        wanted = found.as_dict()["sweep"]["trials"]
        say(f"{len(found.trials)} of {wanted} trials are done; repeat the command to continue")
        sys.exit(1)


def show(found: zoo.Sweep, as_json: bool) -> None:
    """Print what mattered, and the best trial: as TOML, or all results as JSON."""
    for key, share in found.importance.items():
        say(f"{key} explains {share:.0%} of the variance of validation top-1")
    for path in found.figures:
        say(f"figure: {path}")
    if best := found.best:
        count = len(found.trials)
        say(f"best of {count} trials: {best['folder']}, validation top-1 {best['top1']:.2%}; for your registry.toml:")
    if as_json:
        emit_json(found.as_dict())
    else:
        emit(found.to_toml().splitlines())
