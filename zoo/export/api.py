"""The public call of this room: `zoo.export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo.base.checked_call import checked
from zoo.base.paths import local_path
from zoo.errors import InputError
from zoo.predict.api import check_within, classifier_of
from zoo.runs.api import RunLike, is_run_like, word_of

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry
    from zoo.evaluate.classifier import Classifier
    from zoo.export.int8 import Int8Images
    from zoo.export.write import Exported

Origin = dict[str, str]
"""Where weights come from, for the metadata of a file."""


USUAL_INT8 = (512, 0.01)
"""Images to calibrate on, and the top-1 that may be lost, unless it is said otherwise."""


@checked
def export(
    run: RunLike | Classifier,
    output: str | Path | None = None,
    *,
    format: str = "onnx",
    opset: int | None = None,
    batch: int | Literal["dynamic"] | None = None,
    with_preprocessing: bool = False,
    check: bool = True,
    tolerance: float = 1e-4,
    int8: bool = False,
    calibration: int = 512,
    tolerance_top1: float = 0.01,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    untrained: bool = False,
    num_classes: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> Exported:
    """Write a model to one file for other runtimes, run it, and compare its logits with torch's.

    Args:
        run: a run folder, a package, a name below runs/, "last", hf://OWNER/NAME[@REVISION], weights of
            the catalogue (NAME@DATASET) or a library ("timm/NAME.TAG", "torchvision/NAME.WEIGHTS"), a `Run`, or
            a loaded `Classifier` (of which a copy is exported); with `untrained`, a model's name.
        output: the file to write, .onnx, .pt2 or as a plugin's format has it; a file that is there is replaced.
            Default: RUN/model.onnx (.pt2); for what is no run folder, MODEL.onnx in the current folder.
        format: "onnx", which needs the extra "export"; "torch": a program of torch.export; or one of a plugin:
            "executorch", which needs the extra "executorch".
        opset: of ONNX; default: torch's own.
        batch: images in each call: a number, or any ("dynamic", or None).
        with_preprocessing: the file takes uint8 (B, H, W, 3) and normalises inside; else prepared float32 (B, 3, H, W).
        check: run the file over random images, and compare.
        tolerance: the largest difference of a logit that is allowed, times the largest logit where that is over 1.
        int8: write integers of 8 bits, calibrated on training images of the run, and measure top-1 on its test images.
        calibration: number of those training images.
        tolerance_top1: with `int8`: how much of its top-1 accuracy the file may lose, as a fraction.
        dataset, data_dir: with `int8`: where the run's images are now, as for `zoo.evaluate`.
        untrained: `run` is a model of the catalogue; export it with initial weights.
        num_classes, image_size: with `untrained`: instead of its dataset's; `image_size` in pixels.
        seed: with `untrained`: of the weights.
    Returns:
        What was written: its path, its size in bytes, and how far it differs from torch.
    Raises:
        InputError: a wrong option, no such run or model, or a library is missing; says how to install it.
        ExportError: the model cannot be exported, or the file does not agree: nothing is kept then.
        RunError, PackageError, HubError: the run cannot be used. WriteError: the file cannot be written.

    Example:
        >>> done = zoo.export("cnn-baseline", "model.pt2", format="torch", untrained=True)  # doctest: +SKIP
        >>> done.path, done.agreement.largest  # doctest: +SKIP
    """
    if not untrained and (num_classes or image_size or seed):
        raise InputError("--num-classes, --image-size and --seed need --untrained")
    check_within("num_classes", num_classes, 1)
    check_within("image_size", image_size, 1)
    if not tolerance > 0:
        raise InputError(f"tolerance {tolerance}: allowed: more than 0")
    _check_int8(int8, calibration, tolerance_top1, format, untrained)
    if not int8 and (dataset or data_dir):
        raise InputError("--dataset and --data-dir need --int8, which reads images")
    if not int8 and (calibration, tolerance_top1) != USUAL_INT8:
        raise InputError("--calibration and --tolerance-top1 are for --int8; add that, or leave them out")
    from zoo.catalogue.export_formats import find_format
    from zoo.catalogue.registry import load_registry

    registry = load_registry()
    component = find_format(format, registry)  # said before torch takes its seconds
    from zoo.export import write
    from zoo.export.facts import PIXELS, PREPARED
    from zoo.hub.ref import is_ref
    from zoo.models.precision import usual_torch

    count = None if batch == "dynamic" else batch
    place = None if output is None else local_path(output)
    suffix = component.suffix
    write.check_options(place or Path(f"model{suffix}"), component, opset, count)  # before a model is built
    if untrained:
        classifier, origin = _untrained(run, num_classes=num_classes, image_size=image_size, seed=seed)
        folder = images = None
    else:
        classifier, origin, opened = _trained(run, registry)
        folder = None if isinstance(run, str) and is_ref(run) else opened
        where = (dataset, None if data_dir is None else str(data_dir))
        kept = (calibration, tolerance_top1)
        images = _int8_images(classifier, opened, registry, *where, *kept) if int8 else None
    with usual_torch():
        return write.export(
            classifier,
            place or _place(classifier.name, folder, suffix),
            origin=origin,
            format=component,
            opset=opset,
            batch=count,
            takes=PIXELS if with_preprocessing else PREPARED,
            check=check,
            tolerance=tolerance,
            int8=images,
        )


def _check_int8(int8: bool, calibration: int, tolerance: float, format: str, untrained: bool) -> None:
    check_within("calibration", calibration, 1)
    if not 0 <= tolerance <= 1:
        raise InputError(f"--tolerance-top1 {tolerance}: allowed: a fraction from 0 to 1")
    if int8 and format != "onnx":
        raise InputError(f"--int8 writes ONNX, not --format {format}; leave one of them out")
    if int8 and untrained:
        raise InputError("--int8 is calibrated and measured on the images of a run, which --untrained has not")


def _int8_images(
    classifier: Classifier,
    folder: Path | None,
    registry: Registry,
    dataset: str | None,
    data_dir: str | None,
    calibration: int,
    tolerance: float,
) -> Int8Images:
    """The images of a run that integers are calibrated and measured on.

    Raises:
        InputError: the model comes from no run, or its images have several labels. Else as `zoo.runs.images.images_of`.
    """
    from zoo.export.int8 import Int8Images
    from zoo.runs.folder import known_test_images
    from zoo.runs.images import images_of

    record = classifier.record
    if record is None or folder is None:
        raise InputError("--int8 is calibrated and measured on the images of a run; give a run, or weights of one")
    if record.data.is_multi_label:
        raise InputError("--int8 is measured by top-1 accuracy, and images of this run have several labels")
    images = images_of(
        record, registry, data_dir=data_dir, dataset=dataset, test_sha256=known_test_images(folder), selects=False
    )
    return Int8Images(images.train, images.test, calibration, tolerance)


def _untrained(
    model: object, *, num_classes: int | None, image_size: int | None, seed: int
) -> tuple[Classifier, Origin]:
    """A model of the catalogue, and where its weights come from."""
    from zoo.catalogue.registry import find_model
    from zoo.evaluate.classifier import untrained_classifier

    if not isinstance(model, str):
        raise InputError(f"--untrained takes the name of a model of the catalogue, not a {type(model).__name__}")
    classifier = untrained_classifier(*find_model(model), num_classes=num_classes, image_size=image_size, seed=seed)
    return classifier, {"weights": f"untrained, seed {seed}"}


def _trained(run: RunLike | Classifier, registry: Registry) -> tuple[Classifier, Origin, Path | None]:
    """The model of a run, where its weights come from, and the run's folder (None: it is not in one)."""
    from zoo.evaluate.ensemble import Ensemble, EnsembleClassifier
    from zoo.evaluate.exported_file import refuse_onnx

    if not is_run_like(run):
        refuse_onnx(run, "an export")
        if isinstance(loaded := classifier_of(run), EnsembleClassifier):
            loaded.refuse_mixed("an export")
        return _copied(loaded), {"weights": "of a loaded model, perhaps changed since"}, None
    from zoo.evaluate.classifier import open_classifier
    from zoo.evaluate.library_weights import LibraryWeights
    from zoo.export.facts import origin_of
    from zoo.hub.ask_library import meant
    from zoo.hub.ref import is_ref
    from zoo.runs.record import read_record
    from zoo.runs.which import reference_of
    from zoo.runs.without_labels import refuse_without_labels

    if isinstance(run, str) and not is_ref(run) and run in registry.models and reference_of(run) is None:
        raise InputError(f"{run!r} is a model, not a run; zoo export {run} --untrained takes its initial weights")
    word = word_of(run, weights=True)
    folder = meant(word, registry)
    if isinstance(folder, Ensemble):
        together = folder.open(registry)
        together.refuse_mixed("an export")
        return together, {"weights": f"the mean of the probabilities of {len(folder.names)} models"}, None
    refuse_onnx(folder, "an export")
    if isinstance(folder, LibraryWeights):
        return folder.open(registry), {"weights": folder.name}, None
    record = read_record(folder)
    refuse_without_labels(record, word)
    classifier = open_classifier(folder, registry, record=record)
    return classifier, origin_of(folder, record), folder


def _copied(classifier: Classifier) -> Classifier:
    """On the CPU, where it is traced and compared, and in eval mode; the given one stays as it is."""
    from copy import deepcopy

    return deepcopy(classifier).cpu().eval()


def _place(name: str, folder: Path | None, suffix: str) -> Path:
    """Inside a run folder; a package and the Hub's cache hold what their hashes list, and nothing more."""
    from zoo.hub.sums import SUMS

    if folder is None or (folder / SUMS).is_file():
        return Path(f"{name.replace('/', '-').split('#')[-1]}{suffix}")
    return folder / f"model{suffix}"
