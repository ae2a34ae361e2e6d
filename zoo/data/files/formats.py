"""Which image formats are read: the endings of files, and what is decoded of bytes that strangers send."""

from __future__ import annotations

ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jfif",
        ".avif",
        ".jp2",
        ".heic",
        ".heif",
        ".hif",
    ]
)
"""Of files in a folder; others are passed over. Those of HEIF need the extra `heif`."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Of uploads, by Pillow's names: not all that Pillow can decode, as some of it starts other programs."""
