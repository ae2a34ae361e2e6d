"""Images to measure, with the model: the splits of a run, or images that it has never seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.catalogue.registry import Registry, load_registry
from zoo.data.batches.open import BatchSource, open_source
from zoo.data.split import Split
from zoo.errors import InputError, RunError
from zoo.evaluate.classifier import Classifier, open_classifier
from zoo.evaluate.library_weights import LibraryWeights
from zoo.evaluate.multi_label import LabelPredictions, measured
from zoo.evaluate.new_images import Taken, matched_images, taken_by
from zoo.evaluate.one_pass import Keep, Metrics
from zoo.models.device import pick_device
from zoo.models.precision import autocast
from zoo.runs.folder import known_test_images, read_result
from zoo.runs.images import SplitName, eval_batch, split_of
from zoo.runs.record import RESULT, RunRecord, read_record
from zoo.runs.without_labels import refuse_without_labels

BOTH = "--dataset says where the run's own images are, --on names other ones; give one of them"


@dataclass(frozen=True)
class OpenedSplit:
    """The images of one split of a run, and the classifier to measure on them.

    Attributes:
        record: of the run; None where the weights are a library's.
        images: of the split, as the run saw them (for training without its augmentation).
        on: the SPEC of other images than the run's, which are these; None: they are the run's.
        names: all lists of names of the classes; the first are those of the logits.
        left_out: images of `on` of classes that the model does not know, left out as `?drop-unknown` asks.
    """

    record: RunRecord | None
    split: SplitName
    images: Split
    classifier: Classifier
    on: str | None = None
    names: tuple[tuple[str, ...], ...] = ()
    left_out: int = 0

    def measure(self, images: Split | None = None, keep: Keep | None = None) -> Metrics:
        """One pass in fp32 over the split (or over other `images` of the same size); `keep`: see `evaluate`."""
        return self.predictions(images, keep)[0]

    def predictions(
        self, images: Split | None = None, keep: Keep | None = None
    ) -> tuple[Metrics, LabelPredictions | None]:
        """As `measure`, with the predictions of images that have several labels."""
        classifier, split = self.classifier, self.images if images is None else images
        return measured(
            classifier.module,
            self.source(images).batches(eval_batch(classifier)),
            classifier.prepare,
            split.labels,
            autocast=lambda: autocast(classifier.device, "fp32"),
            forward=classifier.averaged,
            keep=keep,
            thresholds=torch.tensor(classifier.thresholds, dtype=torch.float64) if classifier.thresholds else None,
        )

    def source(self, images: Split | None = None) -> BatchSource:
        """The images of the split (or other ones), in batches on the classifier's device."""
        classifier, split = self.classifier, self.images if images is None else images
        return open_source(split, classifier.device, channels_last=classifier.channels_last)

    def confusion(self) -> Tensor:
        """Count what each class was taken for: int64 (K, K), rows are the true classes, columns the predicted ones."""
        keep = Keep()
        self.measure(keep=keep)
        return keep.predictions().confusion()


def open_run(
    run: Path,
    *,
    split: SplitName = "test",
    data_dir: str | None = None,
    device: str | None = None,
    dataset: str | None = None,
    on: str | None = None,
    registry: Registry | None = None,
) -> OpenedSplit:
    """Load a run's weights and the images of one of its splits, or of other ones.

    Args:
        split: "test", or the images that the run selected its epoch by ("val") or trained on ("train").
        device: the run's, if not given. dataset: where the same images are here, if not at the recorded SPEC.
        on: another dataset, with the run's classes or some of them: see `zoo.evaluate.new_images`.
        registry: the catalogue; loaded if not given.
    Raises:
        RunError: a damaged run, a dataset that is not the recorded one, or a split that the run has not.
        InputError: both `dataset` and `on`, or a class of `on` that the run does not know.
    """
    record, registry = read_record(run), registry or load_registry()
    refuse_without_labels(record, str(run))
    where, left_out = pick_device(device or record.device), 0
    if on is None:
        known = known_test_images(run)
        images = split_of(record, split, registry, data_dir=data_dir, dataset=dataset, test_sha256=known)
    elif dataset is not None:
        raise InputError(BOTH)
    else:
        taken = taken_by(record, registry)
        images, left_out = matched_images(taken, registry, on, split, data_dir=data_dir, device=str(where))
    classifier = open_classifier(run, registry, record=record, device=where)
    return OpenedSplit(record, split, images, classifier, on, (record.data.classes,), left_out)


def open_weights(
    weights: LibraryWeights,
    registry: Registry,
    *,
    split: SplitName = "test",
    data_dir: str | None = None,
    device: str | None = None,
    dataset: str | None = None,
    on: str | None = None,
) -> OpenedSplit:
    """Weights of a library, and images to measure them on, of which nothing is recorded.

    Args:
        split, data_dir: as for `open_run`. device: by default the first of GPU, MPS and CPU that there is; of an
            exported file the CPU.
        on: the images; there has to be some. dataset: None, for weights have no images of their own.
    Raises:
        InputError: no images were given, or `dataset`; or a class that the weights do not know.
    """
    if dataset is not None:
        raise InputError(BOTH)
    if on is None:
        raise InputError(f"{weights.reference} is no run: no images of its own are recorded; name some with --on SPEC")
    where = pick_device(device or weights.usual_device)
    size, names = (weights.sizes.height, weights.sizes.width), weights.names()
    classifier = weights.open(registry, where)
    taken = Taken(weights.name, size, weights.preprocessing.rule, names, several=bool(classifier.thresholds))
    images, left_out = matched_images(taken, registry, on, split, data_dir=data_dir, device=str(where))
    return OpenedSplit(None, split, images, classifier, on, names, left_out)


def recorded_metrics(run: Path, split: SplitName = "test", on: str | None = None) -> dict[str, Any] | None:
    """What `result.json` says of a split; None where the run was not finished, or of training or other images."""
    if on is not None or not (run / RESULT).is_file():
        return None
    metrics: dict[str, Any] | None = read_result(run).get({"test": "test", "val": "validation", "train": ""}[split])
    return metrics


def refuse_not_finite(run: str, logits: Tensor) -> None:
    """Refuse logits that are not numbers: which class comes first among them means nothing.

    Raises:
        RunError: some are not finite.
    """
    if not bool(logits.isfinite().all()):
        raise RunError(
            f"{run}: the model's outputs are not finite numbers; its weights are damaged, or its training diverged"
        )
