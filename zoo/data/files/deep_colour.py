"""Images in colour of 16 bits a channel: Pillow reads the upper byte of each value, and here the lower one is added.

A set of 10- or 12-bit values, as cameras and microscopes write them, has next to nothing in the upper bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

_OTHER: Mapping[str, str] = MappingProxyType({"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"})
"""The order of bytes that reads the lower byte of a value where the given one reads the upper: little, big, native."""

_LOWER: Mapping[str, str] = MappingProxyType(
    {f"{bands};16{order}": f"{bands};16{_OTHER[order]}" for bands in ("RGB", "RGBA", "RGBX") for order in "LBN"}
)
"""Pillow's "raw mode" (how stored bytes become an image) of the upper bytes, to that of the lower ones."""

_GREY_AND_ALPHA = "LA;16B"
_BITS, _PLANES = 258, 284  # tags of TIFF 6.0: BitsPerSample, and PlanarConfiguration, of which 2 is "separate"


class Upper(NamedTuple):
    """An image before its pixels are read: of more than 8 bits a channel, in colour or with transparency."""

    tiles: list[Any]
    raw: str


def upper_of(image: Image.Image) -> Upper | None:
    """What has to be known to read both bytes; None for an image of 8 bits, of one channel, or that is read already.

    Raises:
        ValueError: a TIFF with the channels of 16 bits one after another, which Pillow reads wrongly.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == 2 and max(tags.get(_BITS, (8,))) > 8:
        raise ValueError("a TIFF of separate 16-bit channels; write it with the channels of a pixel together")
    tiles = list(getattr(image, "tile", ()))
    raws = {tile[3] if isinstance(tile[3], str) else (*(tile[3] or ("",)),)[0] for tile in tiles}
    raw = raws.pop() if len(raws) == 1 else ""
    return Upper(tiles, raw) if raw in _LOWER or raw == _GREY_AND_ALPHA else None


def unread_file(image: Image.Image) -> Path | None:
    """The file that an image comes from, if both bytes can still be read from it and Pillow would give one.

    Of a later page there is none: a file is read from its first one.
    """
    name = getattr(image, "filename", "")
    can_be = isinstance(name, str) and name and not image.tell()
    return Path(name) if can_be and upper_of(image) is not None else None


def whole_values(upper: Upper, image: Image.Image, again: Callable[[], Image.Image]) -> NDArray[np.uint16] | None:
    """The values of an image that `upper_of` knew.

    Args:
        image: the same image. again: opens it once more.
    Returns:
        uint16 (H, W, 3), or (H, W, 4) with transparency last; None where it cannot be opened once more.
    """
    second = again()
    if second is image or not isinstance(second, ImageFile.ImageFile):
        return None
    with second:
        if upper.raw == _GREY_AND_ALPHA:
            pairs = _read(second, upper, "RGBA")  # the same four bytes: both of the grey value, both of alpha
            high, low = pairs[..., (0, 0, 0, 2)], pairs[..., (1, 1, 1, 3)]
        else:
            high, low = np.asarray(image, np.uint16), _read(second, upper, _LOWER[upper.raw])
    values = np.bitwise_or(np.left_shift(high, np.uint16(8)), low)
    clear = image.info.get("transparency")  # a colour of a PNG
    if values.shape[2] != 3 or not isinstance(clear, tuple):
        return values
    alpha = np.where((values == np.array(clear)).all(axis=2, keepdims=True), 0, 65_535)
    return np.concatenate([values, alpha.astype(np.uint16)], axis=2)


def _read(image: ImageFile.ImageFile, upper: Upper, raw: str) -> NDArray[np.uint16]:
    """The pixels with another raw mode."""
    image.tile = [_with_raw(tile, raw) for tile in upper.tiles]
    return np.asarray(image, np.uint16)


def _with_raw(tile: Any, raw: str) -> Any:
    arguments = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
    # Pillow 11 and later have a named tuple.
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)
