"""Mixup and CutMix of a batch with itself; targets become class shares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_targets(labels: Tensor, num_classes: int) -> Tensor:
    """Class shares (B, K), float32: one-hot of int64 (B,); float targets are passed through."""
    return labels if labels.is_floating_point() else F.one_hot(labels, num_classes).float()


def mixup(images: Tensor, targets: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each image with its mirror in the batch (first with last).

    Args:
        images: float (B, C, H, W). targets: float (B, K). share: float, no axes: of the image itself.
    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", equation 1.
    """
    return torch.lerp(images.flip(0), images, share), torch.lerp(targets.flip(0), targets, share)


def cutmix(
    images: Tensor, targets: Tensor, share: Tensor, row: Tensor, column: Tensor
) -> tuple[Tensor, Tensor]:
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
    kept = 1 - box.float().mean()
    return torch.where(box, images.flip(0), images), torch.lerp(targets.flip(0), targets, kept)


def _within(length: int, centre: Tensor, half: Tensor, device: torch.device) -> Tensor:
    place = torch.arange(length, device=device)
    middle = (centre * length).floor()
    reach = (half * length).floor()
    return (place >= middle - reach) & (place < middle + reach)
