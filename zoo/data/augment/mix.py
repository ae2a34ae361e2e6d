"""Mixup and CutMix of a batch with itself; targets become class shares."""

from __future__ import annotations

from types import MappingProxyType
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.catalogue import augmentation
from zoo.data.augment.interface import Drawn, Operation, Operations

MixT = TypeVar("MixT", augmentation.Mixup, augmentation.CutMix)


def soft_targets(labels: Tensor, num_classes: int) -> Tensor:
    """Class shares (B, K), float32: one-hot of int64 (B,), sets (B, K) as 0 and 1; float targets are passed through."""
    if labels.ndim == 2:
        return labels.float()
    return labels if labels.is_floating_point() else F.one_hot(labels, num_classes).float()


def mixup(images: Tensor, targets: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each image with its mirror in the batch (first with last).

    Args:
        images: float (B, C, H, W). targets: float (B, K). share: float, no axes: of the image itself.
    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", equation 1.
    """
    return torch.lerp(images.flip(0), images, share), torch.lerp(targets.flip(0), targets, share)


def cutmix(images: Tensor, targets: Tensor, share: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a box of its mirror in the batch into each image; the same box for all.

    The box covers 1 - `share` of the image before it is clipped at the border; the targets are mixed by
    the area that is left.

    Args:
        images: (B, C, H, W). targets: float (B, K). share, row, column: float, no axes; the box's
            centre as fractions of height and width.
    Source: Yun et al., "CutMix", section 3.1.
    """
    height, width = images.shape[-2:]
    half = (1 - share).clamp(0, 1).sqrt() / 2
    in_rows = _within(height, row, half, images.device)
    in_columns = _within(width, column, half, images.device)
    box = in_rows.view(-1, 1) & in_columns
    left = 1 - box.float().mean()
    return torch.where(box, images.flip(0), images), torch.lerp(targets.flip(0), targets, left)


def _within(length: int, centre: Tensor, half: Tensor, device: torch.device) -> Tensor:
    place = torch.arange(length, device=device)
    middle = (centre * length).floor()
    reach = (half * length).floor()
    return (place >= middle - reach) & (place < middle + reach)


def beta(alpha: float, generator: torch.Generator | None) -> Tensor:
    """One draw of Beta(alpha, alpha), as the ratio of two gamma draws."""
    gamma = torch._standard_gamma(torch.full((2,), alpha), generator=generator)
    return gamma[0] / gamma.sum().clamp(min=torch.finfo(torch.float32).tiny)


class _Mixing(Operation[MixT]):
    """Mixes a batch with itself: one draw for all of its images."""

    finished = True
    soft = True

    def draw(self, numbers: Tensor, generator: torch.Generator | None, epoch: int) -> int:
        """The first row is the share of the image itself; each other row is one number."""
        numbers[0] = beta(self.step.alpha, generator)
        numbers[1:] = numbers[1:, :1].clone()  # the same for all images, so that any part of the batch knows it
        return 0

    def share(self, drawn: Drawn) -> Tensor:
        """What an image keeps of itself; all of it where the step does not apply."""
        return torch.where(drawn.uniform[1, 0] < self.step.p, drawn.uniform[0, 0], 1.0)


class Mixup(_Mixing[augmentation.Mixup]):
    """Blend with another image."""

    def rows(self) -> int:
        """The share, and whether to mix."""
        return 2

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Blend images and targets."""
        return mixup(images, targets, self.share(drawn))


class CutMix(_Mixing[augmentation.CutMix]):
    """Paste a box of another image."""

    def rows(self) -> int:
        """The share, whether to mix, and the centre of the box."""
        return 4

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Paste the box, and mix the targets by area."""
        return cutmix(images, targets, self.share(drawn), drawn.uniform[2, 0], drawn.uniform[3, 0])


OPERATIONS: Operations = MappingProxyType({augmentation.Mixup: Mixup, augmentation.CutMix: CutMix})
