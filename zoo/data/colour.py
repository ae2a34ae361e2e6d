"""Colour augmentation of whole batches with one factor per image, equal to torchvision's functions.

Each takes float images (B, 3, H, W) with values in 0..1 and float factors (B,), and gives the same
shape, clamped to 0..1. torchvision.transforms.v2.functional takes one factor for a whole call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.data.geometry import choose

LUMA = (0.2989, 0.587, 0.114)
"""ITU-R 601 weights, rounded as torchvision rounds them."""


def _per_image(factor: Tensor) -> Tensor:
    return factor.view(-1, 1, 1, 1)


def luma(images: Tensor) -> Tensor:
    """Gray value: (B, 3, H, W) to (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    weight = _per_image(factor)
    return (images * weight + other * (1 - weight)).clamp(0, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by the factor (>= 0)."""
    return (images * _per_image(factor)).clamp(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean gray value; factor 1 keeps the image."""
    return _blend(images, luma(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray image; factor 1 keeps the image."""
    return _blend(images, luma(images), factor)


def adjust_hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by `factor` of a full circle (-0.5..0.5).

    In hexcone terms, with V the largest channel and D = largest - smallest, channel n of the result is
    V - D * clamp(min(k, 4 - k), 0, 1) with k = (n + 6 * hue) mod 6 and n = 5, 3, 1 for red, green, blue.
    Source: Smith, "Color Gamut Transform Pairs" (1978), in the branch-free form of the HSV article's
    "alternative" conversion.
    """
    red, green, blue = images.unbind(1)
    high, low = images.amax(1), images.amin(1)
    span = high - low
    safe = torch.where(span > 0, span, torch.ones_like(span))
    first = torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    hue = torch.where(high == red, (green - blue) / safe, first)
    turned = hue + 6 * factor.view(-1, 1, 1)
    channels = []
    for place in (5, 3, 1):
        k = torch.remainder(turned + place, 6)
        channels.append(high - span * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1).clamp(0, 1)


def grayscale(images: Tensor, chosen: Tensor) -> Tensor:
    """The gray value in all channels of the chosen images: (B, 3, H, W) and bool (B,)."""
    return choose(chosen, luma(images).expand_as(images), images)
