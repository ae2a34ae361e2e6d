"""Reads and decodes indexed images: whole files, and parts of files that hold many."""

from __future__ import annotations

import os
from typing import NamedTuple

from zoo.data.augment.crop import RandomCut
from zoo.data.files.colours import Colours
from zoo.data.files.decode import Scaling, image_array
from zoo.data.types import Images
from zoo.errors import BadImagesError, DataError, SizesError


class Stamp(NamedTuple):
    """A file as it was indexed: bytes, and its modification time in ns."""

    size: int
    time: int


class Span(NamedTuple):
    """Where the bytes of an image are in a file that holds others too, and the file as it was indexed."""

    path: bytes
    stamp: Stamp
    offset: int
    size: int


def decode_file(
    path: str, stamp: Stamp, rule: Scaling, size: tuple[int, int], colours: Colours | None = None
) -> Images:
    """Read and decode one indexed file.

    Args:
        colours: as `zoo.data.files.decode.image_array` takes them.
    Returns:
        uint8 (3, H, W), channels innermost in memory.
    Raises:
        DataError: it is gone, was changed since it was indexed, cannot be read, or has another size.
    """
    return decode_content(read_file(path, stamp), path, rule, size, colours)


def read_file(path: str, stamp: Stamp, offset: int = 0, size: int = -1) -> bytes:
    """Read an indexed file, or `size` bytes of it.

    Raises:
        DataError: it is gone, was changed since it was indexed, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if offset:
                file.seek(offset)
            data = file.read(size)
    except FileNotFoundError:
        raise DataError(f"{path}: was deleted after its folder was listed; put it back, or start again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    now = Stamp(status.st_size, status.st_mtime_ns)
    if now != stamp:
        what = f"{stamp.size:,} bytes then, {now.size:,} now" if now.size != stamp.size else "its time differs"
        raise DataError(f"{path}: was changed after its folder was listed ({what}); start again")
    return data


def read_span(span: Span) -> bytes:
    """Read an image out of a file that holds others too.

    Raises:
        DataError: as `read_file`.
    """
    return read_file(os.fsdecode(span.path), span.stamp, span.offset, span.size)


def decode_content(
    data: bytes, where: str, rule: Scaling, size: tuple[int, int], colours: Colours | None = None
) -> Images:
    """Decode the content of one file.

    Args:
        where: what messages call it.
    Returns:
        uint8 (3, H, W), channels innermost in memory; (3, h, w) of a random cut that `Bounds.by_torch` leaves unscaled.
    Raises:
        DataError: it cannot be read, or has another size.
    """
    try:
        image = image_array(data, rule, where, colours)
    except DataError as error:
        raise BadImagesError((str(error),)) from None
    if image.shape[1:] != size and not isinstance(rule, RandomCut):
        raise SizesError(
            f"images differ in size: {where} has {image.shape[2]}x{image.shape[1]}, the first one "
            f"{size[1]}x{size[0]}; give --image-size N"
        )
    return image
