"""The steps of an augmentation, as frozen structs, and the base of every struct of the catalogue.

`zoo.catalogue.spec` offers all of them; this is the first page of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from zoo.base.structs import (
    Count,
    NonNegative,
    Positive,
    PositiveFloat,
    PositiveFraction,
    Probability,
    Struct,
)


class Augmentation(Struct, frozen=True, tag_field="op"):
    """Base of the augmentation steps of a recipe; `op` in TOML names the step."""


class Flip(Augmentation, frozen=True, tag="flip"):
    """Mirror left-right with probability `p`; `alternate` flips every image every second epoch."""

    p: Probability = 0.5
    alternate: bool = False


class VerticalFlip(Augmentation, frozen=True, tag="vertical-flip"):
    """Mirror top-bottom with probability `p`."""

    p: Probability = 0.5


class Transpose(Augmentation, frozen=True, tag="transpose"):
    """Exchange rows and columns with probability `p` (square images)."""

    p: Probability = 0.5


class Crop(Augmentation, frozen=True, tag="crop"):
    """Pad by `padding` pixels on each side, then cut the original size at a random place."""

    padding: Positive = 4
    mode: Literal["zero", "reflect"] = "zero"


class RandomResizedCrop(Augmentation, frozen=True, tag="random-resized-crop"):
    """Cut a random box and scale it to the full size, as torchvision defines it; the first step.

    `scale`: the box's area as a share of the image's; `ratio`: its width over its height.
    """

    scale: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)


class Jitter(Augmentation, frozen=True, tag="jitter"):
    """Colour jitter as torchvision's ColorJitter defines it: factors drawn per image."""

    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0


class Brightness(Augmentation, frozen=True, tag="brightness"):
    """Multiply pixel values by `factor` with probability `p`, clamped to the value range."""

    factor: NonNegative
    p: Probability = 1.0


class Grayscale(Augmentation, frozen=True, tag="grayscale"):
    """Luma (ITU-R 601) in all three channels with probability `p`."""

    p: Probability = 1.0


class Cutout(Augmentation, frozen=True, tag="cutout"):
    """Zero (after normalisation: the mean) one square of side `size` at a random place."""

    size: Positive


class RandAugment(Augmentation, frozen=True, tag="randaugment"):
    """`n` random operations of torchvision's RandAugment at magnitude `magnitude` (of 0..30)."""

    n: Positive = 2
    magnitude: Count = 9


class Mixup(Augmentation, frozen=True, tag="mixup"):
    """Blend each image and its label with another of the batch, weight from Beta(alpha, alpha)."""

    alpha: PositiveFloat = 0.2
    p: Probability = 1.0


class CutMix(Augmentation, frozen=True, tag="cutmix"):
    """Paste a box of another image of the batch, labels mixed by area, from Beta(alpha, alpha)."""

    alpha: PositiveFloat = 1.0
    p: Probability = 1.0


Step = (
    Flip
    | VerticalFlip
    | Transpose
    | Crop
    | RandomResizedCrop
    | Jitter
    | Brightness
    | Grayscale
    | Cutout
    | RandAugment
    | Mixup
    | CutMix
)
