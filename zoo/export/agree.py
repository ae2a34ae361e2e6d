"""Whether an exported file gives the logits of the module that it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from zoo.evaluate.classifier import Classifier
from zoo.export.facts import Takes
from zoo.export.graph import ExportError, sample, wrapped

Run = Callable[[Tensor], Tensor]
"""A loaded file: images in, logits out."""

BATCHES: Final = (1, 2, 5)
"""The batches that a file of any batch is run with."""

Tolerance: Final = 1e-4


@dataclass(frozen=True)
class Agreement:
    """How far the logits of a file lie from those of the module.

    Attributes:
        largest: the largest absolute difference over all images and classes.
        scale: the largest absolute logit, to judge it by. spread: the largest standard deviation of a logit
            over the images: 0 means that the model says the same of every image.
        same_top1: images whose largest logit is the same one. images: how many were looked at.
        batches: the batch sizes that were run.
    """

    largest: float
    scale: float
    spread: float
    same_top1: int
    images: int
    batches: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**asdict(self), "batches": list(self.batches)}

    def within(self, tolerance: float) -> bool:
        """Whether no logit differs by more than `tolerance` (times the largest logit, where that is over 1)."""
        return math.isfinite(self.largest) and self.largest <= tolerance * max(1.0, self.scale)


def agreement(classifier: Classifier, run: Run, *, batch: int | None, takes: Takes, seed: int = 1) -> Agreement:
    """Run the file and the module over the same random images, at several batch sizes.

    Raises:
        ExportError: the file gives another shape, or does not run at some batch size.
    """
    module = wrapped(classifier, takes)
    logits: list[tuple[Tensor, Tensor]] = []
    batches = (batch,) if batch else BATCHES
    for count in batches:
        images = sample(classifier, count, takes=takes, seed=seed + count)
        with torch.inference_mode():
            wanted = module(images)
        got = run(images)
        if got.shape != wanted.shape:
            raise ExportError(
                f"{classifier.name}: the file gives {tuple(got.shape)} of a batch of {count}; the module "
                f"{tuple(wanted.shape)}"
            )
        logits.append((wanted.double(), got.double()))
    return judged(logits, batches)


def judged(logits: Sequence[tuple[Tensor, Tensor]], batches: tuple[int, ...]) -> Agreement:
    """Compare logits batch by batch: the module's (B, K) and the file's, both float64."""
    wanted, got = (torch.cat(part) for part in zip(*logits, strict=True))
    return Agreement(
        largest=float((wanted - got).abs().max()),
        scale=float(wanted.abs().max()),
        spread=float(wanted.std(0, correction=0).max()),
        same_top1=int((wanted.argmax(1) == got.argmax(1)).sum()),
        images=len(wanted),
        batches=batches,
    )
