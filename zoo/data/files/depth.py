"""What holds for all images of a set together: the value that is white, and whether any is transparent.

An image alone does not say it: a dark one of 16 bits looks like one of 8. The files are looked at once; what they
say is kept in the cache directory. Most are known by their first bytes; only those of more than 8 bits or with
transparency are decoded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.base.stamps import stamp
from zoo.base.structs import Struct
from zoo.base.text import plural
from zoo.data.files.colours import (
    WHITES,
    Colours,
    Values,
    is_deep,
    is_transparent,
    may_be_transparent,
    rgb_of_values,
    values_of,
    values_of_channels,
)
from zoo.data.files.decode import MAX_PIXELS, channel_values, opened_image
from zoo.data.files.heif import decoders
from zoo.data.findings import Finding
from zoo.data.types import Chunk, Item

FORMAT = 3  # 1: images in colour of 16 bits were taken for ones of 8; 2: a transparent value of 16 bits was not seen

BLOCK = 64
"""Images that a thread looks at before it answers: most take a few microseconds, less than handing one over."""

HEAD = 4096
"""Bytes that a file is judged by."""

SHALLOW = (".jpg", ".jpeg", ".jfif", ".bmp")
"""Endings of files of 8 bits without transparency."""


class Depth(Struct, frozen=True, kw_only=True):
    """What the images of a set have in common.

    Attributes:
        values: of images of more than 8 bits. transparent: how many images are.
        files: stamps of the image files among them, of which nothing else says whether they changed.
    """

    values: Values = Values()
    transparent: int = 0
    files: dict[str, int] = {}

    def colours(self, given: Colours) -> Colours:
        """How all images are to be read: as given, and else by what they have in common."""
        white = self.values.white() if given.white is None and self.values.images else given.white
        # Named where it matters, so that what was decoded before it was looked at is decoded again.
        background = "white" if given.background is None and self.transparent else given.background
        return Colours(white, background, given.black)

    def findings(self, given: Colours) -> tuple[Finding, ...]:
        """What was decided for the user."""
        findings = []
        if self.values.images and given.white is None:
            below = (
                f"; {plural(self.values.below, 'image')} with values below 0, read as black"
                if self.values.below
                else ""
            )
            text = (
                f"{plural(self.values.images, 'image has', 'images have')} more than 8 bits, or fractions, up to "
                f"{self.values.most:,.6g}: {self.values.white():,.6g} is read as white (?white=N or ?range=LOW..HIGH "
                f"sets it){below}"
            )
            findings.append(Finding(level="note", kind="white", message=text, count=self.values.images))
        white = self.colours(given).white
        if self.values.up_to_one and white is not None and white >= WHITES[0]:
            text = (
                f"{plural(self.values.up_to_one, 'image has', 'images have')} fractions up to 1, which is black where "
                f"{white:,.6g} is white; keep images of one kind together, or set ?white=1"
            )
            findings.append(Finding(level="warning", kind="black", message=text, count=self.values.up_to_one))
        if not self.values.images and given.white is not None:
            text = "no image has more than 8 bits, or fractions: ?white and ?range change nothing"
            findings.append(Finding(level="note", kind="unused-range", message=text))
        if self.transparent and given.background is None:
            text = (
                f"{plural(self.transparent, 'image is', 'images are')} transparent in places, and shown on white "
                "(?background=COLOUR sets it)"
            )
            findings.append(Finding(level="note", kind="transparent", message=text, count=self.transparent))
        return tuple(findings)


def depth_of(key: str, chunks: Iterable[Chunk], beside: Callable[[], Iterable[Path]] = tuple) -> Depth:
    """Look at all images of a set, or say what they said before.

    Args:
        key: what the images depend on. chunks: all of them; decoded arrays have 8 bits.
        beside: gives the files of which the key does not say whether they changed; asked if the images are looked at.
    """
    digest = hashlib.sha256(f"{FORMAT} {decoders()} {key}".encode()).hexdigest()
    path = cache_dir() / "files" / f"depth-{digest[:24]}.json"
    with suppress(OSError, msgspec.MsgspecError):
        known = msgspec.json.decode(path.read_bytes(), type=Depth)
        if all(stamp(file) == before for file, before in known.files.items()):
            return known
    files = {name: stamp(name) for name in map(str, beside())}
    depth = msgspec.structs.replace(_looked_at(chunks), files=files)
    with suppress(WriteError), replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(depth))
    return depth


def _looked_at(chunks: Iterable[Chunk]) -> Depth:
    values, transparent = Values(), 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for items in _undecoded(chunks):
            for of_block, clear in threads.map(_seen_together, _blocks(items)):
                values, transparent = values.with_(of_block), transparent + clear
    return Depth(values=values, transparent=transparent)


def _undecoded(chunks: Iterable[Chunk]) -> Iterator[Iterable[Item]]:
    for chunk in chunks:
        if not isinstance(chunk, np.ndarray):
            yield chunk


def _blocks(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while block := list(islice(rest, BLOCK)):
        yield block


def _seen_together(items: Iterable[Item]) -> tuple[Values, int]:
    """What some images say, and how many are transparent."""
    values, transparent = Values(), 0
    for item in items:
        of_image, is_clear = _seen(item)
        if of_image.images or is_clear:
            values, transparent = values.with_(of_image), transparent + is_clear
    return values, transparent


_PLAIN = (Values(), False)


def _seen(item: Item) -> tuple[Values, bool]:
    """What one image says; nothing where it cannot be read, which is said when it is decoded."""
    try:
        if _is_plain(item):
            return _PLAIN
        with opened_image(item) as image:
            if image.width * image.height > MAX_PIXELS:
                return _PLAIN
            channels = channel_values(item, image)
            if channels is not None:
                return values_of_channels(channels), is_transparent(rgb_of_values(channels, Colours()))
            if not (is_deep(image) or may_be_transparent(image)):
                return _PLAIN
            image.load()
            return (values_of(image) if is_deep(image) else Values()), is_transparent(image)
    except Exception:  # decoders of foreign bytes raise nearly anything
        return _PLAIN


def _is_plain(item: Item) -> bool:
    """Whether the first bytes of a file say that it has 8 bits and nothing transparent."""
    if callable(item):
        return False
    if isinstance(item, Path):
        if item.suffix.lower() in SHALLOW:
            return True
        with item.open("rb") as file:
            item = file.read(HEAD)
    if item.startswith(b"\xff\xd8\xff"):
        return True
    pixels = item.find(b"IDAT", 0, HEAD)
    if not item.startswith(b"\x89PNG") or pixels < 0:
        return False
    bits, kind = item[24], item[25]
    return bits <= 8 and kind in (0, 2, 3) and item.find(b"tRNS", 0, pixels) < 0
