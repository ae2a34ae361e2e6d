"""Test-time augmentation: the logits of an image averaged over views of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.catalogue.recipe import TestTimeViews
from zoo.errors import ShapeError
from zoo.models.calls import is_recorded

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


def views(forward: Forward, tta: TestTimeViews, margin: float | None = None) -> Forward:
    """The forward pass over all views of each image in place of the image.

    Args:
        forward: (B, C, H, W) prepared images to (B, K) logits.
        tta: "none" gives `forward` itself back. "mirror": the mean over the image and its mirror image.
            "mirror-translate": half of that, and a quarter each of the same for the image moved by one
            pixel up-left and down-right, its border reflected. "dihedral": a square image and
            its mirror image, turned by 0, 90, 180 and 270 degrees; the mirrored pair's mean at each turn, and
            the logarithm of the mean of their exponentials over the turns. That takes how the image lies for
            an unknown, and leaves the word to the turns in which the network sees most.
        margin: an image whose two largest probabilities differ by at least this keeps the logits of the image itself;
            the views of all others go through the network together. None: all images are seen over all views.
            In a graph (while torch traces) all views of all images are computed, as it cannot leave some out.

    Source:
        Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3 (its multi-crop evaluation).
    """
    if tta == "none":
        return forward

    def over_all(images: Tensor) -> Tensor:
        return _joined([forward(view) for view in _views_of(images, tta)], tta)

    def over_unsure(images: Tensor) -> Tensor:
        assert margin is not None
        if is_recorded():
            logits = [forward(view) for view in _views_of(images, tta)]
            return torch.where((_lead(logits[0]) < margin)[:, None], _joined(logits, tta), logits[0])
        alone = forward(images)
        unsure = (_lead(alone) < margin).nonzero()[:, 0]
        if not len(unsure):
            return alone
        seen = torch.cat(list(_views_of(images.index_select(0, unsure), tta)))
        found = torch.cat([forward(part) for part in seen.split(len(images))])  # as many at once as before
        return alone.index_copy(0, unsure, _joined(found.split(len(unsure)), tta))

    return over_all if margin is None else over_unsure


def _lead(logits: Tensor) -> Tensor:
    """By how much the largest probability of each image exceeds the second: (B, K) to float32 (B,)."""
    first = logits.float().softmax(1).topk(min(2, logits.shape[1])).values
    return 2 * first[:, 0] - first.sum(1)


def _views_of(images: Tensor, tta: TestTimeViews) -> Iterator[Tensor]:
    """The views of (B, C, H, W) images, each of the same shape, the images first; a mirror image follows its image."""
    if tta == "dihedral":
        whole = [torch.rot90(images, k, (-2, -1)) for k in range(4)]
    elif tta == "mirror-translate":
        height, width = images.shape[-2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        whole = [images, padded[..., :height, :width], padded[..., 2:, 2:]]
    else:
        whole = [images]
    for view in whole:
        yield view
        yield view.flip(-1)


def _joined(logits: Sequence[Tensor], tta: TestTimeViews) -> Tensor:
    """One (B, K) of those of the views."""
    pairs = [(image + mirrored) / 2 for image, mirrored in zip(logits[::2], logits[1::2], strict=True)]
    if tta == "dihedral":
        return torch.logsumexp(torch.stack(pairs), 0) - math.log(4)
    if tta == "mirror-translate":
        return (pairs[0] + torch.stack(pairs[1:]).mean(0)) / 2
    return pairs[0]


def cooled(logits: Tensor, temperature: float) -> Tensor:
    """Logits of any shape divided by a temperature; of 1, the logits themselves, to the bit."""
    return logits if temperature == 1 else logits / temperature
