"""HEIC and HEIF, the photographs of phones, which pillow-heif reads: it comes with the extra `heif`."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import PIL
from PIL import Image

from zoo.base.install import install_line
from zoo.errors import DataError

HEIF = "HEIF"
"""Pillow's name of the format."""

_BRANDS = frozenset([b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"])
"""What a file calls itself after `ftyp` (ISO/IEC 23008-12). AVIF has names of its own, and Pillow is asked first."""


class HeifError(DataError):
    """A file is HEIF, and the library that reads it is not installed."""


def is_heif(head: bytes) -> bool:
    """Whether the first 12 bytes of a file are those of HEIF."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def reads_heif() -> bool:
    """Whether the library is installed."""
    return find_spec("pillow_heif") is not None


def decoders() -> list[str]:
    """What decides which files can be read here: Pillow's version, and the library that reads HEIF, if it is here."""
    return [f"pillow {PIL.__version__}", *([HEIF] if reads_heif() else [])]


def heif_image(item: bytes | Path) -> Image.Image:
    """The first image of a HEIF file, upright as the file says; its pixels may not be read yet, and have 8 bits.

    Pillow's own list of formats stays as it is: it belongs to the whole process.

    Raises:
        HeifError: the library is not installed. SyntaxError: the file is damaged.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        line = install_line("heif")
        raise HeifError(f"is a HEIC photograph, which needs the library pillow-heif: {line} ({error})") from None
    image: Image.Image = HeifImageFile(io.BytesIO(item) if isinstance(item, bytes) else item)
    return image
