"""One evaluation of a run, as much of it as was asked for: a document, and files in a folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.base.drawing import plain_text
from zoo.catalogue.registry import Registry
from zoo.errors import InputError, RunError
from zoo.evaluate.asked import Asked, PredictionsKind, SplitName
from zoo.evaluate.calibration import calibration
from zoo.evaluate.classes import class_table
from zoo.evaluate.document import read_document, write_document
from zoo.evaluate.ensemble import Ensemble, EnsembleClassifier, open_ensemble
from zoo.evaluate.label_evaluation import of_labels, refuse_parts, write_labels
from zoo.evaluate.latency import latency
from zoo.evaluate.library_weights import LibraryWeights
from zoo.evaluate.multi_label import LabelPredictions
from zoo.evaluate.one_pass import Keep, Metrics, Predictions
from zoo.evaluate.opened import OpenedSplit, open_run, open_weights, recorded_metrics
from zoo.evaluate.paired import LEVEL, check_same, compare, interval
from zoo.evaluate.pictures import draw_confusion, draw_reliability, draw_robustness
from zoo.evaluate.predictions import write_predictions
from zoo.evaluate.robustness import Show, robustness
from zoo.models.device import describe


def judge(
    run: Path | LibraryWeights | Ensemble,
    asked: Asked,
    places: Mapping[str, str | None],
    *,
    registry: Registry,
    name: str = "",
    other: Path | LibraryWeights | Ensemble | None = None,
    other_name: str = "",
    show: Show = lambda text, done, total: None,
) -> dict[str, Any]:
    """Measure a run, or weights of a library: the accuracy alone in one pass, or all that was asked for.

    The split is read once, and once more for each corruption of its images.

    Args:
        places: `data_dir`, `device`, `dataset` and `on`, as for `zoo.evaluate.opened.open_run`.
        registry: the catalogue. other: a second run, to compare with.
        name, other_name: of the runs, as the document calls them. show: see `zoo.evaluate.robustness.robustness`.
    Returns:
        A document of plain data: the metrics, what the run recorded of them (`recorded`), a table for each part.
    Raises:
        RunError: as `open_run`, or the other run was not evaluated on the same images.
        InputError: the folder holds another evaluation. RunError: outputs are not finite.
    """
    name = name or _name(run)
    if has_weights(run) or has_weights(other):
        places = _of_weights(places)
    if asked.output is not None:
        check_folder(asked.output, name, asked.split, places.get("on"))
    opened = _opened(run, asked.split, registry, places)
    second = None
    if other is not None:
        second = _opened(other, asked.split, registry, places)
        check_same(opened, second)
    is_plain = not asked.parts and second is None and asked.output is None
    if isinstance(opened.classifier, EnsembleClassifier) and asked.parts & {"latency", "robustness"}:
        opened.classifier.refuse_mixed("latency or robustness")
    several = bool(opened.classifier.thresholds)
    if several:
        refuse_parts(asked, compares=second is not None)
    keep = None if is_plain or several else Keep(opened.classifier.temperature)
    metrics, labelled = opened.predictions(keep=keep)
    check_finite(name, metrics.loss)
    out: dict[str, Any] = {"run": name, **_about(opened, asked), **metrics.as_dict()}
    recorded = recorded_metrics(run, asked.split, opened.on) if isinstance(run, Path) else None
    if labelled is not None:
        return _judged_labels(opened, asked, labelled, {**out, "recorded": recorded})
    if keep is None:
        return {**out, "recorded": recorded}
    predictions = keep.predictions()
    out |= {"top1_interval": _interval(metrics), "recorded": recorded}
    out |= _of_predictions(opened, predictions, asked.parts)
    if second is not None:
        out["compare"] = _compared(second, predictions, other_name or str(other), asked.seed)
    if "latency" in asked.parts:
        out["latency"] = _latency(opened, asked)
    if "robustness" in asked.parts:
        how: dict[str, Any] = {"images": asked.images, "seed": asked.seed, "workers": asked.workers}
        out["robustness"] = robustness(opened, asked.corruptions, asked.severities, show=show, **how)
    if asked.output is not None:
        out["files"] = _write(asked.output, opened, predictions, out, asked.table)
    return out


def _about(opened: OpenedSplit, asked: Asked) -> dict[str, Any]:
    """What is measured, as the document begins: the split, its images, views, and what was done to the outputs."""
    about: dict[str, Any] = {"split": asked.split, "on": opened.on, **_views(opened)}
    if opened.classifier.temperature != 1:
        about["temperature"] = opened.classifier.temperature
    return about | ({"left_out": opened.left_out} if opened.left_out else {})


def _judged_labels(
    opened: OpenedSplit, asked: Asked, labelled: LabelPredictions, out: dict[str, Any]
) -> dict[str, Any]:
    """The document of images with several labels, from what both kinds say first."""
    out |= of_labels(opened, labelled, asked.parts)
    if "latency" in asked.parts:
        out["latency"] = _latency(opened, asked)
    if asked.output is not None:
        out["files"] = write_labels(asked.output, opened, labelled, out, asked.table)
    return out


def _name(run: Path | LibraryWeights | Ensemble) -> str:
    return run.reference if isinstance(run, LibraryWeights) else run.name if isinstance(run, Ensemble) else str(run)


def has_weights(run: Path | LibraryWeights | Ensemble | None) -> bool:
    """Whether weights of a library are measured."""
    return isinstance(run, LibraryWeights) or (isinstance(run, Ensemble) and run.has_weights)


def _of_weights(places: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """The places with `dataset` as the images to measure on: weights of a library have no images of their own."""
    return places if places["on"] else {**places, "on": places["dataset"], "dataset": None}


def _opened(
    run: Path | LibraryWeights | Ensemble, split: SplitName, registry: Registry, places: Mapping[str, str | None]
) -> OpenedSplit:
    if isinstance(run, LibraryWeights):
        return open_weights(run, registry, split=split, **places)
    if isinstance(run, Ensemble):
        return open_ensemble(run, registry, split=split, **places)
    return open_run(run, split=split, registry=registry, **places)


def check_finite(run: str, loss: float) -> None:
    """Refuse predictions that are not numbers: which class comes first among them means nothing.

    Raises:
        RunError: the loss is not finite.
    """
    if not math.isfinite(loss):
        raise RunError(
            f"{run}: the loss is {loss}: the model's outputs are not finite numbers, and its accuracy means nothing; "
            "its weights are damaged, or its training diverged"
        )


def check_folder(folder: Path, name: str, split: str, on: str | None = None) -> None:
    """Refuse a folder that holds the evaluation of another run or split, or of other images.

    Raises:
        InputError: names it.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is a file; choose a folder")
    document = read_document(folder)
    if not {"run", "split"} <= document.keys():
        return
    run, of_split, of_images = document["run"], document["split"], document.get("on")
    if (_place(run), of_split, of_images) != (_place(name), split, on):
        images = f"the {of_split} split of {of_images}" if of_images else f"its {of_split} split"
        raise InputError(f"--output {folder}: holds the evaluation of {run} on {images}; choose another folder")


def _place(name: str) -> str:
    """A run's name as it is, or its folder however it was written."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _interval(metrics: Metrics) -> dict[str, Any]:
    ends = interval(metrics.correct, metrics.count)
    return {"level": LEVEL, "method": "Wilson", "ends": list(ends)}


def _of_predictions(opened: OpenedSplit, predictions: Predictions, parts: frozenset[str]) -> dict[str, Any]:
    names, out = opened.classifier.class_names, {}
    if "classes" in parts:
        out["classes"] = class_table(predictions.confusion(), names)
    if "confusion" in parts:
        out["confusion"] = {"classes": list(names), "counts": predictions.confusion().tolist()}
    if "calibration" in parts:
        out["calibration"] = _calibration(opened, predictions)
    return out


def _views(opened: OpenedSplit) -> dict[str, Any]:
    """Which views were averaged, and, where only some images had them, below which margin."""
    classifier = opened.classifier
    return {"tta": classifier.tta} | ({} if classifier.tta_margin is None else {"tta_margin": classifier.tta_margin})


def _calibration(opened: OpenedSplit, predictions: Predictions) -> dict[str, Any]:
    """How well the probabilities fit; of a run with a temperature, also before it."""
    truth = (predictions.labels, predictions.predicted)
    found = calibration(predictions.probabilities, *truth)
    if predictions.uncalibrated is None:
        return found
    before = calibration(predictions.uncalibrated, *truth)
    del before["bins"]
    return {"temperature": opened.classifier.temperature, **found, "before": before}


def _compared(second: OpenedSplit, predictions: Predictions, name: str, seed: int) -> dict[str, Any]:
    keep = Keep()
    metrics = second.measure(keep=keep)
    about = {"run": name, "split": second.split, **_views(second), **metrics.as_dict()}
    return {**about, "paired": compare(predictions.hits, keep.predictions().hits, seed=seed)}


def _latency(opened: OpenedSplit, asked: Asked) -> dict[str, Any]:
    classifier, sizes = opened.classifier, opened.classifier.sizes
    shape = (sizes.in_channels, sizes.height, sizes.width)
    rows = [
        latency(classifier.logits, (batch, *shape), classifier.device, asked.seconds)
        for batch in dict.fromkeys((1, asked.batch))
    ]
    return {
        "device": str(classifier.device),
        "hardware": describe(classifier.device),
        "threads": torch.get_num_threads(),
        "precision": "fp32",
        **_views(opened),
        "rows": rows,
    }


def _write(
    folder: Path, opened: OpenedSplit, predictions: Predictions, out: dict[str, Any], table: PredictionsKind
) -> list[str]:
    """Write the document, the predictions and the pictures of what was measured."""
    classifier, paths = opened.classifier, []
    names = classifier.class_names
    title = plain_text(f"{classifier.name} on {opened.on or classifier.dataset}, {opened.split} split")
    folder.mkdir(parents=True, exist_ok=True)
    if table != "none":
        paths.append(folder / f"predictions.{table}")
        write_predictions(paths[-1], predictions, names, table, opened.images.origins())
    if "confusion" in out:
        paths.append(folder / "confusion.png")
        draw_confusion(paths[-1], predictions.confusion(), names, title)
    for part, draw in (("calibration", draw_reliability), ("robustness", draw_robustness)):
        if part in out:
            paths.append(folder / ("reliability.png" if part == "calibration" else f"{part}.png"))
            draw(paths[-1], title, out[part])
    return write_document(folder, paths, out)
