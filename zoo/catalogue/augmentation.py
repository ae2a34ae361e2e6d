"""The steps of an augmentation, as frozen structs, and the base of every struct of the catalogue.

`zoo.catalogue.spec` offers all of them; this is the first page of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from zoo.base.structs import Count, NonNegative, Positive, PositiveFloat, PositiveFraction, Probability, Struct


class Augmentation(Struct, frozen=True, tag_field="op"):
    """Base of the augmentation steps of a recipe; `op` in TOML names the step."""


class Flip(Augmentation, frozen=True, tag="flip"):
    """Mirror left-right with probability `p`, or every image every second epoch.

    Attributes:
        p: Probability for each image.
        alternate: Whether every image is mirrored every second epoch, in place of chance.
    """

    p: Probability = 0.5
    alternate: bool = False


class VerticalFlip(Augmentation, frozen=True, tag="vertical-flip"):
    """Mirror top-bottom with probability `p`.

    Attributes:
        p: Probability for each image.
    """

    p: Probability = 0.5


class Transpose(Augmentation, frozen=True, tag="transpose"):
    """Exchange rows and columns with probability `p` (square images).

    Attributes:
        p: Probability for each image.
    """

    p: Probability = 0.5


class Crop(Augmentation, frozen=True, tag="crop"):
    """Pad by `padding` pixels on each side, then cut the original size at a random place.

    Attributes:
        padding: Pixels added on each side.
        mode: What they hold: zeros, or the image reflected at its edge.
    """

    padding: Positive = 4
    mode: Literal["zero", "reflect"] = "zero"


class RandomResizedCrop(Augmentation, frozen=True, tag="random-resized-crop"):
    """Cut a random box and scale it to the full size, as torchvision defines it; the first step.

    Attributes:
        scale: Smallest and largest area of the box as a share of the image's.
        ratio: Smallest and largest width of the box over its height.
    """

    scale: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)


class ProgressiveSize(Augmentation, frozen=True, tag="progressive-size"):
    """Smaller images in the first epochs, which saves time; the scales of several such steps multiply.

    Attributes:
        epochs: Epochs from the first in which images are smaller.
        scale: Their sides as a share of what they are later, and at evaluation.
        mode: Whether each image is cut at a random place, or scaled down whole.
    """

    epochs: Positive
    scale: PositiveFraction
    mode: Literal["crop", "resize"] = "crop"


class Jitter(Augmentation, frozen=True, tag="jitter"):
    """Colour jitter as torchvision's ColorJitter defines it: factors drawn per image.

    Attributes:
        brightness: Brightness is multiplied by a factor in 1 - brightness..1 + brightness. 0: unchanged.
        contrast: Contrast is multiplied by a factor in 1 - contrast..1 + contrast. 0: unchanged.
        saturation: Saturation is multiplied by a factor in 1 - saturation..1 + saturation. 0: unchanged.
        hue: The hue is turned by up to this share of a circle either way. 0: unchanged.
    """

    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0


class Brightness(Augmentation, frozen=True, tag="brightness"):
    """Multiply pixel values by `factor` with probability `p`, clamped to the value range.

    Attributes:
        factor: What pixel values are multiplied by.
        p: Probability for each image.
    """

    factor: NonNegative
    p: Probability = 1.0


class Grayscale(Augmentation, frozen=True, tag="grayscale"):
    """Luma (ITU-R 601) in all three channels with probability `p`.

    Attributes:
        p: Probability for each image.
    """

    p: Probability = 1.0


class Cutout(Augmentation, frozen=True, tag="cutout"):
    """Zero (after normalisation: the mean) one square of side `size` at a random place.

    Attributes:
        size: Side of the square in pixels.
    """

    size: Positive


class RandAugment(Augmentation, frozen=True, tag="randaugment"):
    """`n` random operations of torchvision's RandAugment at magnitude `magnitude` (of 0..30).

    Attributes:
        n: Operations for each image.
        magnitude: Strength of the operations, from 0 to 30.
    """

    n: Positive = 2
    magnitude: Count = 9


class Mixup(Augmentation, frozen=True, tag="mixup"):
    """Blend each image and its label with another of the batch, weight from Beta(alpha, alpha).

    Attributes:
        alpha: Parameter of the Beta distribution: the larger, the more even the blends.
        p: Probability for each batch.
    """

    alpha: PositiveFloat = 0.2
    p: Probability = 1.0


class CutMix(Augmentation, frozen=True, tag="cutmix"):
    """Paste a box of another image of the batch, labels mixed by area, from Beta(alpha, alpha).

    Attributes:
        alpha: Parameter of the Beta distribution that the area is drawn from.
        p: Probability for each batch.
    """

    alpha: PositiveFloat = 1.0
    p: Probability = 1.0


Step = (
    Flip
    | VerticalFlip
    | Transpose
    | Crop
    | RandomResizedCrop
    | ProgressiveSize
    | Jitter
    | Brightness
    | Grayscale
    | Cutout
    | RandAugment
    | Mixup
    | CutMix
)
