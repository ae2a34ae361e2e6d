"""From any mode of an image to three channels of 8 bits: what is black and white, and what shines through."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from zoo.errors import InputError

WHITES = (255.0, 1_023.0, 4_095.0, 16_383.0, 65_280.0)
"""What 8, 10, 12, 14 and 16 bits call white; of 16 bits it is the last value whose upper byte is 255."""


@dataclass(frozen=True)
class Colours:
    """How values become colours.

    Attributes:
        white: the value of images of more than 8 bits, or of fractions, that becomes 255; None: by the image alone.
        background: the colour behind transparent pixels, as Pillow names it; None: white.
        black: the value of such images that becomes 0; None: 0.
    """

    white: float | None = None
    background: str | None = None
    black: float | None = None

    def table(self) -> dict[str, float | str]:
        """What is set, as plain data."""
        given = {"white": self.white, "background": self.background, "black": self.black}
        return {key: value for key, value in given.items() if value is not None}


class Values(NamedTuple):
    """The values of one or more images of more than 8 bits.

    Attributes:
        images: how many. most: the largest finite value. fractions: whether all are floating-point numbers.
        below: how many images have values below 0. up_to_one: how many are of fractions that do not go beyond 1.
    """

    images: int = 0
    most: float = 0.0
    fractions: bool = True
    below: int = 0
    up_to_one: int = 0

    def with_(self, other: Values) -> Values:
        """Of both together."""
        return Values(
            self.images + other.images,
            max(self.most, other.most),
            self.fractions and other.fractions,
            self.below + other.below,
            self.up_to_one + other.up_to_one,
        )

    def white(self) -> float:
        """The least usual white that all values keep to; of fractions also 1, or their own largest value."""
        if self.fractions and self.most <= 1:
            return 1.0
        if self.fractions and self.most <= 16:  # no whole numbers of any depth: fractions that go beyond 1
            return self.most
        top = 65_535.0
        return next((white for white in WHITES if self.most <= white), WHITES[-1] if self.most <= top else self.most)


def checked_colours(options: Mapping[str, object], where: str, otherwise: Colours | None = None) -> Colours:
    """The options `white`, `range` and `background` of a dataset.

    Args:
        otherwise: what holds where the options say nothing.
    Raises:
        InputError: white is no positive number, range no two numbers of which the second is larger, background no
            colour; or white and range are both given.
    """
    otherwise = otherwise or Colours()
    black, white = otherwise.black, otherwise.white
    if "white" in options and "range" in options:
        raise InputError(f"{where}: white and range both say which value is white; give one of them")
    if "white" in options:
        black, white = None, _white(options["white"], where)
    if "range" in options:
        black, white = _range(options["range"], where)
    background = options.get("background", otherwise.background)
    try:
        if background is not None:
            ImageColor.getrgb(str(background))
    except ValueError:
        raise InputError(
            f"{where}: background must be a colour, such as white, black or #ff8800; got {background!r}"
        ) from None
    return Colours(white, None if background is None else str(background), black)


def _white(given: object, where: str) -> float:
    value = _number(given)
    if not 0 < value < math.inf:
        raise InputError(
            f"{where}: white must be the value that is white, such as 1, 255, 4095 or 65535; got {given!r}"
        )
    return value


def _range(given: object, where: str) -> tuple[float | None, float]:
    """The values that are black and white; None for a black of 0, which is the usual one."""
    black, _, white = str(given).partition("..")
    low, high = _number(black), _number(white)
    if not -math.inf < low < high < math.inf:
        raise InputError(
            f"{where}: range must be the values that are black and white, LOW..HIGH with LOW < HIGH, such as 0..4095 "
            f"or -1000..400; got {given!r}"
        )
    return low or None, high


def _number(given: object) -> float:
    """A number; what is none is not a number."""
    try:
        return float(str(given))
    except ValueError:
        return math.nan


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits, or fractions, in one channel."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def values_of(image: Image.Image) -> Values:
    """The values of one deep image."""
    values = _finite(np.asarray(image, np.float64))
    most, fractions = float(values.max(initial=0)), image.mode == "F"
    return Values(1, most, fractions, int(bool((values < 0).any())), int(fractions and 0 < most <= 1))


def values_of_channels(values: NDArray[np.uint16]) -> Values:
    """The values of one image with 16 bits a channel (H, W, 3 or 4); transparency is none of them."""
    return Values(1, float(values[..., :3].max(initial=0)), False)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def may_be_transparent(image: Image.Image) -> bool:
    """Whether an image has a channel, or a colour, that is transparent; it need not be loaded."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def is_transparent(image: Image.Image) -> bool:
    """Whether a pixel of an image is transparent at all."""
    if is_deep(image):
        return bool(_clear_values(image).any())
    return may_be_transparent(image) and _least_alpha(image.convert("RGBA")) < 255


def _clear_values(image: Image.Image) -> NDArray[np.bool_]:
    """Which pixels of a deep image have the one value that its file calls transparent: bool (H, W), or () if none."""
    clear = image.info.get("transparency")
    return np.asarray(image) == clear if isinstance(clear, int) else np.zeros((), bool)


def rgb_of_values(values: NDArray[np.uint16], colours: Colours) -> Image.Image:
    """An image of 8 bits a channel from one with 16, as `Colours.white` says; transparency has a white of its own."""
    white = values_of_channels(values).white() if colours.white is None else colours.white
    bands = [_eight_bits(white, colours.black or 0.0)[values[..., :3]]]
    if values.shape[2] == 4:
        clear = values[..., 3:]
        bands.append(_eight_bits(Values(1, float(clear.max(initial=0)), False).white())[clear])
    return Image.fromarray(np.concatenate(bands, axis=2))


def _eight_bits(white: float, black: float = 0.0) -> NDArray[np.uint8]:
    """What each value of 16 bits becomes."""
    return _between(np.arange(65_536, dtype=np.float64), black, white)


def _between(values: NDArray[np.float64], black: float, white: float) -> NDArray[np.uint8]:
    """Values of black to white as 0 to 255; what is beyond them is black or white."""
    levels = np.clip((values - black) * (255.0 / (white - black)), 0, 255)
    levels[values >= white] = 255  # the product may be a little less
    return levels.astype(np.uint8)


def _least_alpha(image: Image.Image) -> float:
    least, _ = image.getchannel("A").getextrema()
    return float(least) if isinstance(least, int | float) else 255.0


def _ground(colours: Colours) -> tuple[int, ...]:
    """The colour behind what is transparent."""
    return ImageColor.getrgb(colours.background or "white")[:3]


def rgb(image: Image.Image, colours: Colours) -> Image.Image:
    """The image in three channels of 8 bits, on its background."""
    if is_deep(image):
        white = values_of(image).white() if colours.white is None else colours.white
        black = colours.black or 0.0
        values = np.nan_to_num(np.asarray(image, np.float64), nan=black, posinf=white, neginf=black)
        clear, image = _clear_values(image), Image.fromarray(_between(values, black, white))
        if clear.any():
            image = image.convert("RGB")
            image.paste(_ground(colours), mask=Image.fromarray(clear))
    elif is_transparent(image):
        ground = Image.new("RGBA", image.size, (*_ground(colours), 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")
