"""Test-time augmentation: the logits of an image averaged over views of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.spec import TestTimeViews

Forward = Callable[[Tensor], Tensor]


def views(forward: Forward, tta: TestTimeViews) -> Forward:
    """The forward pass over all views of each image in place of the image.

    Args:
        forward: (B, C, H, W) prepared images to (B, K) logits.
        tta: "none" gives `forward` itself back. "mirror": the mean over the image and its mirror image.
            "mirror-translate": half of that, and a quarter each of the same for the image moved by one
            pixel up-left and down-right, its border reflected.

    Source:
        Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3 (its multi-crop evaluation).
    """
    if tta == "none":
        return forward

    def mirrored(images: Tensor) -> Tensor:
        return (forward(images) + forward(images.flip(-1))) / 2

    if tta == "mirror":
        return mirrored

    def moved(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        corners = (padded[..., :height, :width], padded[..., 2:, 2:])
        either = torch.stack([mirrored(c) for c in corners]).mean(0)
        return (mirrored(images) + either) / 2

    return moved
