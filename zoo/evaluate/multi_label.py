"""Several labels an image: metrics of one pass over a split, and the threshold of each class.

scikit-learn gives the same figures (a test holds that), but takes a class at a time: the average precisions of 80
classes of 5,000 images, wanted after each epoch, take it about ten times as long as here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.label_sets import has_sets
from zoo.evaluate.classes import LABEL_COLUMNS
from zoo.evaluate.one_pass import Keep, Metrics, evaluate, outputs

NOT_OF_SETS = frozenset({"top1", "top5", "balanced_accuracy"})
"""Figures that need one class an image."""

HALF = 0.5
"""The threshold of a class for which none was chosen."""


@dataclass(frozen=True)
class MultiLabelMetrics(Metrics):
    """What one pass over a split with several labels an image gives.

    Attributes:
        loss: binary cross entropy, the mean over images and classes.
        top1, top5, balanced_accuracy: not a number, since an image has no one class.
        correct: how many images have exactly the labels that were predicted.
        map: the mean over classes of average precision; classes without an image do not count.
        micro_f1: F1 of all (image, class) pairs together. macro_f1: the mean over classes of F1, which is 0 for a class
            without an image that nothing was taken for, as scikit-learn's `zero_division=0`.
        subset_accuracy: `correct` / `count`.
    """

    map: float = 0.0
    micro_f1: float = 0.0
    subset_accuracy: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The fields that mean something, for a result record."""
        return {key: value for key, value in super().as_dict().items() if key not in NOT_OF_SETS}

    def scores(self) -> dict[str, float]:
        """As of `Metrics`."""
        return {name: getattr(self, name) for name in ("map", "micro_f1", "macro_f1", "subset_accuracy")}


@dataclass(frozen=True)
class LabelPredictions:
    """What a model said about each image of a split, in the split's order, on the CPU.

    Attributes:
        labels: uint8 (N, K), 1 where an image shows a class. probabilities: float32 (N, K), by the sigmoid of logits.
        thresholds: float64 (K,), from which on a class is predicted.
    """

    labels: Tensor
    probabilities: Tensor
    thresholds: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def predicted(self) -> Tensor:
        """Whether each class was predicted, bool (N, K)."""
        return predicted(self.probabilities, self.thresholds)

    @property
    def hits(self) -> Tensor:
        """Whether exactly the labels of an image were predicted, bool (N,)."""
        return (self.predicted == self.labels.bool()).all(1)


def predicted(probabilities: Tensor, thresholds: Tensor) -> Tensor:
    """Which probabilities (..., K) reach the thresholds (K,): bool (..., K)."""
    return probabilities.double() >= thresholds


@dataclass
class KeepSets:
    """Collects logits and labels of a pass, on the CPU."""

    parts: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, logits: Tensor, labels: Tensor) -> None:
        """Take one batch: logits (B, K) float32, labels (B, K)."""
        self.parts.append((logits.cpu(), labels.cpu()))

    def all(self, classes: int) -> tuple[Tensor, Tensor]:
        """All that was taken; of no batch, tensors without rows."""
        if not self.parts:
            return torch.empty(0, classes), torch.empty(0, classes, dtype=torch.uint8)
        logits, labels = (torch.cat(part) for part in zip(*self.parts, strict=True))
        return logits, labels


@torch.inference_mode()
def evaluate_sets(
    module: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    *,
    classes: int,
    autocast: Callable[[], AbstractContextManager[object]],
    forward: Callable[[Tensor], Tensor] | None = None,
    gather: Callable[[Tensor], Tensor] | None = None,
    thresholds: Tensor | None = None,
) -> tuple[MultiLabelMetrics, LabelPredictions]:
    """`zoo.evaluate.one_pass.evaluate` for images with several labels.

    Args:
        batches: with labels (B, K). classes: K. module, prepare, autocast, forward: as of `evaluate`.
        gather: the rows of all processes from those of this one. thresholds: float64 (K,); default: 0.5 each.
    """
    keep = KeepSets()
    for logits, labels in outputs(module, batches, prepare, autocast=autocast, forward=forward):
        keep(logits, labels)
    logits, labels = keep.all(classes)
    if gather is not None:
        logits, labels = gather(logits), gather(labels)
    if not len(labels):
        raise ValueError("evaluate: the split has no images")
    chosen = torch.full((classes,), HALF, dtype=torch.float64) if thresholds is None else thresholds
    predictions = LabelPredictions(labels, logits.sigmoid(), chosen)
    loss = F.binary_cross_entropy_with_logits(logits.double(), labels.double())
    return metrics_of(predictions, float(loss)), predictions


def measured(
    module: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    of: NDArray[Any],
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    forward: Callable[[Tensor], Tensor] | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
    gather: Callable[[Tensor], Tensor] | None = None,
    thresholds: Tensor | None = None,
    keep: Keep | None = None,
    classes: int = 0,
) -> tuple[Metrics, LabelPredictions | None]:
    """One pass over a split, whatever its labels `of` are; predictions are given where images have several labels.

    Args:
        total, keep, classes: as of `evaluate`, for images with one label; gather, thresholds: as of `evaluate_sets`.
    """
    how: dict[str, Any] = {"autocast": autocast, "forward": forward}
    if has_sets(of):
        count = of.shape[1]
        return evaluate_sets(module, batches, prepare, classes=count, gather=gather, thresholds=thresholds, **how)
    return evaluate(module, batches, prepare, total=total, keep=keep, classes=classes, **how), None


def metrics_of(predictions: LabelPredictions, loss: float) -> MultiLabelMetrics:
    """The metrics of predictions."""
    scores = per_label(predictions)
    hits, support, taken = (scores[key].double() for key in ("hits", "support", "predicted"))
    correct, count = int(predictions.hits.sum()), len(predictions)
    return MultiLabelMetrics(
        loss=loss,
        top1=float("nan"),
        top5=float("nan"),
        correct=correct,
        count=count,
        balanced_accuracy=float("nan"),
        map=mean_average_precision(scores["average_precision"]),
        micro_f1=float(2 * hits.sum() / (support + taken).sum().clamp(min=1)),
        macro_f1=float(scores["f1"].mean()),
        subset_accuracy=correct / count,
    )


def mean_average_precision(values: Tensor) -> float:
    """The mean of the average precisions (K,) that are numbers; NaN where none is."""
    return float(values[~values.isnan()].mean())


def per_label(predictions: LabelPredictions) -> dict[str, Tensor]:
    """Figures of each class.

    Returns:
        `precision`, `recall`, `f1`: float64 (K,), 0 where nothing stands below the line; `average_precision`: float64
        (K,), NaN without an image of the class; `support`, `predicted`, `hits`: int64 (K,), images of the class, those
        taken for it, and those of both.
    """
    truth, said = predictions.labels.bool(), predictions.predicted
    hits, support, taken = ((truth & said).sum(0), truth.sum(0), said.sum(0))
    return {
        "precision": hits.double() / taken.clamp(min=1),
        "recall": hits.double() / support.clamp(min=1),
        "f1": 2 * hits.double() / (support + taken).clamp(min=1),
        "average_precision": average_precision(predictions.labels, predictions.probabilities),
        "support": support,
        "predicted": taken,
        "hits": hits,
    }


def _ranked(labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each class's images from its largest score on.

    Returns:
        The scores (N, K); how many images of the class are among the first n, int64 (N, K); and whether a place is the
        last one of equal scores, which no threshold parts: bool (N, K).
    """
    ranked, order = scores.sort(dim=0, descending=True, stable=True)
    found = labels.long().gather(0, order).cumsum(0)
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[:-1] != ranked[1:]
    return ranked, found, last


def average_precision(labels: Tensor, scores: Tensor) -> Tensor:
    """Average precision of each class: the mean over thresholds of precision, weighted by what recall gains.

    Args:
        labels: (N, K) of 0 and 1. scores: float (N, K), larger for images that show the class more surely.
    Returns:
        float64 (K,); NaN for a class without images, which has none (scikit-learn gives 0 and warns).
    """
    _, found, last = _ranked(labels, scores)
    rank = torch.arange(1, len(labels) + 1)[:, None]
    before = torch.where(last, found, 0).cummax(0).values.roll(1, 0)
    before[0] = 0
    gains = torch.where(last, found - before, 0).double() * found.double() / rank
    return gains.sum(0) / found[-1]  # 0 / 0 is NaN


def best_thresholds(labels: Tensor, probabilities: Tensor) -> Tensor:
    """The threshold of each class that gives the largest F1 on these images.

    It lies halfway between the last probability that is taken and the next one, as neither is certain; of equal F1 it
    is the largest one. A class without an image here keeps 0.5.

    Args:
        labels: (N, K) of 0 and 1. probabilities: float32 (N, K).
    Returns:
        float64 (K,), in 0..1.
    """
    ranked, found, last = _ranked(labels, probabilities.double())
    rank = torch.arange(1, len(labels) + 1)[:, None]
    f1 = torch.where(last, 2 * found.double() / (rank + found[-1]), -1.0)
    place = f1.argmax(0, keepdim=True)
    lower = torch.cat((ranked[1:], torch.zeros_like(ranked[:1])))
    chosen = (ranked.gather(0, place) + lower.gather(0, place))[0] / 2
    return torch.where(found[-1] > 0, chosen, HALF)


def label_table(predictions: LabelPredictions, names: Sequence[str]) -> dict[str, Any]:
    """All figures of each class as plain data: `rows`, one a class, in label order."""
    scores = per_label(predictions) | {"threshold": predictions.thresholds}
    columns = {key: scores[key].tolist() for key in LABEL_COLUMNS[1:]}
    rows = [{"class": name, **{key: column[i] for key, column in columns.items()}} for i, name in enumerate(names)]
    return {"rows": rows}
