"""`zoo report`: runs and published results as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import zoo
from zoo.base.text import plural
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.messages import say_problems
from zoo.cli.shared.run_argument import RunNames
from zoo.cli.shared.terminal import Terminal

TITLE = "hybrid-zoo: runs and results"


@click.command()
@click.argument("runs", nargs=-1, type=RunNames())
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="Where the page is written.",
)
@click.option(
    "--images",
    type=click.IntRange(0, 48),
    default=12,
    show_default=True,
    metavar="N",
    help="Number of images shown for each run: those misclassified with the highest confidence.",
)
@click.option(
    "--no-data",
    is_flag=True,
    help="Use only what the run folders record: no confusion matrix, no per-class results, no images. This is quick.",
)
@click.option(
    "--catalogue",
    type=click.Choice(["related", "all", "none"]),
    default="related",
    show_default=True,
    help="Published results to show. related: those for the runs' models and datasets; all; none.",
)
@click.option("--title", default=TITLE, show_default=True, help="Title of the page.")
@click.option("--stamp", is_flag=True, help="Print the date; without it the same runs give the same page.")
@options.data_dir
@click.option("--device", help="Device on which test images are measured; default: the device of each run.")
@options.quiet
def report(runs: tuple[str, ...], no_data: bool, quiet: bool, **option_values: Any) -> None:
    """Write one HTML page, readable offline, that shows RUNS beside published results.

    RUNS are run folders, folders that hold runs, names or patterns below runs/, `last`, or hf://OWNER/NAME;
    default: all below runs/. The confusion matrix is measured if the test images are on this machine
    (nothing is downloaded), and is kept in the cache.

    Examples:

    \b
      zoo report
      zoo report 'resnet18-*' --images 24 --output resnets.html
      zoo report runs/a runs/b --no-data
    """
    page = zoo.report(*runs, data=not no_data, reporter=Terminal(quiet=quiet), **option_values)
    if not quiet:
        say_problems([f"{name}: not measured: {why}" for name, why in page.unmeasured.items()])
        told = f"{plural(len(page.runs), 'run')}, {plural(page.results, 'result')} of the catalogue"
        table.say(f"{told}, {page.size / 1e6:.2f} MB")
    print(page.path)
