"""Store the pictures of packages that the wheel carries with 64 colours: a third of the bytes, and nobody sees it.

python docs/shrink_pictures.py weights/*
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zoo.hub.sums import SUMS, read_sums, write_sums

COLOURS = 64


def shrink(package: Path) -> int:
    """Store a package's pictures again, and their hashes; returns the bytes that were saved."""
    known = read_sums(package / SUMS)
    saved = 0
    for path in sorted(package.glob("*.png")):
        before = path.stat().st_size
        with Image.open(path) as picture:
            small = (
                picture if picture.mode == "P" else picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            )
            texts = PngInfo()
            for key, value in picture.info.items():
                if isinstance(value, str):  # what `zoo verify` reads, such as the hash of the tree
                    texts.add_text(key, value)
            small.save(path, optimize=True, pnginfo=texts)
        saved += before - path.stat().st_size
        known.pop(path.name, None)
    write_sums(package, known)
    return saved


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        print(f"{folder}: {shrink(folder):,} bytes less")
