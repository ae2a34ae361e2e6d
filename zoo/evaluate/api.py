"""The public calls of this room: `zoo.evaluate`, `zoo.compare`, and what they give: `zoo.Evaluation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.base.checked_call import checked
from zoo.base.reporter import Reporter
from zoo.evaluate.asked import Asked, PredictionsKind, SplitName, ask
from zoo.evaluate.measurement import Comparison, Evaluation, is_recorded, verdict
from zoo.runs.api import RunLike, word_of

if TYPE_CHECKING:
    from zoo.evaluate.library_weights import LibraryWeights

__all__ = ["Comparison", "Evaluation", "compare", "evaluate"]


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
        run: a `Run`, a run folder or package, the name of a run below runs/, "last", hf://OWNER/NAME[@REVISION], or
            weights of a library such as "timm/NAME.TAG" or "torchvision/NAME.WEIGHTS", which need `on`.
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
        names = {"name": name, "other_name": other_name}
        show = _Passes(reporter)
        with usual_torch():
            out = judge(first, asked, places, registry=registry, other=second, show=show, **names)
        recorded = out.pop("recorded")
        words = verdict(first if isinstance(first, Path) else None, out, recorded)
        for path in out.get("files", ()):
            reporter.say(f"wrote {path}")
        (reporter.warn if is_recorded(out, recorded) is False else reporter.say)(words)
        return Evaluation(out, recorded, num_classes, words)
    finally:
        reporter.close()


def _recorded(found: Path | LibraryWeights) -> tuple[str, int, bool]:
    """The device that a run was trained on ("auto" for weights of a library), its classes, and whether it is packed."""
    from zoo.hub.sums import SUMS
    from zoo.runs.record import read_record

    if not isinstance(found, Path):
        return "auto", found.sizes.num_classes, True
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
