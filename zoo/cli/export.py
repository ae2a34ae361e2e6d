"""`zoo export`: a trained model as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import zoo
from zoo.base.text import plural
from zoo.cli.shared import table
from zoo.cli.shared.format_option import Format
from zoo.cli.shared.run_argument import chosen_run, complete

FILE = click.Path(path_type=Path, dir_okay=True)


class Batch(click.ParamType):
    """A number of images, or any."""

    name = "N|dynamic"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """None where any number is meant."""
        if value in (None, "dynamic"):
            return None
        if isinstance(value, int):
            return value
        if not value.isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is no number of images; give 1 or more, or dynamic", param, ctx)
        return int(value)


@click.command("export")
@click.argument("run", shell_complete=complete)
@click.option(
    "--format",
    "form",
    type=Format(),
    default="onnx",
    show_default=True,
    help="Write ONNX, a program of torch.export, or a format of a plugin.",
)
@click.option(
    "--output",
    type=FILE,
    metavar="FILE",
    help="File to write. Default: RUN/model.onnx (.pt2, ...); for a package, MODEL.onnx in the current folder.",
)
@click.option("--opset", type=int, metavar="N", help="ONNX opset. Default: torch's own.")
@click.option(
    "--batch",
    type=Batch(),
    metavar="N|dynamic",
    default="dynamic",
    show_default=True,
    help="Images in each call: a fixed number, or any number.",
)
@click.option(
    "--with-preprocessing",
    "preprocessing",
    is_flag=True,
    help="Let the file take uint8 (batch, height, width, 3) and normalise inside.",
)
@click.option(
    "--check/--no-check", default=True, show_default=True, help="Run the file and compare its logits with the module's."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-4,
    show_default=True,
    help="Largest allowed difference between logits (multiplied by the largest logit, if that is over 1).",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Write integers of 8 bits, calibrated on training images, and measure top-1 beside fp32's on the test images.",
)
@click.option(
    "--calibration",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    metavar="N",
    help="With --int8: number of training images to calibrate on.",
)
@click.option(
    "--tolerance-top1",
    type=click.FloatRange(min=0, max=1),
    default=0.01,
    show_default=True,
    help="With --int8: largest allowed loss of top-1 accuracy, as a fraction.",
)
@click.option("--dataset", metavar="SPEC", help="With --int8: where the run's images are now.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="With --int8: folder of downloaded datasets.",
)
@click.option("--untrained", is_flag=True, help="RUN is a model of the catalogue; export it with initial weights.")
@click.option(
    "--num-classes", type=click.IntRange(min=1), help="With --untrained: number of classes, instead of its dataset's."
)
@click.option(
    "--image-size", type=click.IntRange(min=1), help="With --untrained: side of the images, instead of its dataset's."
)
@click.option("--seed", type=int, default=0, show_default=True, help="With --untrained: seed for the initial weights.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def export(
    run: str,
    form: str,
    output: Path | None,
    opset: int | None,
    batch: int | None,
    preprocessing: bool,
    check: bool,
    tolerance: float,
    int8: bool,
    calibration: int,
    tolerance_top1: float,
    dataset: str | None,
    data_dir: Path | None,
    untrained: bool,
    num_classes: int | None,
    image_size: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Export the model of RUN to one file, run it, and compare its logits with torch's.

    RUN is a run folder, a package, the name of a run below runs/, `last` for the newest one there,
    hf://OWNER/NAME[@REVISION], or weights of the catalogue (NAME@DATASET) or of a library (timm/NAME.TAG,
    torchvision/NAME.WEIGHTS); with --untrained, a model's name.
    The metadata `zoo.input` and `zoo.classes` of the file describe its input and classes (in a .pt2 file: zoo.json).
    ONNX needs the extra `export`, ExecuTorch the extra `executorch`; where one is missing, a message says how to
    install it.

    Examples:

    \b
      zoo export runs/hybrid-alt-1-digits-20261121-120000
      zoo export hf://me/hybrid-digits --with-preprocessing --output digits.onnx
      zoo export resnet18 --untrained --image-size 64 --batch 1
      zoo export runs/a --format torch
      zoo export runs/a --format executorch --with-preprocessing --batch 1
      zoo export runs/a --int8

    Then, for a file with preprocessing:

    \b
      import numpy as np, onnxruntime as ort
      from PIL import Image, ImageOps
      session = ort.InferenceSession("digits.onnx")
      upright = ImageOps.exif_transpose(Image.open("digit.png"))
      pixels = np.asarray(upright.convert("RGB").resize((8, 8)))[None]
      logits = session.run(None, {"pixels": pixels})[0]
    """
    done = zoo.export(
        chosen_run(run) if run == "last" and not untrained else run,  # which says what it means
        output,
        format=form,
        opset=opset,
        batch=batch,
        with_preprocessing=preprocessing,
        check=check,
        tolerance=tolerance,
        int8=int8,
        calibration=calibration,
        tolerance_top1=tolerance_top1,
        dataset=dataset,
        data_dir=data_dir,
        untrained=untrained,
        num_classes=num_classes,
        image_size=image_size,
        seed=seed,
    )
    _say(done)
    if as_json:
        table.emit_json(done.as_dict())
    else:
        print(done.path)


def _say(done: Any) -> None:
    what = f"{done.parameters:,} parameters, {table.clean(done.kind)}, {done.bytes:,} bytes"
    table.say(f"{table.clean(done.model)}: {what}")
    table.say(f"takes {done.usage}")
    if integers := done.quantized:
        table.say(
            f"int8: top-1 {integers.int8_top1:.2%}, in fp32 {integers.fp32_top1:.2%} (both by ONNX Runtime on the same "
            f"{plural(integers.images, 'test image')}, one view each); {done.bytes:,} bytes, in fp32 "
            f"{integers.fp32_bytes:,}"
        )
    agreement = done.agreement
    if agreement is None:
        table.say("not checked against torch (--no-check)")
        return
    batches = ", ".join(map(str, agreement.batches))
    about = "in fp32 it differs" if done.quantized else "differs"
    table.say(
        f"{about} from torch by {agreement.largest:.1e} at most, the largest logit being {agreement.scale:.3g} "
        f"(random images, batches of {batches})"
    )
    if agreement.spread == 0 and agreement.images > 1:
        table.say("warning: the model gives every image the same logits; that they agree says little")
