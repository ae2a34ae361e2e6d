"""The public calls of this room: `zoo.evaluate`, `zoo.compare`, `zoo.load`, and what they give."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.checked_call import checked
from zoo.base.paths import local_path
from zoo.base.reporter import Reporter
from zoo.base.text import plural
from zoo.errors import InputError
from zoo.evaluate.asked import Asked, PredictionsKind, SplitName, ask
from zoo.evaluate.measurement import Comparison, Evaluation, is_recorded, verdict
from zoo.runs.api import HUB, Run, RunLike, word_of, word_or_path

if TYPE_CHECKING:
    import torch
    from torch import nn

    from zoo.catalogue.registry import Registry
    from zoo.evaluate.classifier import Classifier
    from zoo.evaluate.ensemble import Ensemble
    from zoo.evaluate.library_weights import LibraryWeights
    from zoo.evaluate.temperature import Calibrated

__all__ = ["Comparison", "Evaluation", "calibrate", "compare", "evaluate", "from_pretrained", "load"]


@checked
def evaluate(
    run: RunLike,
    *,
    split: SplitName = "test",
    what: str | Sequence[str] = (),
    on: str | None = None,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    output: str | Path | None = None,
    predictions: PredictionsKind = "csv",
    corruptions: str | Sequence[str] = "common",
    severities: str | Sequence[int] = (1, 2, 3, 4, 5),
    images: int | None = 1000,
    workers: int | None = None,
    batch_size: int = 64,
    seconds: float = 3.0,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Measure the accuracy of a run again, and compare it with the recorded one: in fp32, one pass over the images.

    Another number of right images than the recorded one is a warning of the reporter, and `same_as_recorded` is False.

    Args:
        run: a `Run`, a run folder or package, the name of a run below runs/, "last", hf://OWNER/NAME[@REVISION],
            weights of the catalogue (NAME@DATASET), or of a library ("timm/NAME.TAG", "torchvision/NAME.WEIGHTS"),
            or FILE.onnx that `zoo.export` wrote, which need `on`; or several joined by a plus, "RUN+RUN", measured as
            one ensemble.
        split: of the run: "test", "val" or "train"; of other images "test" or "train".
        what: more than accuracy: some of "classes", "confusion", "calibration", "latency" and "robustness", or "all".
        on: other images: a SPEC as for the dataset of `zoo.train`, with the run's classes or some of them.
        dataset: where the run's own dataset is on this machine, if not at the recorded path.
        data_dir: folder of downloaded datasets.
        device: to measure on; default: the device of the run.
        output: a folder for eval.json, predictions and pictures; the default of `what` is then the first three.
        predictions: their format there: "csv", "parquet" or "none".
        corruptions, severities: of robustness: names or groups of corruptions; some of 1 to 5.
        images: for robustness, a stratified subset; None or 0: all. workers: processes for that, by default by cores.
        batch_size: of latency's second row; the first has batches of 1. seconds: how long each is measured.
        seed: of the corruptions.
        reporter: receives messages, warnings and the progress through the corruptions.
    Returns:
        The figures, with a part for each word of `what`.
    Raises:
        InputError: no such run, a wrong option, or a folder that holds another evaluation.
        RunError: a damaged run, images that are not the recorded ones, a split that it has not, or outputs that are
            not finite. PackageError, HubError: a package is damaged, or cannot be had. DeviceError: no such device.

    Example:
        >>> evaluation = zoo.evaluate("last", what=["classes", "confusion"])  # doctest: +SKIP
        >>> evaluation.top1, evaluation.same_as_recorded  # doctest: +SKIP
        (0.9583333333333334, True)
    """
    asked = ask(
        split=split,
        what=what,
        output=output,
        predictions=predictions,
        corruptions=corruptions,
        severities=severities,
        images=images,
        workers=workers,
        batch_size=batch_size,
        seconds=seconds,
        seed=seed,
    )
    places = _places(on=on, dataset=dataset, data_dir=data_dir, device=device)
    return _evaluation(run, None, asked, places, reporter or Reporter())


@checked
def compare(
    run: RunLike,
    other: RunLike,
    *,
    split: SplitName = "test",
    what: str | Sequence[str] = (),
    on: str | None = None,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    output: str | Path | None = None,
    predictions: PredictionsKind = "csv",
    corruptions: str | Sequence[str] = "common",
    severities: str | Sequence[int] = (1, 2, 3, 4, 5),
    images: int | None = 1000,
    workers: int | None = None,
    batch_size: int = 64,
    seconds: float = 3.0,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Measure two runs on the same images, and test whether one is better: McNemar's test and a paired bootstrap.

    Both are measured on one device: the recorded one of the first where this machine has it.

    Args:
        run: the first, as for `zoo.evaluate`; the other parts are of this one. other: the second.
        split, what, on, dataset, data_dir, device, output, predictions: as for `zoo.evaluate`.
        corruptions, severities, images, workers, batch_size, seconds, reporter: as for `zoo.evaluate`.
        seed: of the bootstrap and the corruptions.
    Returns:
        The evaluation of the first, whose `comparison` has the second one's figures and the test.
    Raises:
        RunError: the runs have other classes, or no images in common order. Otherwise as `zoo.evaluate`.

    Example:
        >>> comparison = zoo.compare("runs/cnn-10", "runs/hybrid-3").comparison  # doctest: +SKIP
        >>> comparison.difference, comparison.interval, comparison.p  # doctest: +SKIP
        (-0.2, (-0.25, -0.14722222222222223), 4.2e-12)
    """
    asked = ask(
        split=split,
        what=what,
        output=output,
        predictions=predictions,
        corruptions=corruptions,
        severities=severities,
        images=images,
        workers=workers,
        batch_size=batch_size,
        seconds=seconds,
        seed=seed,
    )
    places = _places(on=on, dataset=dataset, data_dir=data_dir, device=device)
    return _evaluation(run, other, asked, places, reporter or Reporter())


def _places(
    *, on: str | None, dataset: str | None, data_dir: str | Path | None, device: str | None
) -> dict[str, str | None]:
    folder = None if data_dir is None else str(data_dir)
    return {"on": on, "dataset": dataset, "data_dir": folder, "device": device}


def _evaluation(
    run: RunLike, other: RunLike | None, asked: Asked, places: Mapping[str, str | None], reporter: Reporter
) -> Evaluation:
    """Measure what is asked for, and say how it compares with the record."""
    from zoo.catalogue.registry import load_registry
    from zoo.evaluate.evaluation import judge
    from zoo.hub.ask_library import meant
    from zoo.models.precision import usual_torch

    try:
        name, other_name = (word_of(word, weights=True) if word is not None else "" for word in (run, other))
        registry = load_registry()
        first = meant(name, registry)
        recorded_device, num_classes, is_package = _recorded(first)
        is_alone = not (other_name or is_package)
        places = {**places, "device": places["device"] or _device(name, recorded_device, is_alone=is_alone)}
        second = meant(other_name, registry) if other_name else None
        names = {"name": _called(run, name), "other_name": _called(other, other_name)}
        show = _Passes(reporter)
        with usual_torch():
            out = judge(first, asked, places, registry=registry, other=second, show=show, **names)
        recorded = out.pop("recorded")
        words = verdict(first if isinstance(first, Path) else None, out, recorded)
        if left_out := out.get("left_out"):
            reporter.warn(f"{plural(left_out, 'image')} of classes that the model does not know left out")
        for path in out.get("files", ()):
            reporter.say(f"wrote {path}")
        (reporter.warn if is_recorded(out, recorded) is False else reporter.say)(words)
        return Evaluation(out, recorded, num_classes, words)
    finally:
        reporter.close()


def _called(run: RunLike | None, word: str) -> str:
    """What a run is called in what people read: weights of the catalogue by their name, not by where they lie."""
    from zoo.runs.which import is_name_of_weights

    return run if isinstance(run, str) and is_name_of_weights(run) else word


def _recorded(found: Path | LibraryWeights | Ensemble) -> tuple[str, int, bool]:
    """The device that a run was trained on ("auto" for weights of a library), its classes, and whether it is packed.

    Of an ensemble those of the first member; it counts as packed, since no one machine is its own.
    """
    from zoo.evaluate.ensemble import Ensemble
    from zoo.hub.sums import SUMS
    from zoo.runs.record import read_record

    if isinstance(found, Ensemble):
        return (*_recorded(found.members[0])[:2], True)
    if not isinstance(found, Path):
        return found.usual_device, found.sizes.num_classes, True
    record = read_record(found)
    return record.device, record.sizes.num_classes, (found / SUMS).is_file()


def _device(run: str, recorded: str, *, is_alone: bool) -> str | None:
    """None: the recorded one, or an error. A run of another machine, and two runs, are measured on what there is."""
    from zoo.hub.ref import is_ref
    from zoo.models.device import usable_device

    return usable_device(recorded) if is_ref(run) or not is_alone else None


class _Passes:
    """Tells a reporter of the passes over corrupted images, and of each corruption once."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.last = reporter, "done"

    def __call__(self, text: str, done: int, total: int) -> None:
        """Receive "CORRUPTION SEVERITY", or "done"."""
        name = text.partition(" ")[0]
        self.reporter.progress("robustness", done, total)
        if name not in (self.last, "done"):
            self.reporter.note(f"robustness: {name} ({done} of {total} passes done)")
        self.last = name


@checked
def calibrate(
    run: RunLike,
    *,
    remove: bool = False,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
) -> Calibrated:
    """Fit a temperature on a run's validation images, and keep it in the run: its probabilities then fit its accuracy.

    Logits are divided by it before the softmax, by `zoo.predict`, `zoo.serve`, `zoo.explain`, in exported files and
    in packages. The predicted classes stay the same, and so does what the run recorded of its test images.

    Args:
        run: a finished run on this machine, by its folder or name, "last", or a `Run`.
        remove: take the temperature away again.
        dataset: where the run's own dataset is on this machine, if not at the recorded path.
        data_dir: folder of downloaded datasets. device: to measure on; default: the device of the run.
    Returns:
        The temperature, and the figures of the validation images before and after it.
    Raises:
        InputError: no such run, or it is a package, whose files are what their hashes say.
        RunError: the run is not finished or has no validation images (protocol `paper`), its images have several
            labels, no temperature can be fitted, or as `zoo.evaluate`. BusyError: the run is being trained.

    Example:
        >>> zoo.calibrate("last").temperature  # doctest: +SKIP
        1.4212
    """
    from zoo.catalogue.registry import load_registry
    from zoo.evaluate import temperature
    from zoo.hub.sums import SUMS
    from zoo.models.precision import usual_torch

    word = word_of(run)
    if word.startswith(HUB) or (Path(word) / SUMS).is_file():
        raise InputError(f"{word}: is a package, which must not change; calibrate its run, and package that again")
    folder, registry = Path(word), load_registry()
    if remove:
        return temperature.remove(folder)
    place = None if data_dir is None else str(data_dir)
    where = device or _device(word, _recorded(folder)[0], is_alone=True)
    with usual_torch():
        return temperature.calibrate(folder, registry, data_dir=place, dataset=dataset, device=where)


# ---- loading -------------------------------------------------------------------------------------------


@checked
def load(
    run: RunLike,
    *,
    device: str | torch.device | None = None,
    revision: str | None = None,
    model: str | nn.Module | Callable[..., Any] | None = None,
) -> Classifier:
    """Load the trained model of a run, or of a package on the Hub, whose every file is verified first.

    Args:
        run: a run folder or a package, the name of a run below runs/, "last" for the newest one there, a `Run`,
            NAME@DATASET for weights of the catalogue, or `hf://OWNER/NAME[@REVISION]`; or several of these joined by a
            plus ("runs/a+runs/b"), which answer together: the mean of their probabilities. A word
            OWNER/NAME[@REVISION] that is no run here means the Hub as well, but for "timm/NAME.TAG",
            "torchvision/NAME.WEIGHTS" and the like: the weights that this library released. FILE.onnx is a file that
            `zoo.export` wrote; ONNX Runtime computes it on the CPU, without gradients.
        device: where to bring it, such as "cuda"; None: it stays on the CPU.
        revision: a branch, a tag or a commit of the repository on the Hub.
        model: code of your own that the run was given, where it stands in no file: a class, a function, a module that
            is ready, or FILE.py:NAME; see `zoo.train`. Other calls then find it too while this program runs.
    Returns:
        A classifier: `predict` takes images of any size, a call takes the floats (B, C, H, W) that its torch module
        takes (`module`), and `to` brings it to another device.
    Raises:
        InputError: no such run, or two revisions. RunError: damaged, from a newer version, or weights that do not fit.
        PackageError, HubError: a package that is damaged, or cannot be had. DeviceError: no such device here.
        MissingPluginError: it needs a plugin that is not installed.
    Warns:
        OtherVersionWarning: a plugin that the run was made with has another version here.
        ZooWarning: the card or a picture was edited after the package was made.

    Example:
        >>> model = zoo.load("last")  # doctest: +SKIP
        >>> model.predict("digit.png", top=1)  # doctest: +SKIP
        [[Score(name='3', probability=0.98)]]
    """
    from zoo.hub.ask_library import open_word
    from zoo.hub.download import folder_to_load, local_only
    from zoo.runs.which import is_exported_file, known, members_of

    registry, where = _before(device)
    several = isinstance(run, str) and bool(members_of(run))
    exported = isinstance(run, str | Path) and is_exported_file(run)
    if exported or (isinstance(run, str) and (several or (registry.offers_weights(run) and known(run) is None))):
        if revision or model is not None:
            what = "an ensemble, weights of a library and an exported file are"
            raise InputError(f"{run}: {what} loaded as they are, without `revision` and `model`")
        return open_word(str(run), registry, device if exported else where)
    if isinstance(run, Run):
        folder = local_only(run.folder, revision, registry)
    else:
        folder = folder_to_load(word_or_path(run), revision, registry=registry)
    return _opened(folder, registry, where) if model is None else _opened_with(model, folder, registry, where)


@checked
def from_pretrained(
    repo: str | Path, *, revision: str | None = None, device: str | torch.device | None = None
) -> Classifier:
    """Load a package of the Hub, or a folder: `zoo.load` by the name and the rules of other libraries of the Hub.

    Args:
        repo: OWNER/NAME, with or without `hf://` and `@REVISION`; a folder of this name here comes first. Names below
            runs/ are not looked for.
        revision, device: as for `zoo.load`.
    Returns:
        As `zoo.load`.
    Raises:
        InputError: neither a folder nor a name that a repository can have. Else as `zoo.load`.

    Example:
        >>> model = zoo.from_pretrained("me/hybrid-digits", revision="v1")  # doctest: +SKIP
    """
    from zoo.hub.download import fetched_folder, local_only
    from zoo.hub.ref import with_revision

    registry, where = _before(device)
    if not str(repo).startswith(HUB) and os.path.isdir(local_path(repo)):
        return _opened(local_only(repo, revision, registry), registry, where)
    try:
        ref = with_revision(str(repo), revision, "revision")
    except InputError as error:
        raise InputError(f"{error}; and no folder of this name is here") from None
    return _opened(fetched_folder(ref, registry=registry), registry, where)


def _before(device: str | torch.device | None) -> tuple[Registry, torch.device | None]:
    """The catalogue and the device, checked before anything is fetched."""
    from zoo.catalogue.registry import load_registry
    from zoo.models.device import pick_device

    return load_registry(), pick_device(device) if isinstance(device, str) else device


def _opened(folder: Path, registry: Registry, device: torch.device | None) -> Classifier:
    """What every way of loading ends with."""
    from zoo.evaluate.classifier import open_classifier

    return open_classifier(folder, registry, device=device)


def _opened_with(
    model: str | nn.Module | Callable[..., Any], folder: Path, registry: Registry, device: torch.device | None
) -> Classifier:
    """A run of code that is given again, and that other calls find from now on."""
    from zoo.models.own_module import own_of
    from zoo.runs.own_source import remember, with_model
    from zoo.runs.record import read_record

    record = read_record(folder)
    registry = with_model(folder, record, registry, own_of(model))
    opened = _opened(folder, registry, device)
    remember(folder, record, registry)
    return opened
