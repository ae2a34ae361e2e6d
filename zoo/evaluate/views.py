"""Test-time augmentation: the logits of an image averaged over views of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.catalogue.recipe import TestTimeViews
from zoo.errors import ShapeError

Forward = Callable[[Tensor], Tensor]


def refuse_views(tta: TestTimeViews, height: int, width: int) -> None:
    """Say now what would otherwise end a run at its last evaluation.

    Raises:
        ShapeError: the views need square images.
    """
    if tta == "dihedral" and height != width:
        raise ShapeError(
            f"tta dihedral turns images by quarters and needs square ones, these are {height}x{width}; "
            "pass --image-size, or set recipe.tta to mirror"
        )


def views(forward: Forward, tta: TestTimeViews) -> Forward:
    """The forward pass over all views of each image in place of the image.

    Args:
        forward: (B, C, H, W) prepared images to (B, K) logits.
        tta: "none" gives `forward` itself back. "mirror": the mean over the image and its mirror image.
            "mirror-translate": half of that, and a quarter each of the same for the image moved by one
            pixel up-left and down-right, its border reflected. "dihedral": a square image and
            its mirror image, turned by 0, 90, 180 and 270 degrees; the mirrored pair's mean at each turn, and
            the logarithm of the mean of their exponentials over the turns. That takes how the image lies for
            an unknown, and leaves the word to the turns in which the network sees most.

    Source:
        Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3 (its multi-crop evaluation).
    """
    if tta == "none":
        return forward

    def mirrored(images: Tensor) -> Tensor:
        return (forward(images) + forward(images.flip(-1))) / 2

    if tta == "mirror":
        return mirrored

    def turned(images: Tensor) -> Tensor:
        turns = torch.stack([mirrored(torch.rot90(images, k, (-2, -1))) for k in range(4)])
        return torch.logsumexp(turns, 0) - math.log(4)

    if tta == "dihedral":
        return turned

    def moved(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        corners = (padded[..., :height, :width], padded[..., 2:, 2:])
        either = torch.stack([mirrored(c) for c in corners]).mean(0)
        return (mirrored(images) + either) / 2

    return moved


def cooled(logits: Tensor, temperature: float) -> Tensor:
    """Logits of any shape divided by a temperature; of 1, the logits themselves, to the bit."""
    return logits if temperature == 1 else logits / temperature
