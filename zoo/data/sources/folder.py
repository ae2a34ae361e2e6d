"""`folder:PATH`: image files in one folder per class."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.files.image_files import Listing, read_folder, visible
from zoo.data.findings import Finding
from zoo.data.sources.folder_findings import folder_findings
from zoo.data.sources.source import Opened, Request, Rows, item_rows
from zoo.data.sources.split_folders import Division, division
from zoo.data.split import drawn_test
from zoo.data.types import CHUNK, Chunk, Labels
from zoo.errors import DataError, InputError


def _rows(listing: Listing, chosen: Labels | None = None) -> Rows:
    """A split of all files, or of the chosen ones."""
    files = listing.files if chosen is None else [listing.files[int(i)] for i in chosen]
    labels = listing.labels if chosen is None else listing.labels[chosen]
    return item_rows(files, labels, lambda i: str(files[i]))


def _matched(train: Listing, test: Listing) -> Listing:
    """The test listing with the classes of the training listing, whichever way their names spell an accent.

    Raises:
        DataError: the classes differ.
    """
    if train.classes == test.classes:
        return test
    places = {_composed(name): place for place, name in enumerate(train.classes)}
    names = [_composed(name) for name in test.classes]
    missing, extra = sorted(places.keys() - set(names)), sorted(set(names) - places.keys())
    if not missing and not extra:
        labels = np.array([places[name] for name in names], np.int64)[test.labels]
        return replace(test, labels=labels, classes=train.classes)
    parts = [f"{test.folder} lacks {', '.join(missing)}"] if missing else []
    parts += [f"{train.folder} lacks {', '.join(extra)}"] if extra else []
    raise DataError(f"train and test have different classes: {'; '.join(parts)}")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class FolderSource:
    """Images in `train/CLASS/*` and `test/CLASS/*` (or `val/`), or in `CLASS/*` with a seeded split.

    The split of the second form is stratified, 80% train and 20% test; or, `whole`, both hold all images:
    for an evaluation, which reads one of them. Which names stand for train and test:
    `zoo.data.sources.split_folders`.
    """

    root: Path
    seed: int = 0
    whole: bool = False

    @classmethod
    def make(cls, request: Request) -> FolderSource:
        """The source for `folder:PATH`.

        Raises:
            InputError: no such folder. DataError: it is empty.
        """
        root = Path(request.rest).expanduser()
        if not root.is_dir():
            raise InputError(f"no folder {root}; folder:PATH needs an existing folder of images")
        if not any(entry.is_dir() for entry in visible(root)):
            raise DataError(f"{root} holds no folders; expected train/ and test/, or one folder per class")
        return cls(root.resolve(), request.seed, request.whole)

    @cached_property
    def _division(self) -> Division | None:
        return division(self.root)

    @cached_property
    def _listings(self) -> list[Listing]:
        return self.listings()

    def listings(self, read: Callable[[Path], Listing] = read_folder) -> list[Listing]:
        """The files of train and test, or of the one folder that both are drawn from.

        Args:
            read: lists one folder of class folders; `list_folder` trusts the times of directories.
        """
        if self._division is None:
            return [read(self.root)]
        train = read(self._division.train)
        return [train, _matched(train, read(self._division.test))]

    def findings(self, listings: Sequence[Listing] | None = None) -> tuple[Finding, ...]:
        """What is not read, or read in a way that its names do not make certain.

        Args:
            listings: as `listings` gave them, so that the folders are not listed again.
        """
        return folder_findings(self.root, self._division, listings or self._listings)

    def content(self, listings: Sequence[Listing] | None = None) -> tuple[str, Iterator[Chunk]]:
        """What the pixels of all files depend on, and the files, undecoded."""
        listed = listings or self._listings
        files = (files[i : i + CHUNK] for files in (x.files for x in listed) for i in range(0, len(files), CHUNK))
        return " ".join([str(self.root), *(listing.digest(times=True) for listing in listed)]), files

    def identity(self) -> dict[str, Any]:
        """Path, and a hash over every file's name, size and time."""
        digest = hashlib.sha256()
        for listing in self._listings:
            digest.update(f"{listing.folder.name}\0{listing.digest(times=True)}\n".encode())
        drawn = None if self._division else "whole" if self.whole else self.seed
        return {"scheme": "folder", "path": str(self.root), "files": digest.hexdigest(), "seed": drawn}

    def drawn(self, listing: Listing) -> tuple[Labels, Labels]:
        """The rows of train and of test where one folder holds both: stratified, by the seed."""
        if self.whole:
            everything = np.arange(len(listing.labels))
            return everything, everything
        return drawn_test(listing.labels, self.seed, str(self.root))

    def open(self) -> Opened:
        """The splits; files are decoded when they are read."""
        first, *rest = self._listings
        ignored = first.ignored + sum(listing.ignored for listing in rest)
        if rest:
            return Opened(_rows(first), _rows(rest[0]), first.classes, ignored)
        train, test = self.drawn(first)
        return Opened(_rows(first, train), _rows(first, test), first.classes, ignored)
