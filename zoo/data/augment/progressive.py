"""Smaller images in the first epochs: a part of each, or the whole of it scaled down."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.catalogue import augmentation
from zoo.data.augment.geometry import window
from zoo.data.augment.interface import Drawn, Operation, Operations, whole


def smaller(step: augmentation.ProgressiveSize, size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that the step gives images of `size`: at least a pixel each."""
    height, width = (max(1, round(step.scale * side)) for side in size)
    return height, width


def sizes_of_epochs(steps: Sequence[augmentation.Step], size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """The (height, width) of training images in each stage in which they are smaller than `size`, first to last."""
    own = [step for step in steps if isinstance(step, augmentation.ProgressiveSize)]
    found = []
    for begin in sorted({0, *(step.epochs for step in own)}):
        now = size
        for step in own:
            now = smaller(step, now) if begin < step.epochs else now
        found.append(now)
    return tuple(stage for stage in found if stage != size)


class ProgressiveSize(Operation[augmentation.ProgressiveSize]):
    """Smaller images in the first epochs, as a function of the epoch alone.

    Source: "progressive resizing" of fast.ai, later of MosaicML's Composer, which has the same two modes; ours has
    stages of whole epochs, so that an epoch's batches have one size.
    """

    def rows(self) -> int:
        """Top and left, where a part is cut."""
        return 2 if self.step.mode == "crop" else 0

    def draw(self, numbers: Tensor, generator: torch.Generator | None, epoch: int) -> int:
        """Whether images are smaller in this epoch: 1 or 0."""
        return int(epoch < self.step.epochs)

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Cut each image at its own place, or scale all."""
        full = (images.shape[2], images.shape[3])
        size = smaller(self.step, full)
        if not drawn.order or size == full:
            return images, targets
        if self.step.mode == "crop":
            top, left = (
                whole(row, before - after + 1) for row, before, after in zip(drawn.uniform, full, size, strict=True)
            )
            return window(images, top, left, size), targets
        scaled = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        return scaled if images.is_floating_point() else scaled.round().clamp_(0, 255).to(images.dtype), targets


OPERATIONS: Operations = MappingProxyType({augmentation.ProgressiveSize: ProgressiveSize})
