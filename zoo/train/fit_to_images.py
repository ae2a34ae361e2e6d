"""Modules whose initial weights depend on the training images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

PIXELS = 5000 * 32 * 32
"""Total pixels of the images that are passed: 5,000 images of CIFAR-10, fewer if they are larger."""


class Batches(Protocol):
    """A source of images by their row numbers."""

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) uint8 and labels (B,) of these rows, on the device."""


def fit_to_images(
    module: nn.Module, data: Batches, count: int, prepare: Callable[[Tensor], Tensor], device: torch.device
) -> bool:
    """Pass the first training images to every submodule that has a method `fit_to_images(images)`.

    Called once, before the first step of a run with newly initialised weights. The images are the first ones of
    the training split: not augmented, normalised if the recipe normalises, float32 (N, 3, H, W), on the device. The
    method changes weights in place, as a function of the images only.

    Args:
        count: number of images in the split. prepare: converts uint8 images to the input of the module.
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
