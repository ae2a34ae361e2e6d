"""`zoo embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import zoo
from zoo.base.text import plural
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.terminal import Terminal


@click.command()
@click.argument("run", type=RunName(weights=True))
@click.argument("images", nargs=-1, type=click.Path())
@click.option(
    "--on",
    metavar="SPEC",
    help="Embed all images of a dataset: a SPEC as for `zoo train --dataset`. Default: the run's own dataset.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="FILE.parquet or FILE.npy. Default for datasets: a Parquet file in the cache.",
)
@click.option(
    "--layer", metavar="NAME", help="Module of the model whose output is taken. Default: what the last layer takes."
)
@click.option("--files-from", type=click.Path(), metavar="FILE", help="Also embed the images whose paths FILE lists.")
@click.option("-0", "--null", is_flag=True, help="The paths of --files-from end with a zero byte.")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, with a warning for each.")
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Images computed at once."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Threads that decode images.  [default: the number of CPUs, at most 4]",
)
@click.option(
    "--dataset", metavar="SPEC", help="Where the run's own dataset is on this machine, if not at the recorded path."
)
@options.data_dir
@options.device_or_cpu
@options.quiet
def embed(run: str, images: tuple[str, ...], quiet: bool, **asked: Any) -> None:
    """Write the features of IMAGES, or of all images of a dataset, by the model of RUN to a file.

    The features are what the last layer of the model takes, or the output of --layer. A row of the file has the image's
    path, its split and its label where it is of a dataset, and the vector. A command that was killed goes on
    where it stopped when it is given again. The path of the file is printed.

    RUN and IMAGES are named as for `zoo predict`.

    Examples:

    \b
      zoo embed last --output digits.parquet
      zoo embed speedrun-94@cifar10 --on folder:photos --output photos.parquet
      zoo embed timm/resnet18.a1_in1k photos 'more/**/*.png' --output photos.npy
      zoo embed RUN --on digits --layer body --output body.parquet
    """
    found = zoo.embed(run, images, reporter=Terminal(quiet=quiet), **asked)
    if not quiet:
        done = "" if found.computed else ", which were there already"
        table.say(f"{plural(len(found), 'image')}: {found.feature}, {plural(found.width, 'number')} each{done}")
    print(found.path)
