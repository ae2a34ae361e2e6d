"""How an image is turned: the orientation that its file states, and the image as viewers show it."""

from __future__ import annotations

from PIL import ExifTags, Image

TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
"""What undoes the orientations 2 to 8 of EXIF 2.32 (tag 0x0112); 1 is upright."""

_ORIENTED = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Where Pillow looks for the tag."""


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns an image upright by its EXIF orientation; None if it is upright, or does not say."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata raise nearly anything; the pixels are whole
        return None
    return TURNS[orientation - 2] if isinstance(orientation, int) and 2 <= orientation <= 8 else None


def upright(image: Image.Image, pixels: Image.Image | None = None) -> Image.Image:
    """The image as viewers show it: turned by its EXIF orientation, if it has one.

    Args:
        pixels: what is turned in its place.
    """
    image.load()  # some formats turn it while they load, and take the tag away
    pixels = image if pixels is None else pixels
    turn = turn_of(image)
    if turn is None:
        return pixels
    turned = pixels.transpose(turn)
    for name in _ORIENTED:
        turned.info.pop(name, None)
    return turned


def upright_size(size: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    """(width, height) of an image of (width, height) once it is turned."""
    return size[::-1] if turn in _SIDEWAYS else size


def stored_box(
    box: tuple[int, int, int, int], turn: Image.Transpose | None, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Where a part of the upright image lies in the image as stored.

    Args:
        box: (left, top, right, bottom) in the upright image. size: (width, height) of the stored image.
    Returns:
        (left, top, right, bottom): cutting this part, then turning it, is turning the image, then cutting `box`.
    """
    left, top, right, bottom = box
    if turn in _SIDEWAYS:
        left, top, right, bottom = top, left, bottom, right
    width, height = size
    if turn in _FROM_THE_RIGHT:
        left, right = width - right, width - left
    if turn in _FROM_BELOW:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


_SIDEWAYS = (TURNS[3], TURNS[4], TURNS[5], TURNS[6])
"""Rows become columns."""

_FROM_THE_RIGHT = (TURNS[0], TURNS[1], TURNS[5], TURNS[6])
"""The stored columns count backwards, seen upright."""

_FROM_BELOW = (TURNS[1], TURNS[2], TURNS[4], TURNS[5])
"""The stored rows count backwards, seen upright."""
