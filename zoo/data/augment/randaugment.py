"""RandAugment with an operation per image: images that drew the same one are changed together."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from zoo.catalogue import augmentation
from zoo.data.augment.interface import Drawn, Operation, Operations
from zoo.errors import InputError

BINS = 31
SIGNED = 9
"""The changes from ShearX to Sharpness (numbers 1..9) draw a sign; see `CHANGES`."""

MOST = 30
"""The largest magnitude."""

Change = Callable[[Tensor, float], Tensor]


def _functions() -> Any:
    """torchvision's functions, which are slow to import, and needed where RandAugment is a step."""
    from torchvision.transforms.v2 import functional

    return functional


def _sheared(images: Tensor, x: float, y: float) -> Tensor:
    angles = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return _functions().affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=angles, center=[0, 0])


def _moved(images: Tensor, x: float, y: float) -> Tensor:
    return _functions().affine(images, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0])


CHANGES: tuple[tuple[str, float, Change], ...] = (
    ("Identity", 0.0, lambda images, m: images),
    ("ShearX", 0.3, lambda images, m: _sheared(images, m, 0.0)),
    ("ShearY", 0.3, lambda images, m: _sheared(images, 0.0, m)),
    ("TranslateX", 150.0 / 331.0, lambda images, m: _moved(images, m * images.shape[-1], 0.0)),
    ("TranslateY", 150.0 / 331.0, lambda images, m: _moved(images, 0.0, m * images.shape[-2])),
    ("Rotate", 30.0, lambda images, m: _functions().rotate(images, angle=m)),
    ("Brightness", 0.9, lambda images, m: _functions().adjust_brightness(images, 1.0 + m)),
    ("Color", 0.9, lambda images, m: _functions().adjust_saturation(images, 1.0 + m)),
    ("Contrast", 0.9, lambda images, m: _functions().adjust_contrast(images, 1.0 + m)),
    ("Sharpness", 0.9, lambda images, m: _functions().adjust_sharpness(images, 1.0 + m)),
    ("Posterize", -4.0, lambda images, m: _functions().posterize(images, bits=8 + round(m))),
    ("Solarize", -1.0, lambda images, m: _functions().solarize(images, threshold=255.0 * (1.0 + m))),
    ("AutoContrast", 0.0, lambda images, m: _functions().autocontrast(images)),
    ("Equalize", 0.0, lambda images, m: _functions().equalize(images)),
)
"""Name, magnitude at the last bin, and what is done: torchvision's table.

Source: Cubuk et al., "RandAugment", and torchvision.transforms.v2.RandAugment.
"""


def magnitude_of(operation: int, bin_: int) -> float:
    """The magnitude of operation number `operation` at `bin_` of 0..30."""
    # In float32, as torchvision has it: a factor off by one unit turns some pixels by one level.
    return float(torch.linspace(0.0, CHANGES[operation][1], BINS)[bin_])


def apply_one(images: Tensor, operation: int, bin_: int, negative: bool) -> Tensor:
    """One operation on a batch of uint8 (B, 3, H, W)."""
    magnitude = magnitude_of(operation, bin_)
    signed = 1 <= operation <= SIGNED
    return CHANGES[operation][2](images, -magnitude if negative and signed else magnitude)


def randaugment(images: Tensor, draws: Tensor, bin_: int) -> Tensor:
    """Change each image by the operations that it drew.

    Args:
        images: uint8 (B, 3, H, W). draws: float32 (2 n, B) on the CPU, uniform in 0..1: per round, the
            operation's and the sign's. They stay on the host, since they decide what is launched.
        bin_: magnitude, 0..30.
    Returns:
        uint8 (B, 3, H, W).
    """
    for operations, signs in draws.view(-1, 2, draws.shape[-1]):
        images = _round(images, operations, signs, bin_)
    return images


def _round(images: Tensor, operations: Tensor, signs: Tensor, bin_: int) -> Tensor:
    number = (operations * len(CHANGES)).long().clamp(max=len(CHANGES) - 1)
    negative = (signs <= 0.5) & (number >= 1) & (number <= SIGNED)
    group, order = (number * 2 + negative).sort(stable=True)
    codes, counts = group.unique_consecutive(return_counts=True)
    # One copy to the device for all groups, for which a GPU is not waited for.
    divided = order.to(images.device, non_blocking=images.is_cuda).split(counts.tolist())
    result = images.clone()
    for code, rows in zip(codes.tolist(), divided, strict=True):
        if code == 0:  # the operation that changes nothing
            continue
        changed = apply_one(images.index_select(0, rows), code // 2, bin_, bool(code % 2))
        result.index_copy_(0, rows, changed)
    return result


class RandAugment(Operation[augmentation.RandAugment]):
    """Random changes of torchvision's RandAugment."""

    compilable = False  # it groups images on the host

    def check(self, place: int, size: tuple[int, int]) -> None:
        """A magnitude that torchvision has."""
        if self.step.magnitude > MOST:
            raise InputError(f"augment randaugment.magnitude is {self.step.magnitude}; allowed: 0..{MOST}")

    def rows(self) -> int:
        """The change and its sign, in each round."""
        return 2 * self.step.n

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Change each image by its own draws; float images are rounded to uint8."""
        if images.dtype != torch.uint8:
            images = (images * 255).round().to(torch.uint8)
        return randaugment(images, drawn.host, self.step.magnitude), targets


OPERATIONS: Operations = MappingProxyType({augmentation.RandAugment: RandAugment})
