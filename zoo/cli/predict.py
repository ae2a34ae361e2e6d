"""`zoo predict`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

import zoo
from zoo.base.plain_json import json_text
from zoo.base.text import plural
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import clean, emit
from zoo.errors import DataError

METHODS = (*("auto", "hires-cam", "grad-cam", "layer-integrated-gradients", "integrated-gradients"), "occlusion")


@click.command()
@click.argument("run", type=RunName(weights=True))
@click.argument("images", nargs=-1, type=click.Path())
@click.option(
    "--files-from",
    type=click.Path(),
    metavar="FILE",
    help="Also classify the images whose paths FILE lists, one a line; - is stdin.",
)
@click.option("-0", "--null", is_flag=True, help="The paths of --files-from end with a zero byte.")
@click.option("-k", "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Number of classes shown.")
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Images classified at once."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Threads that decode images.  [default: the number of CPUs, at most 4]",
)
@options.device_or_cpu
@click.option(
    "--explain",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="For each image, write a picture that marks the regions which led the model to its top class.",
)
@click.option(
    "--explain-method",
    type=click.Choice(METHODS),
    metavar="METHOD",
    default="auto",
    show_default=True,
    help=f"Method: the one that suits the architecture ({METHODS[0]}), or {', '.join(METHODS[1:])}.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a table in place of the lines, FILE.csv or FILE.parquet: each image with its class and the probability "
    "of every class.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each image.")
def predict(
    run: str,
    images: tuple[str, ...],
    files_from: str | None,
    null: bool,
    top: int,
    batch_size: int,
    threads: int | None,
    device: str,
    explain: Path | None,
    explain_method: Any,  # click has checked it
    output: Path | None,
    as_json: bool,
) -> None:
    """Print the top classes of IMAGES by the model of RUN.

    RUN is a run folder, a package, the name of a run below runs/, `last` for the newest one there,
    hf://OWNER/NAME[@REVISION], weights of the catalogue (NAME@DATASET) or of a library (timm/NAME.TAG,
    torchvision/NAME.WEIGHTS), or a FILE.onnx that `zoo export` wrote. An image is a file, a folder (all images below
    it), a pattern in quotes, or - for the bytes of one image on stdin.

    Examples:

    \b
      zoo predict runs/resnet18-cifar10-20261121-120000 cat.jpg dog.png
      zoo predict speedrun-94@cifar10 cat.jpg
      zoo predict hf://me/hybrid-digits photos/ 'more/**/*.png' --json
      zoo predict torchvision/resnet50 cat.jpg
      zoo predict RUN - < cat.jpg
      find . -name '*.jpg' -print0 | zoo predict RUN --files-from - -0
      zoo predict RUN photos --output photos.csv
      zoo predict RUN cat.jpg --explain pictures
    """
    failed = count = 0
    silent = output is not None and not as_json
    with StopRequests() if silent else nullcontext():  # so that SIGTERM leaves no half of a table behind
        for found in zoo.predict(
            run,
            images,
            top=top,
            batch_size=batch_size,
            threads=threads,
            device=device,
            files_from=files_from,
            null=null,
            explain=explain,
            explain_method=explain_method,
            output=output,
            stream=True,
        ):
            count += 1
            if isinstance(found, DataError):
                failed += 1
                print(f"error: {found}", file=sys.stderr)
            elif not silent:
                emit([json_text(found.as_dict()) if as_json else _line(found)])
    if silent and (failed < count or not count):
        print(output)
    if failed:
        raise DataError(f"{failed} of {plural(count, 'image')} could not be read")


def _line(found: zoo.Prediction) -> str:
    drawn = found.explanation
    where = f"  [{drawn.method}: {drawn.picture}]" if drawn else ""
    return f"{clean(found.image)}: {clean(found.words)}" + clean(where)
