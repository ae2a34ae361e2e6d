"""`zoo predict`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from zoo.base.plain_json import json_text
from zoo.base.text import plural
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.run_argument import RunName
from zoo.errors import DataError, InputError

if TYPE_CHECKING:
    from zoo.evaluate.classifier import Classifier
    from zoo.predict.inputs import Given
    from zoo.predict.stream import Predicted

METHODS = (*("auto", "hires-cam", "grad-cam", "layer-integrated-gradients", "integrated-gradients"), "occlusion")


@click.command()
@click.argument("run", type=RunName())
@click.argument("images", nargs=-1, type=click.Path())
@click.option(
    "--files-from",
    type=click.Path(),
    metavar="FILE",
    help="Also classify the images whose paths FILE lists, one a line; - is stdin.",
)
@click.option("-0", "--null", is_flag=True, help="The paths of --files-from end with a zero byte.")
@click.option("-k", "--top", type=click.IntRange(min=1), default=3, show_default=True, help="Number of classes shown.")
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
    explain_method: str,
    as_json: bool,
) -> None:
    """Print the top classes of IMAGES by the model of RUN.

    RUN is a run folder, a package, the name of a run below runs/, `last` for the newest one there, or
    hf://OWNER/NAME[@REVISION]. An image is a file, a folder (all images below it), a pattern in quotes, or -
    for the bytes of one image on stdin.

    Examples:

    \b
      zoo predict runs/resnet18-cifar10-20261121-120000 cat.jpg dog.png
      zoo predict hf://me/hybrid-digits photos/ 'more/**/*.png' --json
      zoo predict RUN - < cat.jpg
      find . -name '*.jpg' -print0 | zoo predict RUN --files-from - -0
      zoo predict RUN cat.jpg --explain pictures
    """
    if not images and files_from is None:
        raise InputError("no images given: name files, folders, patterns or -, or give --files-from FILE")
    if files_from == "-" and "-" in images:
        raise InputError("stdin is either one image (-) or a list of paths (--files-from -), not both")
    if explain is not None and find_spec("captum") is None:  # said before torch takes its seconds
        from zoo.base.install import install_line

        raise InputError(f"--explain needs captum: {install_line('explain')}")
    from zoo.catalogue.registry import load_registry
    from zoo.evaluate.classifier import open_classifier
    from zoo.hub.download import local_folder
    from zoo.predict.stream import predict as classify

    draw = _pictures(explain, explain_method)
    registry = load_registry()
    classifier = open_classifier(local_folder(run, registry=registry), registry, device=device)
    failed = count = 0
    for predicted in classify(
        classifier, _given(images, files_from, null), batch_size=batch_size, threads=threads or 0
    ):
        count += 1
        if isinstance(predicted, DataError):
            failed += 1
            print(f"error: {predicted}", file=sys.stderr)
            continue
        _show(classifier, predicted, top, draw(classifier, predicted) if draw else None, as_json)
    if failed:
        raise DataError(f"{failed} of {plural(count, 'image')} could not be read")


def _given(images: tuple[str, ...], files_from: str | None, null: bool) -> Iterator[Given | DataError]:
    from zoo.predict.inputs import given_images, listed_paths

    stdin = sys.stdin.buffer
    yield from given_images(images, stdin)
    if files_from is None:
        return
    with _opened(files_from, stdin) as stream:
        for path in listed_paths(stream, null=null):
            yield from given_images([f"./{path}" if path == "-" else path], stdin)


def _opened(files_from: str, stdin: BinaryIO) -> BinaryIO:
    if files_from == "-":
        return stdin
    try:
        return open(files_from, "rb")
    except OSError as error:
        raise InputError(f"--files-from {files_from}: cannot be read ({error.strerror})") from None


def _show(
    classifier: Classifier, predicted: Predicted, top: int, picture: dict[str, Any] | None, as_json: bool
) -> None:
    from zoo.cli.shared.table import clean, emit

    best = classifier.best(predicted.probabilities, top)
    if not as_json:
        where = f"  [{picture['method']}: {picture['picture']}]" if picture else ""
        emit([f"{clean(predicted.name)}: " + ", ".join(f"{clean(name)} {p:.1%}" for name, p in best) + clean(where)])
        return
    row: dict[str, Any] = {"image": predicted.name, "classes": [{"name": name, "probability": p} for name, p in best]}
    emit([json_text(row | ({"explained": picture} if picture else {}))])


def _pictures(folder: Path | None, method: str) -> Callable[[Classifier, Predicted], dict[str, Any]] | None:
    """What draws one image's picture into the folder, and says what was drawn."""
    if folder is None:
        return None
    from zoo.base.files import write_bytes
    from zoo.predict.saliency import Explainer, overlay

    explainers: list[Explainer] = []
    taken: set[str] = set()

    def draw(classifier: Classifier, predicted: Predicted) -> dict[str, Any]:
        if not explainers:
            explainers.append(Explainer(classifier, method))  # type: ignore[arg-type]
        target = int(predicted.probabilities.argmax())
        saliency = explainers[0].explain(predicted.pixels, target)
        path = folder / _free(predicted.name, folder, taken)
        told = {"class": classifier.classes[target], "method": saliency.method, "layer": saliency.layer}
        write_bytes(path, overlay(predicted.pixels, saliency, {"image": predicted.name, **told}))
        return {"picture": str(path), **told}

    return draw


def _free(name: str, folder: Path, taken: set[str]) -> str:
    """A picture's file name after its image's; images of one name are numbered, and earlier pictures are kept."""
    base = Path(name).stem[:200] if name != "-" else "stdin"
    number, chosen = 1, f"{base}.explained.png"
    while chosen in taken or (folder / chosen).exists():
        number += 1
        chosen = f"{base}-{number}.explained.png"
    taken.add(chosen)
    return chosen
