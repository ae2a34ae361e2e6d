"""Logits to metrics: one exact pass over a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.evaluate.classes import averages, scores_of
from zoo.evaluate.views import cooled

Batches = Iterator[tuple[Tensor, Tensor, Tensor]]
"""Row numbers, images (B, C, H, W) uint8 and labels of each batch of a split."""


class Figures(Protocol):
    """What the images of a split gave: a loss, and what else was measured."""

    @property
    def loss(self) -> float:
        """The mean over the images."""

    def as_dict(self) -> dict[str, Any]:
        """All of it by name, for a result record."""

    def scores(self) -> dict[str, float]:
        """The figures of an epoch, of which the larger is the better, by their names."""


@dataclass(frozen=True)
class Metrics:
    """What one pass over a split gives: counts are exact, `loss` is the mean cross entropy.

    Attributes:
        balanced_accuracy, macro_f1: means over the classes that have images of the share of a class's images that
            was classified rightly, and of its F1 (see `zoo.evaluate.classes.averages`).
    """

    loss: float
    top1: float
    top5: float
    correct: int
    count: int
    balanced_accuracy: float
    macro_f1: float

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for a result record."""
        return asdict(self)

    def scores(self) -> dict[str, float]:
        """The figures of an epoch, of which the larger is the better, by their names."""
        return {name: getattr(self, name) for name in ("top1", "balanced_accuracy", "macro_f1")}


@dataclass(frozen=True)
class Predictions:
    """What a model said about each image of a split, in the split's order, on the CPU.

    Attributes:
        labels, predicted: int64 (N,). probabilities: float32 (N, K), by softmax of the logits, divided by the
            temperature if there is one.
        uncalibrated: the same before the temperature; None where there is none.
    """

    labels: Tensor
    predicted: Tensor
    probabilities: Tensor
    uncalibrated: Tensor | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def hits(self) -> Tensor:
        """Whether each image was classified rightly, bool (N,)."""
        return self.labels == self.predicted

    @property
    def confidence(self) -> Tensor:
        """The probability of the class that was predicted, float32 (N,)."""
        return self.probabilities.gather(1, self.predicted[:, None])[:, 0]

    def confusion(self) -> Tensor:
        """Count what each class was taken for: int64 (K, K), rows true classes, columns predicted ones."""
        classes = self.probabilities.shape[1]
        cells = torch.bincount(self.labels * classes + self.predicted, minlength=classes * classes)
        return cells.view(classes, classes)


@dataclass
class Keep:
    """Collects the predictions of a pass: give it to `evaluate` as `keep`.

    Attributes:
        temperature: what logits are divided by for the probabilities.
    """

    temperature: float = 1.0
    parts: list[tuple[Tensor, ...]] = field(default_factory=list)

    def __call__(self, logits: Tensor, labels: Tensor) -> None:
        """Take one batch: logits (B, K) float32, labels (B,) int64."""
        best = logits.argmax(1)  # of equal ones the first, as in `places`
        before = () if self.temperature == 1 else (logits.softmax(1).cpu(),)
        self.parts.append((labels.cpu(), best.cpu(), cooled(logits, self.temperature).softmax(1).cpu(), *before))

    def predictions(self) -> Predictions:
        """All that was taken."""
        return Predictions(*(torch.cat(part) for part in zip(*self.parts, strict=True)))


@torch.inference_mode()
def evaluate(
    module: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    forward: Callable[[Tensor], Tensor] | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
    keep: Callable[[Tensor, Tensor], None] | None = None,
    classes: int = 0,
) -> Metrics:
    """Run the module in eval mode over batches of one split, each image once.

    Args:
        batches: row numbers, images (B, C, H, W) uint8 and labels (B,) int64, on the module's device.
        prepare: uint8 images to what the module takes.
        autocast: makes the context of the forward pass. forward: called in the module's place: the
            same, compiled, or over several views of each image (see `zoo.evaluate.views`).
        total: sums over the processes that evaluate the rest of the split (see `zoo.train.processes.world`).
        keep: is given the logits (B, K) float32 and labels of each batch (see `Keep`).
        classes: how many there are, for a process without a batch; needed with `total` only.
    Returns:
        The metrics; `top5` counts a label among the five largest logits (or all, if fewer).
    """
    sums: Tensor | None = None
    for logits, labels in outputs(module, batches, prepare, autocast=autocast, forward=forward):
        batch = _sums(logits, labels)
        if keep is not None:
            keep(logits, labels)
        sums = batch if sums is None else sums + batch
    if total is not None:
        sums = total(torch.zeros(3 + 3 * classes, dtype=torch.float64) if sums is None else sums)
    if sums is None:
        raise ValueError("evaluate: the split has no images")
    return _metrics(sums.cpu())


def _metrics(sums: Tensor) -> Metrics:
    """What the sums of `_sums` over all batches say."""
    (loss, first, fifth), per_class = sums[:3].tolist(), sums[3:].long().view(3, -1)
    macro = averages(scores_of(*per_class))["macro"]
    count = int(per_class[2].sum())
    return Metrics(loss / count, first / count, fifth / count, round(first), count, macro["recall"], macro["f1"])


@torch.inference_mode()
def outputs(
    module: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The module's logits (B, K) float32, in eval mode, with the labels of each batch; arguments as of `evaluate`."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    for _, images, labels in batches:
        with autocast():
            logits = (forward or module)(prepare(images)).float()
        yield logits, labels
    _restore(modes)


def _restore(modes: list[tuple[nn.Module, bool]]) -> None:
    """Each part as it was: frozen batch norms stay in eval mode while the rest trains."""
    for part, training in modes:
        part.training = training


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed loss, top-1 and top-5 hits of one batch, then per class its hits, the images taken for it, and its images.

    Returns:
        (3 + 3 * K,), float64 on the device (float32 on MPS).
    """
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    loss = F.cross_entropy(logits, labels, reduction="sum")
    place = places(logits, labels)
    sums = torch.stack((loss.to(wide), (place < 1).sum().to(wide), (place < 5).sum().to(wide)))
    per_class = torch.zeros(3, logits.shape[1], dtype=wide, device=logits.device)
    one = torch.ones_like(labels, dtype=wide)
    for row, (index, counted) in enumerate(((labels, (place < 1).to(wide)), (logits.argmax(1), one), (labels, one))):
        per_class[row].index_add_(0, index, counted)
    return torch.cat((sums, per_class.flatten()))


def places(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes are before the label's in a row's order: largest logit first, of equal ones the first class.

    Args:
        logits: (B, K). labels: int64 (B,).
    Returns:
        int64 (B,), 0 for a label that is predicted. (`topk` has no rule for equal logits: which class it takes
        depends on how many are asked for.) Where a logit is no number, no label is predicted.
    """
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return (~(logits <= own) | ((logits == own) & earlier)).sum(1)
