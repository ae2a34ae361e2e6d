"""`zoo eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import zoo
from zoo.base.plain_json import json_text
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import spare_words, table
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.terminal import Terminal
from zoo.errors import RunError

WHAT = "classes, confusion, calibration, latency, robustness"
OF_A_FOLDER = "classes,confusion,calibration"


@click.command(cls=spare_words.Command)
@click.argument("run", type=RunName(weights=True))
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train"]),
    default="test",
    show_default=True,
    help="Split of the run to measure; with --on: test or train.",
)
@click.option("--what", metavar="PARTS", help=f"Measure more than accuracy: {WHAT}; or all.")
@click.option(
    "--compare",
    "other",
    type=RunName(weights=True),
    metavar="RUN2",
    help="Compare with RUN2 on the same images, by a paired test.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help=f"Write eval.json, predictions and pictures there; the default of --what is then {OF_A_FOLDER}.",
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
    help="Corruptions for robustness: names or groups.",
)
@click.option("--severities", default="1,2,3,4,5", show_default=True, help="Severities for robustness.")
@click.option(
    "--images",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Test images used for robustness, a stratified subset (0: all).",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that corrupt images for robustness. Default: by the number of cores.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Batch size for `--what latency`, which also measures batches of 1.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="How long each latency is measured.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed for corruptions and the bootstrap."
)
@click.option(
    "--dataset", metavar="SPEC", help="Where the run's own dataset is on this machine, if not at the recorded path."
)
@click.option(
    "--on",
    metavar="SPEC",
    help="Measure on other images: a SPEC as for `zoo train --dataset`, with the run's classes or some of them.",
)
@options.data_dir
@click.option("--device", default=None, help="Device to measure on. Default: the device of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@options.quiet
def evaluate(run: str, other: str | None, what: str | None, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Measure the test accuracy of RUN again, and compare it with the recorded one.

    --what measures more than accuracy, --compare compares with a second run, --output writes files.

    RUN is a run folder, a package, the name of a run below runs/, `last` for the newest one there,
    hf://OWNER/NAME[@REVISION], weights of the catalogue (NAME@DATASET), or, with --on, weights of a library
    (timm/NAME.TAG, torchvision/NAME.WEIGHTS) or a FILE.onnx that `zoo export` wrote.

    Examples:

    \b
      zoo eval runs/hybrid-alt-1-digits-20261121-120000
      zoo eval last
      zoo eval hf://me/hybrid-digits
      zoo eval RUN --what classes,calibration --split val
      zoo eval RUN --compare RUN2 --output evaluation
      zoo eval RUN --on folder:new-photos
      zoo eval timm/resnet18.a1_in1k --on folder:imagenet/val
      zoo eval RUN --what robustness --severities 1,3,5 --json
    """
    from zoo.cli.shared.evaluation_tables import emit_accuracy

    later = Later(quiet=quiet)
    asked |= {"what": () if what is None else what, "reporter": later}
    found = zoo.evaluate(run, **asked) if other is None else zoo.compare(run, other, **asked)
    if as_json:
        print(json_text(found.as_dict()))
    else:
        emit_accuracy(found.as_dict(), found.num_classes)
    later.tell(but=found.verdict if found.same_as_recorded is False else None)
    if found.same_as_recorded is False:
        raise RunError(found.verdict)


class Later(Terminal):
    """Keeps what is said until the results are printed; shows the progress: a bar, or a line for each corruption."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.hints: list[str] = []
        self.warnings: list[str] = []

    def say(self, line: str) -> None:
        """Keep a hint."""
        self.hints.append(line)

    def warn(self, line: str) -> None:
        """Keep a warning."""
        self.warnings.append(line)

    def note(self, line: str) -> None:
        """Print which corruption comes, where there is no bar."""
        if not (self.quiet or self.bar.live):
            table.say(line)

    def tell(self, *, but: str | None) -> None:
        """Print what was said, without the warning that becomes the error of the command."""
        for line in self.hints:
            super().say(line)
        for line in self.warnings:
            if line != but:
                super().warn(line)
