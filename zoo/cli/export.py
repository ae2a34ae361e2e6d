"""`zoo export`: a trained model as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.shared import table
from zoo.cli.shared.run_argument import chosen_run, complete
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.evaluate.classifier import Classifier
    from zoo.export.write import Exported, Format

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
    type=click.Choice(["onnx", "torch"]),
    default="onnx",
    show_default=True,
    help="Write ONNX, or a program of torch.export.",
)
@click.option(
    "--output",
    type=FILE,
    metavar="FILE",
    help="File to write. Default: RUN/model.onnx (.pt2); for a package, MODEL.onnx in the current folder.",
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
    form: Format,
    output: Path | None,
    opset: int | None,
    batch: int | None,
    preprocessing: bool,
    check: bool,
    tolerance: float,
    untrained: bool,
    num_classes: int | None,
    image_size: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Export the model of RUN to one file, run it, and compare its logits with torch's.

    RUN is a run folder, a package, the name of a run below runs/, `last` for the newest one there, or
    hf://OWNER/NAME[@REVISION]; with --untrained, a model's name.
    The metadata `zoo.input` and `zoo.classes` of the file describe its input and classes (in a .pt2 file: zoo.json).
    ONNX needs the extra `export`; where it is missing, a message says how to install it.

    Examples:

    \b
      zoo export runs/hybrid-alt-1-digits-20261121-120000
      zoo export hf://me/hybrid-digits --with-preprocessing --output digits.onnx
      zoo export resnet18 --untrained --image-size 64 --batch 1
      zoo export runs/a --format torch

    Then, for a file with preprocessing:

    \b
      import numpy as np, onnxruntime as ort
      from PIL import Image
      session = ort.InferenceSession("digits.onnx")
      image = Image.open("digit.png").convert("RGB").resize((8, 8))
      pixels = np.asarray(image)[None]
      logits = session.run(None, {"pixels": pixels})[0]
    """
    from zoo.export import write

    if not untrained and (num_classes or image_size or seed):
        raise click.UsageError("--num-classes, --image-size and --seed need --untrained")
    placeholder = output or Path(f"model{write.suffix(form)}")
    write.check_options(placeholder, form, opset, batch)  # before anything is built
    if untrained:
        classifier, origin = _untrained(run, num_classes=num_classes, image_size=image_size, seed=seed)
        place = output or _place(classifier.name, None, form)
    else:
        classifier, origin, folder = _trained(run)
        place = output or _place(classifier.name, folder, form)
    asked: dict[str, Any] = {"format": form, "opset": opset, "batch": batch, "preprocessing": preprocessing}
    done = write.export(classifier, place, origin=origin, check=check, tolerance=tolerance, **asked)
    _say(classifier, done)
    if as_json:
        table.emit_json(_row(classifier, done, form))
    else:
        print(done.path)


def _untrained(
    model: str, *, num_classes: int | None, image_size: int | None, seed: int
) -> tuple[Classifier, dict[str, str]]:
    """A model of the catalogue, and where its weights come from."""
    from zoo.catalogue.registry import find_model
    from zoo.evaluate.classifier import untrained_classifier

    classifier = untrained_classifier(*find_model(model), num_classes=num_classes, image_size=image_size, seed=seed)
    return classifier, {"weights": f"untrained, seed {seed}"}


def _trained(run: str) -> tuple[Classifier, dict[str, str], Path | None]:
    """The model of a run, where its weights come from, and the run's folder (None: it lies on the Hub)."""
    from zoo.catalogue.registry import load_registry
    from zoo.evaluate.classifier import open_classifier
    from zoo.export.facts import origin_of
    from zoo.hub.download import local_folder
    from zoo.hub.ref import is_ref
    from zoo.runs.record import read_record
    from zoo.runs.which import known

    registry = load_registry()
    if not is_ref(run) and known(run) is None and run in registry.models:
        raise InputError(f"{run!r} is a model, not a run; zoo export {run} --untrained takes its initial weights")
    folder = local_folder(chosen_run(run), registry=registry)
    record = read_record(folder)
    classifier = open_classifier(folder, registry, record=record)
    return classifier, origin_of(folder, record), None if is_ref(run) else folder


def _place(name: str, folder: Path | None, form: Format) -> Path:
    """Inside a run folder; a package and the Hub's cache hold what their hashes list, and nothing more."""
    from zoo.export.write import suffix
    from zoo.hub.sums import SUMS

    if folder is None or (folder / SUMS).is_file():
        return Path(f"{name.replace('/', '-').split('#')[-1]}{suffix(form)}")
    return folder / f"model{suffix(form)}"


def _say(classifier: Classifier, done: Exported) -> None:
    kind = f"opset {done.opset}" if done.opset else "torch.export"
    table.say(
        f"{table.clean(classifier.name)}: {classifier.parameter_count:,} parameters, {kind}, {done.bytes:,} bytes"
    )
    table.say(f"takes {done.usage}")
    agreement = done.agreement
    if agreement is None:
        table.say("not checked against torch (--no-check)")
        return
    batches = ", ".join(map(str, agreement.batches))
    table.say(
        f"differs from torch by {agreement.largest:.1e} at most, the largest logit being {agreement.scale:.3g} "
        f"(random images, batches of {batches})"
    )
    if agreement.spread == 0 and agreement.images > 1:
        table.say("warning: the model gives every image the same logits; that they agree says little")


def _row(classifier: Classifier, done: Exported, form: Format) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "path": str(done.path),
        "files": [str(path) for path in done.files],
        "format": form,
        "model": classifier.name,
        "parameters": classifier.parameter_count,
        "bytes": done.bytes,
        "opset": done.opset,
        "agreement": asdict(done.agreement) if done.agreement else None,
        "metadata": done.metadata,
    }
