"""Colour augmentation of whole batches with one factor per image, equal to torchvision's functions.

Each takes float images (B, 3, H, W) with values in 0..1 and float factors (B,), and gives the same
shape, clamped to 0..1. torchvision.transforms.v2.functional takes one factor for a whole call.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor

from zoo.catalogue import augmentation
from zoo.data.augment.geometry import choose
from zoo.data.augment.interface import Drawn, OfChosenImages, Operation, Operations, unit

LUMA = (0.2989, 0.587, 0.114)
"""ITU-R 601 weights, rounded as torchvision rounds them."""

TINY = 1e-20
"""Added to a difference of channels that is divided by; far below the smallest one of 8-bit images."""


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
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    red, green, blue = images.contiguous().unbind(1)  # planes: each operation runs along whole rows
    high = torch.maximum(torch.maximum(red, green), blue)
    span = high - torch.minimum(torch.minimum(red, green), blue)
    scale = (span + TINY).reciprocal_().mul_(1 / 6)
    first = torch.where(high == green, (blue - red).mul_(scale).add_(2 / 6), (red - green).mul_(scale).add_(4 / 6))
    hue = torch.where(high == red, (green - blue).mul_(scale), first).add_(factor.view(-1, 1, 1))
    places = torch.arange(5, 0, -2, device=images.device).view(-1, 1, 1) / 6  # red, green, blue
    k = hue.unsqueeze(1) + places  # of a circle
    k = k.sub_(k.floor()).mul_(6).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)  # clamp(min(k, 4 - k), 0, 1)
    done = torch.addcmul(high.unsqueeze(1), span.unsqueeze(1), k, value=-1).clamp_(0, 1)
    return done.contiguous(memory_format=torch.channels_last) if last else done


def grayscale(images: Tensor, chosen: Tensor) -> Tensor:
    """The gray value in all channels of the chosen images: (B, 3, H, W) and bool (B,)."""
    return choose(chosen, luma(images).expand_as(images), images)


class Brightness(OfChosenImages[augmentation.Brightness]):
    """Multiply by a factor."""

    def change(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Multiply the chosen images."""
        return adjust_brightness(unit(images), torch.where(chosen, self.step.factor, 1.0))


class Grayscale(OfChosenImages[augmentation.Grayscale]):
    """The gray value in all channels."""

    def change(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Take the colour from the chosen images."""
        return grayscale(unit(images), chosen)


class Jitter(Operation[augmentation.Jitter]):
    """Colour jitter; the changes keep their cyclic order, and a draw says which is the first.

    torchvision draws any order; a rotation gives each change the same chance to be first, and keeps
    the number of graphs that the compiler sees at four or fewer.
    """

    def _active(self) -> list[tuple[float, float, Callable[[Tensor, Tensor], Tensor]]]:
        """Lowest and highest factor, and change, of each one that the step asks for."""
        step = self.step
        ranges: list[tuple[float, float, Callable[[Tensor, Tensor], Tensor]]] = []
        for width, change in (
            (step.brightness, adjust_brightness),
            (step.contrast, adjust_contrast),
            (step.saturation, adjust_saturation),
        ):
            if width > 0:
                ranges.append((max(0.0, 1 - width), 1 + width, change))
        if step.hue > 0:
            ranges.append((-step.hue, step.hue, adjust_hue))
        return ranges

    def rows(self) -> int:
        """One factor for each change."""
        return len(self._active())

    def draw(self, numbers: Tensor, generator: torch.Generator | None, epoch: int) -> int:
        """Which change comes first."""
        return int(torch.randint(max(1, len(numbers)), (), generator=generator))

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Change each image by its own factors."""
        images, active = unit(images), self._active()
        for number in range(len(active)):
            place = (number + drawn.order) % len(active)
            low, high, change = active[place]
            images = change(images, low + (high - low) * drawn.uniform[place])
        return images, targets


OPERATIONS: Operations = MappingProxyType(
    {augmentation.Brightness: Brightness, augmentation.Grayscale: Grayscale, augmentation.Jitter: Jitter}
)
