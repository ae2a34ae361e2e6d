"""Images that were given in Python, and what is left of them when a run is opened again: `memory:NAME-HASH`.

The decoded images are cached like those of any dataset, under the hash of what was given: as long as the cache holds
them, commands find them by the SPEC alone. Of a list of files the list itself is kept too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.base.files import WriteError, write_text
from zoo.base.paths import cache_dir
from zoo.data.files.orientation import turn_of
from zoo.data.sources.joined_splits import with_validation
from zoo.data.sources.source import Opened, Request, Rows, array_rows, item_rows
from zoo.data.split import VALIDATION_SEED, drawn_test
from zoo.data.types import CARVED, Images, Item, Labels, SplitsFrom
from zoo.errors import DataError

SCHEME = "memory"
AT_ONCE = 1024
DIGITS = 16
"""Hexadecimal digits of the hash in a SPEC."""


@dataclass(frozen=True)
class Part:
    """Images and labels of one split: an array as `zoo.data.sources.source.as_nchw` takes it, or undecoded items.

    Attributes:
        labels: int64 (N,), or sets of classes, uint8 (N, K). where: names image i for a message.
    """

    images: Images | Sequence[Item]
    labels: NDArray[Any]
    where: Callable[[int], str]

    @property
    def of_files(self) -> bool:
        """Whether all images are files."""
        return not isinstance(self.images, np.ndarray) and all(isinstance(item, Path) for item in self.images)

    def rows(self, chosen: Labels | None = None) -> Rows:
        """All or some of them, to be decoded."""
        chosen = np.arange(len(self.labels)) if chosen is None else chosen

        def where(row: int) -> str:
            return self.where(int(chosen[row]))

        if isinstance(self.images, np.ndarray):
            return replace(array_rows(self.images, self.labels, "", chosen), where=where)
        items = [self.images[row] for row in chosen]
        files = tuple(item for item in items if isinstance(item, Path))
        return replace(item_rows(items, self.labels[chosen], where), files=files)


@dataclass(frozen=True)
class Parts:
    """All images that were given.

    Attributes:
        test: where there is none, a fifth of the training images is drawn for it, always the same.
        validation: the images that select the epoch, if they were given.
    """

    train: Part
    test: Part | None
    classes: tuple[str, ...]
    validation: Part | None = None

    @property
    def sides(self) -> dict[str, Part]:
        """The splits that were given, by name."""
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        return {side: part for side, part in sides.items() if part is not None}

    def opened(self, *, whole: bool, where: str) -> Opened:
        """Both splits; `whole`: what has one split alone is not divided, each side is all of it."""
        splits_from = SplitsFrom("validation" if self.validation else "", "test" if self.test else CARVED)
        test = self.test and self.test.rows()
        if self.test is None and not whole:
            rest, chosen = drawn_test(self.train.labels, VALIDATION_SEED, where)
            train, test = self.train.rows(rest), self.train.rows(chosen)
        else:
            train = self.train.rows()
        if self.validation is not None and not whole:
            train = with_validation(train, self.validation.rows())
        return Opened(train, test or train, self.classes, splits_from=splits_from)


@dataclass(frozen=True)
class MemorySource:
    """Images that were given, or the name that they had.

    Attributes:
        name: "NAME-HASH". parts: None where they are not at hand.
    """

    name: str
    parts: Parts | None = None
    whole: bool = False

    @classmethod
    def make(cls, request: Request) -> MemorySource:
        """The source for `memory:NAME-HASH`, without images unless they were files."""
        return cls(request.rest, _listed(request.rest), request.whole)

    def identity(self) -> dict[str, Any]:
        """The hash of all that was given."""
        return {"scheme": SCHEME, "name": self.name} | ({"whole": True} if self.whole else {})

    def given_files(self) -> list[Path]:
        """The image files that were given, of which `identity` does not say whether they changed."""
        parts = self.parts.sides.values() if self.parts else ()
        kept = [part.images for part in parts if not isinstance(part.images, np.ndarray)]
        return [item for images in kept for item in images if isinstance(item, Path)]

    def open(self) -> Opened:
        """Both splits.

        Raises:
            DataError: they are not at hand: says what to do.
        """
        if self.parts is None:
            raise DataError(
                f"{SCHEME}:{self.name} was given in Python, and its images are not in the cache any more: give them "
                "again there by dataset="
            )
        return self.parts.opened(whole=self.whole, where=f"{SCHEME}:{self.name}")


# ---- lists of files -----------------------------------------------------------------------------------


def keep_list(name: str, parts: Parts) -> None:
    """Keep a list of files, so that the SPEC alone is enough to read them again."""
    table = {"classes": parts.classes}
    for side, part in parts.sides.items():
        table[side] = [[str(path), label] for path, label in zip(part.images, part.labels.tolist(), strict=True)]  # type: ignore[assignment]
    with suppress(WriteError, OSError):
        path = _place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(table))


def _listed(name: str) -> Parts | None:
    try:
        table = json.loads(_place(name).read_text("utf-8"))
        test, held = (file_part(table[side]) if side in table else None for side in ("test", "validation"))
        return Parts(file_part(table["train"]), test, tuple(map(str, table["classes"])), held)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def file_part(rows: Sequence[tuple[str, Any]]) -> Part:
    """A split of files with class numbers, or with rows of 0 and 1."""
    paths = [Path(path) for path, _ in rows]
    several = isinstance(rows[0][1], list)
    labels = np.array([label for _, label in rows], np.uint8 if several else np.int64)
    return Part(paths, labels, lambda i: str(paths[i]))


def _place(name: str) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    return cache_dir() / "lists" / f"{safe}.json"


# ---- what was given -------------------------------------------------------------------------------------


def digest_of(parts: Parts) -> str:
    """A hash over all images, labels and names; of files over their paths and sizes."""
    hasher = hashlib.sha256(json.dumps(parts.classes).encode())
    for part in (parts.train, parts.test, *([parts.validation] if parts.validation else [])):
        hasher.update(b"test" if part is None else json.dumps([len(part.labels)]).encode())
        if part is None:
            continue
        hasher.update(np.ascontiguousarray(part.labels, "<i8").data)
        if isinstance(part.images, np.ndarray):
            hasher.update(json.dumps(part.images.shape).encode())
            for start in range(0, len(part.images), AT_ONCE):
                hasher.update(np.ascontiguousarray(part.images[start : start + AT_ONCE]).data)
            continue
        for item in part.images:
            hasher.update(_content(item))
    return hasher.hexdigest()[:DIGITS]


def _content(item: Item) -> bytes:
    if isinstance(item, bytes):
        return hashlib.sha256(item).digest()
    if isinstance(item, Path):
        return f"{item}\0{item.stat().st_size}\n".encode("utf-8", "surrogateescape")
    image = item()
    told = [image.mode, image.size]
    # What else decides how it looks, if there is anything: other versions have no more than the above.
    more = [turn_of(image), repr(image.info.get("transparency", "")), repr(image.getpalette("RGBA") or "")]
    told += [more] if more != [None, "''", "''"] else []
    return json.dumps(told).encode() + hashlib.sha256(image.tobytes()).digest()
