"""A random part of an image, brought to the training size: where it lies, and the cut from a PIL image.

What a sample gets is a function of (key, row) alone, where the key is one of (seed, epoch): see
`zoo.data.augment.boxes.random_boxes` for the same numbers, drawn for a whole batch on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from zoo.data.seeds import mix_seed

ATTEMPTS = 10
CROP = 3
"""Tag of the random numbers of crops, beside those of a step (see `zoo.train.loop`)."""

UNIT = 2.0**-53

HANDED = 4
"""How many times the pixels of its result a crop may have that another process scales: memory is kept for so many."""


class Bounds(NamedTuple):
    """What a crop may be: its area as a share of the image's, and width over height.

    Attributes:
        reduced: whether a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, where the crop stays at least as large as
            its result.
        by_torch: whether a crop of at most `HANDED` times the pixels of its result is left to `zoo.data.files.scaling`,
            in a process that is not the one that decodes.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    reduced: bool = False
    by_torch: bool = False


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_key(seed: int, epoch: int) -> int:
    """The key of an epoch's crops."""
    return mix_seed(seed, epoch, CROP)


def uniform(key: int, row: int, number: int) -> float:
    """Random number `number` of a row: 53 bits, in 0..1."""
    return (mix_seed(key, row, number) >> 11) * UNIT


def random_box(key: int, row: int, height: int, width: int, bounds: Bounds) -> Box:
    """Where to cut an image of `height` x `width`: torchvision's RandomResizedCrop in distribution.

    Up to ten times an area (uniform) and an aspect (uniform in its logarithm) are drawn, until such a
    box fits; then its place is drawn. If none fits, the largest centred box whose aspect is allowed.

    Source: torchvision.transforms.v2.RandomResizedCrop; Szegedy et al., "Going deeper with
    convolutions", section 6.
    """
    low, high = math.log(bounds.ratio[0]), math.log(bounds.ratio[1])
    for attempt in range(ATTEMPTS):
        share = bounds.scale[0] + (bounds.scale[1] - bounds.scale[0]) * uniform(key, row, 2 * attempt)
        aspect = math.exp(low + (high - low) * uniform(key, row, 2 * attempt + 1))
        area = height * width * share
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            top = int(uniform(key, row, 2 * ATTEMPTS) * (height - tall + 1))
            left = int(uniform(key, row, 2 * ATTEMPTS + 1) * (width - wide + 1))
            return Box(top, left, tall, wide)
    return centre_box(height, width, bounds.ratio)


def centre_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest centred box whose width over height lies within `ratio`."""
    wide = min(width, round(height * ratio[1])) if width / height > ratio[1] else width
    tall = min(height, round(width / ratio[0])) if width / height < ratio[0] else height
    return Box((height - tall) // 2, (width - wide) // 2, tall, wide)


@dataclass(frozen=True)
class RandomCut:
    """The rule (see `zoo.data.files.decode.Rule`) that a streamed training image is cut by.

    Attributes:
        size: (height, width) of the result.
    """

    key: int
    row: int
    bounds: Bounds
    size: tuple[int, int]

    def box(self, height: int, width: int) -> Box:
        """What is cut out of an upright image of `height` x `width`."""
        return random_box(self.key, self.row, height, width, self.bounds)

    def reduction(self, box: Box) -> int:
        """By how much an image may be reduced before this box is cut out of it: 1, 2, 4 or 8."""
        height, width = self.size
        fit = min(box.height // height, box.width // width) if self.bounds.reduced else 1
        return next((times for times in (8, 4, 2) if fit >= times), 1)

    def apply(self, image: Image.Image) -> Image.Image:
        """Cut, then scale."""
        box = self.box(image.height, image.width)
        return self.scaled(image.crop((box.left, box.top, box.left + box.width, box.top + box.height)))

    def scaled(self, cut: Image.Image) -> Image.Image:
        """Scale what was cut by PIL's bilinear filter, which averages when it shrinks; see `Bounds.by_torch`."""
        height, width = self.size
        left = self.bounds.by_torch and cut.width * cut.height <= HANDED * height * width
        if left or cut.size == (width, height):
            return cut
        return cut.resize((width, height), Image.Resampling.BILINEAR)
