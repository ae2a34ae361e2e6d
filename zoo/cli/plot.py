"""`zoo plot`: curves of runs as a picture; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

import zoo
from zoo.cli.shared.run_argument import RunNames, say_last
from zoo.cli.shared.terminal import Terminal


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RunNames())
@click.option(
    "--output",
    "--out",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("curves.png"),
    show_default=True,
    metavar="FILE",
    help="The picture: .png, .svg or .pdf.",
)
@click.option(
    "--what",
    default="both",
    show_default=True,
    metavar="PANELS",
    help="Panels: loss, top1, lr (the learning rate) with commas between; both (loss,top1) or all.",
)
@click.option(
    "--over",
    type=click.Choice(["epoch", "minutes"]),
    default="epoch",
    show_default=True,
    help="The x axis; minutes: time of training.",
)
@click.option("--log", is_flag=True, help="Draw the loss on a logarithmic axis.")
@click.option(
    "--dpi",
    type=click.IntRange(20, 1200),
    default=150,
    show_default=True,
    help="Resolution of a PNG, in dots per inch.",
)
def plot(runs: tuple[str, ...], out: Path, what: str, over: Literal["epoch", "minutes"], log: bool, dpi: int) -> None:
    """Draw the curves of RUNS (folders, names or patterns below runs/, `last`, hf://OWNER/NAME) into one picture.

    Training curves are dashed; validation curves are solid; under the protocol paper, test curves take
    their place. Each run has its own colour; colour-blind people can tell the colours apart.

    Examples:

    \b
      zoo plot runs/resnet18-cifar10-20261121-120000
      zoo plot runs/resnet18-cifar10-20261121-120000 --what all
      zoo plot 'vit-*' resnet18 --what top1 --over minutes --output two.svg
    """
    say_last(runs)
    zoo.plot(*runs, output=out, what=what, over=over, log=log, dpi=dpi, reporter=Terminal())
    print(out)
