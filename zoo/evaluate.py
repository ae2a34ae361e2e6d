"""Logits to metrics: one exact pass over a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Metrics:
    """What one pass over a split gives: counts are exact, `loss` is the mean cross entropy."""

    loss: float
    top1: float
    top5: float
    correct: int
    count: int

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for a result record."""
        return asdict(self)


@torch.inference_mode()
def evaluate(
    module: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    forward: Callable[[Tensor], Tensor] | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Metrics:
    """Run the module in eval mode over batches of one split, each image once.

    Args:
        batches: row numbers, images (B, C, H, W) uint8 and labels (B,) int64, on the module's device.
        prepare: uint8 images to what the module takes.
        autocast: makes the context of the forward pass. forward: called in the module's place: the
            same, compiled, or over several views of each image (see `zoo.tta`).
        total: sums over the processes that evaluate the rest of the split (see `zoo.train.world`).
    Returns:
        The metrics; `top5` counts a label among the five largest logits (or all, if fewer).
    """
    training = module.training
    module.eval()
    sums: Tensor | None = None
    count = 0
    for _, images, labels in batches:
        with autocast():
            logits = (forward or module)(prepare(images))
        batch = _sums(logits.float(), labels)
        sums = batch if sums is None else sums + batch
        count += len(labels)
    module.train(training)
    if total is not None:
        own = torch.zeros(3, dtype=torch.float64) if sums is None else sums
        everybody = total(torch.cat((own, own.new_tensor([count]))))
        sums, count = everybody[:3], round(everybody[3].item())
    if sums is None:
        raise ValueError("evaluate: the split has no images")
    loss, first, fifth = sums.tolist()
    return Metrics(loss / count, first / count, fifth / count, round(first), count)


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed loss, top-1 and top-5 hits of one batch, as float64 on the device (float32 on MPS)."""
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    loss = F.cross_entropy(logits, labels, reduction="sum")
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack((loss.to(wide), best[:, 0].sum().to(wide), best.any(dim=1).sum().to(wide)))


@torch.inference_mode()
def confusion(
    module: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    *,
    classes: int,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Count what each class was taken for, by the same forward pass as `evaluate`'s, in fp32.

    Args:
        module, batches, prepare, forward: as for `evaluate`. classes: number of classes K.
    Returns:
        int64 (K, K) on the CPU: rows are the true classes, columns the predicted ones.
    """
    training = module.training
    module.eval()
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    for _, images, labels in batches:
        # The same topk as in `evaluate`: ties must fall the same way.
        predicted = (forward or module)(prepare(images)).float().topk(min(5, classes), dim=1).indices[:, 0]
        counts += torch.bincount((labels * classes + predicted).cpu(), minlength=classes * classes)
    module.train(training)
    return counts.view(classes, classes)
