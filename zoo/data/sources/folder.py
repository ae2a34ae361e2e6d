"""`folder:PATH`: image files in one folder per class."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.files.image_files import Listing, read_folder, visible
from zoo.data.sources.source import Opened, Request, Rows, item_rows
from zoo.data.split import stratified
from zoo.data.types import Labels
from zoo.errors import DataError, InputError

TEST_SHARE = 0.2


def _rows(listing: Listing, chosen: Labels | None = None) -> Rows:
    """A split of all files, or of the chosen ones."""
    files = listing.files if chosen is None else [listing.files[int(i)] for i in chosen]
    labels = listing.labels if chosen is None else listing.labels[chosen]
    return item_rows(files, labels, lambda i: str(files[i]))


def _class_folders(folder: Path) -> list[Path]:
    return [Path(e.path) for e in visible(folder) if e.is_dir()]


def _same_classes(train: Listing, test: Listing) -> None:
    if train.classes == test.classes:
        return
    missing, extra = set(train.classes) - set(test.classes), set(test.classes) - set(train.classes)
    parts = [f"{test.folder} lacks {', '.join(sorted(missing))}"] if missing else []
    parts += [f"{train.folder} lacks {', '.join(sorted(extra))}"] if extra else []
    raise DataError(f"train and test have different classes: {'; '.join(parts)}")


@dataclass(frozen=True)
class FolderSource:
    """Images in `train/CLASS/*` and `test/CLASS/*` (or `val/`), or in `CLASS/*` with a seeded split.

    The split of the second form is stratified, 80% train and 20% test; or, `whole`, both hold all images:
    for an evaluation, which reads one of them.
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
        if not _class_folders(root):
            raise DataError(f"{root} holds no folders; expected train/ and test/, or one folder per class")
        return cls(root.resolve(), request.seed)

    def _parts(self) -> tuple[Path, Path] | None:
        test = next((self.root / n for n in ("test", "val", "valid") if (self.root / n).is_dir()), None)
        train = self.root / "train"
        if train.is_dir() and test is None:
            raise DataError(f"{self.root} has train/ but neither test/ nor val/; add one of them")
        return (train, test) if test is not None and train.is_dir() else None

    def listings(self, read: Callable[[Path], Listing] = read_folder) -> list[Listing]:
        """The files of train and test, or of the one folder that both are drawn from.

        Args:
            read: lists one folder of class folders; `list_folder` trusts the times of directories.
        """
        parts = self._parts()
        listings = [read(folder) for folder in parts or (self.root,)]
        if len(listings) == 2:
            _same_classes(*listings)
        return listings

    def identity(self) -> dict[str, Any]:
        """Path, and a hash over every file's name, size and time."""
        digest = hashlib.sha256()
        for listing in self.listings():
            digest.update(f"{listing.folder.name}\0{listing.digest(times=True)}\n".encode())
        division = None if self._parts() else "whole" if self.whole else self.seed
        return {"scheme": "folder", "path": str(self.root), "files": digest.hexdigest(), "seed": division}

    def drawn(self, listing: Listing) -> tuple[Labels, Labels]:
        """The rows of train and of test where one folder holds both: stratified, by the seed."""
        if self.whole:
            everything = np.arange(len(listing.labels))
            return everything, everything
        test = stratified(listing.labels, max(1, round(len(listing.labels) * TEST_SHARE)), self.seed)
        return np.setdiff1d(np.arange(len(listing.labels)), test), test

    def open(self) -> Opened:
        """The splits; files are decoded when they are read."""
        first, *rest = self.listings()
        ignored = first.ignored + sum(listing.ignored for listing in rest)
        if rest:
            return Opened(_rows(first), _rows(rest[0]), first.classes, ignored)
        train, test = self.drawn(first)
        return Opened(_rows(first, train), _rows(first, test), first.classes, ignored)
