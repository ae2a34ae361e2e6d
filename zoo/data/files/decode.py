"""From an encoded image to a uint8 array: decoding, resizing, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from zoo.base.quiet_imports import ignoring
from zoo.base.text import first_line
from zoo.data.augment.crop import RandomCut
from zoo.data.files.colours import Colours, rgb, rgb_of_values
from zoo.data.files.deep_colour import upper_of, whole_values
from zoo.data.files.heif import HEIF, HeifError, heif_image, is_heif
from zoo.data.files.jpeg import jpeg_part
from zoo.data.files.orientation import upright
from zoo.data.types import Images, Item
from zoo.errors import DataError, InputError
from zoo.plugin.contract import Rounding, Transform

PILLOWS = r"PIL\."
"""The modules whose warnings nobody needs: what Pillow warns of (damaged metadata, many pixels) is dealt with here."""

BEGINNING = 12
"""Bytes of a file of no known format that a message shows."""

BEGINS = "it begins with "
"""What stands before them: a message's kind ends there."""

MAX_PIXELS = 64_000_000
"""Larger images are refused before their pixels are read: such a file is a decompression bomb."""


class TooLargeError(ValueError):
    """An image would be more than `MAX_PIXELS` pixels when it is scaled."""


class Scaling(Protocol):
    """Brings an image to its size."""

    def apply(self, image: Image.Image) -> Image.Image:
        """Scale and cut."""


@dataclass(frozen=True)
class Rule:
    """How images are brought to one size; nothing set keeps them as they are.

    Attributes:
        size: (height, width) that the whole image is scaled to.
        resize: the shorter side is scaled to this, keeping the aspect; with `squash` both sides are, without it.
        crop: then a centred square of this side is cut out.
        interpolation: Pillow's filter; each averages when it shrinks, but "nearest".
        rounding: of the longer side and of the crop's corner, see `zoo.plugin.Transform`.
        colours: how values become colours, before that.
    """

    size: tuple[int, int] | None = None
    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"
    squash: bool = False
    rounding: Rounding = "nearest"
    colours: Colours = field(default_factory=Colours)

    def __bool__(self) -> bool:
        """Whether a size is changed."""
        return any((self.size, self.resize, self.crop))

    def out_size(self) -> tuple[int, int] | None:
        """(height, width) of every result, or None where it depends on the image."""
        return self.size or ((self.crop, self.crop) if self.crop else None)

    def __str__(self) -> str:
        """For people: "to 32x32, bilinear"; the filter's name is Pillow's."""
        if self.size:
            return f"to {self.size[0]}x{self.size[1]}, {self.interpolation}"
        lengths = f"to {self.resize}x{self.resize}" if self.squash else f"the shorter side to {self.resize}"
        scaled = f"{lengths}, {self.interpolation}" if self.resize else ""
        cut = f"a centred square of {self.crop}" if self.crop else ""
        return ", then ".join(part for part in (scaled, cut) if part)

    def table(self) -> dict[str, Any]:
        """The rule as plain data; names of cached images are made of it, so the usual filter is not in it."""
        table = asdict(self)
        for name, usual in (("interpolation", "bilinear"), ("rounding", "nearest"), ("squash", False)):
            if table[name] == usual:
                del table[name]
        del table["colours"]
        return table | self.colours.table()

    def apply(self, image: Image.Image) -> Image.Image:
        """Scale and crop."""
        if self.size:
            height, width = self.size
            return self._scaled(image, width, height)
        if self.resize:
            image = self._scaled(image, *self._lengths(image.size, self.resize))
        return _centre(image, self.crop, self.rounding) if self.crop else image

    def _lengths(self, given: tuple[int, int], resize: int) -> tuple[int, int]:
        """(width, height) that an image of (width, height) is scaled to."""
        if self.squash:
            return resize, resize
        if self.rounding == "torchvision":  # torchvision.transforms.functional._compute_resized_output_size
            width, height = (int(resize * side / min(given)) for side in given)
        else:
            width, height = (max(1, round(side * (resize / min(given)))) for side in given)
        return width, height

    def _scaled(self, image: Image.Image, width: int, height: int) -> Image.Image:
        if image.size == (width, height):
            return image
        # Pillow scales the width first: what it makes on the way has the new width and the old height.
        largest = max(height, image.height)
        if width * largest > MAX_PIXELS:
            raise TooLargeError(
                f"scaling {image.width}x{image.height} pixels ({self}) takes {width}x{largest} pixels on the way "
                f"(at most {MAX_PIXELS:,})"
            )
        return image.resize((width, height), Image.Resampling[self.interpolation.upper()])


def transform_rule(transform: Transform) -> Rule:
    """The rule for images as weights know them."""
    height, width = transform.size
    if not transform.scaled:
        return Rule(crop=height, rounding=transform.rounding)
    if transform.resize is None or height != width:
        return Rule(size=transform.size, interpolation=transform.interpolation)
    return Rule(
        resize=transform.resize,
        squash=transform.squash,
        crop=height,
        interpolation=transform.interpolation,
        rounding=transform.rounding,
    )


def transform_of(rule: Rule, size: tuple[int, int]) -> Transform:
    """How an image of any size is brought to those that a rule gave.

    Args:
        size: (height, width) that they all have; where the rule does not say it, the whole image is scaled to it.
    """
    whole = Transform(size=size, interpolation=rule.interpolation)  # type: ignore[arg-type]  # it has come from one
    if rule.out_size() != size or rule.size:
        return whole
    if not rule.resize:
        return Transform(size=size, rounding=rule.rounding, scaled=False)
    return msgspec.structs.replace(whole, resize=rule.resize, squash=rule.squash, rounding=rule.rounding)


def make_rule(
    size: tuple[int, int] | None, wanted: tuple[int, int] | None, resize: int | None, crop: int | None
) -> Rule:
    """The rule for a dataset's `resize`/`crop` options and the size that was asked for.

    Args:
        size: the dataset's size where it resizes, else None.
        wanted: (height, width) that the user asked for, which wins; with a crop, the crop becomes it
            and `resize` keeps its proportion.
    Raises:
        InputError: the crop is larger than what it is cut from, or not square.
    """
    if crop and resize and crop > resize:
        raise InputError(f"cannot crop {crop} from images resized to {resize}; give crop <= resize")
    if wanted is None:
        return Rule(None if (resize or crop) else size, resize, crop)
    if not crop:
        return Rule(size=wanted)
    if wanted[0] != wanted[1]:
        raise InputError(f"this dataset is centre-cropped to a square; got image size {wanted}")
    return Rule(None, round((resize or crop) * wanted[0] / crop), wanted[0])


def _centre(image: Image.Image, side: int, rounding: Rounding) -> Image.Image:
    if min(image.size) < side:
        raise ValueError(f"image of {image.size[0]}x{image.size[1]} is smaller than the crop of {side}")
    margins = [length - side for length in image.size]
    left, top = (round(margin / 2) if rounding == "torchvision" else margin // 2 for margin in margins)
    return image.crop((left, top, left + side, top + side))


@contextmanager
def without_warnings() -> Iterator[None]:
    """Pillow's warnings are not shown; for the one thread that reads images or starts the threads that do."""
    with ignoring(module=PILLOWS):
        yield


def opened_image(item: Item, formats: tuple[str, ...] | None = None) -> Image.Image:
    """The image of an item; its pixels may not be read yet.

    Args:
        formats: by Pillow's names, what it may be; None: all that can be read.
    Raises:
        UnidentifiedImageError: it is none of them. HeifError: it is HEIF, and nothing installed reads it.
    """
    if callable(item):
        return item()
    pillows = formats and tuple(name for name in formats if name != HEIF)
    try:
        image: Image.Image = Image.open(io.BytesIO(item) if isinstance(item, bytes) else item, formats=pillows)
    except UnidentifiedImageError:
        if (formats is None or HEIF in formats) and is_heif(_head(item)):
            return heif_image(item)
        raise
    return image


def channel_values(item: Item, image: Image.Image) -> NDArray[np.uint16] | None:
    """The values of an image in colour (or with transparency) of 16 bits a channel; None for all others.

    Args:
        image: what `opened_image` gave for the item; its pixels are not read yet.
    Raises:
        ValueError: such an image that cannot be read rightly.
    """
    upper = upper_of(image)
    return None if upper is None else whole_values(upper, image, lambda: opened_image(item))


def image_array(item: Item, rule: Scaling, where: str, colours: Colours | None = None) -> Images:
    """Decode one image, upright.

    Args:
        colours: how its values are read; by default as the rule says.
    Returns:
        uint8 (3, H, W).
    Raises:
        DataError: unreadable, truncated, or more than `MAX_PIXELS` pixels; names `where`.
    """
    if colours is None:
        colours = rule.colours if isinstance(rule, Rule) else Colours()
    try:
        with opened_image(item) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{where}: {width}x{height} pixels are refused (at most {MAX_PIXELS:,})")
            part = jpeg_part(item, image, rule, colours) if isinstance(rule, RandomCut) else None
            if part is None:
                values = channel_values(item, image)
                shown = upright(image, None if values is None else rgb_of_values(values, colours))
                part = rule.apply(rgb(shown, colours))
            return np.asarray(part).transpose(2, 0, 1)
    except HeifError as error:
        raise DataError(f"{where}: {error}") from None
    except DataError:
        raise
    except (Image.DecompressionBombError, TooLargeError) as error:
        raise DataError(f"{where}: refused: {error}") from None
    except UnidentifiedImageError:
        raise DataError(f"{where}: cannot be read as an image: {_beginning(item)}") from None
    except Exception as error:  # decoders of foreign bytes raise nearly anything
        reason = first_line(error, 120)
        raise DataError(f"{where}: cannot be read as an image ({reason})") from None


def _beginning(item: Item) -> str:
    """What stands where an image should."""
    if callable(item):
        return "no known format"
    head = _head(item)
    return f"no known format; {BEGINS}{head!r}" if head else "it is empty"


def _head(item: bytes | Path) -> bytes:
    """The first bytes of a file, `BEGINNING` at most."""
    if isinstance(item, bytes):
        return item[:BEGINNING]
    with item.open("rb") as file:
        return file.read(BEGINNING)


def array_image(pixels: Images) -> Image.Image:
    """A PIL image of uint8 (3, H, W)."""
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
