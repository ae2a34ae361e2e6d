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
from typing import NamedTuple

from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from zoo.data.augment.crop import RandomCut
from zoo.data.files.colours import Colours, rgb
from zoo.data.files.orientation import stored_box, turn_by, turn_of, upright_size
from zoo.data.types import Item

MARGIN = 16
"""Rows that are decoded below the part, times the reduction: colours of half the size, and the filter, reach down."""

_END = b"\xff\xd9"
_FRAMES = (0xC0, 0xC1)
"""Markers of frames whose rows are stored in order: sequential, Huffman-coded."""

_SCAN = 0xDA
_WITH_LENGTH = range(0xC0, 0xFF)
"""Markers that a length follows, among those before a scan."""

_APP1, _EXIF = 0xE1, b"Exif\0\0"


class Head(NamedTuple):
    """What stands before the only scan of a JPEG file whose rows are stored in order.

    Attributes:
        frame: where its frame's marker is. size: (width, height). turn: what turns the image upright.
    """

    frame: int
    size: tuple[int, int]
    turn: Image.Transpose | None


def part_by_head(data: bytes, cut: RandomCut, colours: Colours, most: int) -> Image.Image | None:
    """What a random cut makes of a JPEG file, decoded as far as the lowest row that it needs.

    Where the cut lies is known before Pillow reads the file, which takes a tenth of the time that decoding takes: it is
    opened once.

    Args:
        most: pixels; larger images are left to others.
    Returns:
        An upright image of the cut's size; None if the file is something else, its rows are not stored in order, or
        `head_of` cannot tell how it is turned.
    """
    head = head_of(data)
    if head is None or head.size[0] * head.size[1] > most:
        return None
    place = _place(cut, head.size, head.turn)
    width, height = head.size[0], min(head.size[1], place.stored[3] + MARGIN * place.times)
    opened = Image.open(io.BytesIO(_stating(data, head.frame, height)), formats=("JPEG",))
    if not isinstance(opened, JpegImageFile) or opened.format != "JPEG" or opened.size != (width, height):
        return None
    return _cut_out(opened, place, cut, colours)


def jpeg_part(item: Item, image: Image.Image, cut: RandomCut, colours: Colours) -> Image.Image | None:
    """What a random cut makes of a JPEG file that `part_by_head` leaves.

    Args:
        image: what `zoo.data.files.decode.opened_image` gave for the item; its pixels are not read yet.
    Returns:
        An upright image of the cut's size; None if the item is something else.
    """
    if image.format != "JPEG" or not isinstance(image, JpegImageFile) or not isinstance(item, bytes | Path):
        return None
    return _cut_out(image, _place(cut, image.size, turn_of(image)), cut, colours)


class _Place(NamedTuple):
    """Where a cut lies: (left, top, right, bottom) in the image as stored, how that is turned, and its reduction."""

    stored: tuple[int, int, int, int]
    turn: Image.Transpose | None
    times: int


def _place(cut: RandomCut, size: tuple[int, int], turn: Image.Transpose | None) -> _Place:
    width, height = upright_size(size, turn)
    box = cut.box(height, width)
    upright = (box.left, box.top, box.left + box.width, box.top + box.height)
    return _Place(stored_box(upright, turn, size), turn, cut.reduction(box))


def _cut_out(image: JpegImageFile, place: _Place, cut: RandomCut, colours: Colours) -> Image.Image:
    stored, turn, times = place
    if times == 1:
        part = rgb(image.crop(stored), colours)
        return cut.scaled(part if turn is None else part.transpose(turn))
    image.draft(None, (image.width // times, image.height // times))
    size = upright_size(cut.size[::-1], turn)
    left, top, right, bottom = (edge / times for edge in stored)
    part = rgb(image, colours).resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return part if turn is None else part.transpose(turn)


def with_rows(data: bytes, rows: int) -> bytes | None:
    """A JPEG file whose frame header says that the image has `rows` rows; None where `head_of` knows no head."""
    head = head_of(data)
    return None if head is None else _stating(data, head.frame, rows)


def head_of(data: bytes) -> Head | None:
    """The head of a JPEG file.

    Returns:
        None if the rows are not stored in order (a progressive file), the file does not end where its image ends (it
        may be cut short, which only decoding it whole shows), or it is not one EXIF segment that says how it is turned.
    """
    if not data.endswith(_END):
        return None
    at, frame, notes = 2, 0, list[bytes]()
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] in _WITH_LENGTH:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SCAN:
            whole = frame and data[at + 4] == data[frame + 9]  # one scan of all its colours
            orientation = _orientation(notes) if whole else None
            if orientation is None:
                return None
            height, width = (int.from_bytes(data[frame + side : frame + side + 2], "big") for side in (5, 7))
            return Head(frame, (width, height), turn_by(orientation)) if height and width else None
        if marker in _FRAMES:
            frame = at
        elif marker == _APP1:
            notes.append(data[at + 4 : end])
        at = end
    return None


def _orientation(notes: list[bytes]) -> int | None:
    """What APP1 segments say of it; 1 where there are none, None where it is not one EXIF segment that says it."""
    if not notes:
        return 1
    stated = [note for note in notes if note.startswith(_EXIF)]
    if len(stated) != 1:
        return None
    exif = Image.Exif()
    try:
        exif.load(stated[0])
    except Exception:  # damaged metadata raise nearly anything
        return None
    return exif.get(ExifTags.Base.Orientation, 1 if len(notes) == 1 else None)


def _stating(data: bytes, frame: int, rows: int) -> bytes:
    return data[: frame + 5] + rows.to_bytes(2, "big") + data[frame + 7 :]
