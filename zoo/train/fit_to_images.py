"""Modules that begin with what the training images are like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

PIXELS = 5000 * 32 * 32
"""Of the images that are shown: 5,000 of CIFAR-10, fewer where they are larger."""


class Batches(Protocol):
    """Where images are taken from by their rows."""

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) uint8 and labels (B,) of these rows, on the device."""


def fit_to_images(
    module: nn.Module, data: Batches, count: int, prepare: Callable[[Tensor], Tensor], device: torch.device
) -> bool:
    """Show the first training images to every submodule that has a method `fit_to_images(images)`.

    Called once, before the first step of a run that begins with fresh weights. The images are those that the
    training split begins with, not augmented, normalised, float32 (N, 3, H, W) on the device; a method changes
    weights in place, and as a function of the images alone.

    Args:
        count: images of the split. prepare: uint8 images to what the module takes.
    Returns:
        Whether there was such a submodule.
    """
    methods = [getattr(m, "fit_to_images", None) for m in module.modules()]
    fits = [method for method in methods if callable(method)]
    if not fits:
        return False
    first, _ = data.take(torch.arange(1, device=device))
    shown = min(count, max(1, PIXELS // (first.shape[-1] * first.shape[-2])))
    images, _ = data.take(torch.arange(shown, device=device))
    with torch.no_grad():
        for fit in fits:
            fit(prepare(images))
    return True
