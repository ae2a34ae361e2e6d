"""A part of a JPEG file, decoded no further than the part needs.

Rows below the part are not decoded. This changes no pixel: rows of a JPEG are stored from top to bottom, and the frame
header says how many there are, so a copy of the file that states fewer is a file of the image's upper rows.

Where the part may be decoded at a reduced size (see `zoo.data.augment.crop.Bounds`), libjpeg scales by 1/2, 1/4 or 1/8
while it decodes. This is faster for large photographs, and changes pixels.

Source: ITU-T T.81, B.2.2 (frame header) and B.2.3 (scan header).
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from zoo.data.augment.crop import RandomCut
from zoo.data.files.colours import Colours, rgb
from zoo.data.files.orientation import stored_box, turn_of, upright_size
from zoo.data.types import Item

MARGIN = 16
"""Rows that are decoded below the part, times the reduction: colours of half the size, and the filter, reach down."""

_END = b"\xff\xd9"
_FRAMES = (0xC0, 0xC1)
"""Markers of frames whose rows are stored in order: sequential, Huffman-coded."""

_SCAN = 0xDA
_WITH_LENGTH = range(0xC0, 0xFF)
"""Markers that a length follows, among those before a scan."""


def jpeg_part(item: Item, image: Image.Image, cut: RandomCut, colours: Colours) -> Image.Image | None:
    """What a random cut makes of a JPEG file.

    Args:
        image: what `zoo.data.files.decode.opened_image` gave for the item; its pixels are not read yet.
    Returns:
        An upright image of the cut's size; None if the item is something else, or has to be decoded whole.
    """
    if image.format != "JPEG" or not isinstance(image, JpegImageFile) or not isinstance(item, bytes | Path):
        return None
    turn = turn_of(image)
    width, height = upright_size(image.size, turn)
    box = cut.box(height, width)
    upright = (box.left, box.top, box.left + box.width, box.top + box.height)
    stored, times = stored_box(upright, turn, image.size), cut.reduction(box)
    image = _upper_rows(item, image, stored[3] + MARGIN * times)
    if times == 1:
        part = rgb(image.crop(stored), colours)
        return cut.scaled(part if turn is None else part.transpose(turn))
    image.draft(None, (image.width // times, image.height // times))
    size = upright_size(cut.size[::-1], turn)
    left, top, right, bottom = (edge / times for edge in stored)
    part = rgb(image, colours).resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return part if turn is None else part.transpose(turn)


def _upper_rows(item: bytes | Path, image: JpegImageFile, rows: int) -> JpegImageFile:
    """The image of the upper rows alone, if the file allows it, and otherwise the image itself."""
    if rows >= image.height or not isinstance(item, bytes):
        return image
    shorter = with_rows(item, rows)
    if shorter is None:
        return image
    opened = Image.open(io.BytesIO(shorter), formats=("JPEG",))
    return opened if isinstance(opened, JpegImageFile) and opened.size == (image.width, rows) else image


def with_rows(data: bytes, rows: int) -> bytes | None:
    """A JPEG file whose frame header says that the image has `rows` rows.

    Returns:
        None if the rows are not stored in order (a progressive file), or the file does not end where its image ends: it
        may be cut short, which only decoding it whole shows.
    """
    if not data.endswith(_END):
        return None
    at, frame = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] in _WITH_LENGTH:
        marker = data[at + 1]
        if marker == _SCAN:
            return _stating(data, frame, rows) if frame and data[at + 4] == data[frame + 9] else None
        if marker in _FRAMES:
            frame = at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _stating(data: bytes, frame: int, rows: int) -> bytes:
    return data[: frame + 5] + rows.to_bytes(2, "big") + data[frame + 7 :]
