"""`folder:PATH`: image files in one folder per class."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.arrays import Labels, stratified
from zoo.data.rows import Opened, Request, Rows, item_rows
from zoo.errors import DataError, InputError

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
    ]
)
TEST_SHARE = 0.2


@dataclass(frozen=True)
class _Listing:
    """The image files of one folder of class folders, classes and files in sorted order."""

    folder: Path
    classes: tuple[str, ...]
    files: list[Path] = field(repr=False)
    labels: list[int] = field(repr=False)
    ignored: int

    def rows(self, chosen: Labels | None = None) -> Rows:
        """A split of all files, or of the chosen ones."""
        picked = range(len(self.files)) if chosen is None else chosen
        files = [self.files[i] for i in picked]
        return item_rows(files, [self.labels[i] for i in picked], lambda i: str(files[i]))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _class_folders(folder: Path) -> list[Path]:
    return [Path(e.path) for e in _visible(folder) if e.is_dir()]


def _walk(folder: Path) -> tuple[list[Path], int]:
    """All image files below a class folder, sorted, and how many other visible files there are."""
    images: list[Path] = []
    ignored = 0
    for entry in _visible(folder):
        if entry.is_dir():
            deeper, more = _walk(Path(entry.path))
            images, ignored = images + deeper, ignored + more
        elif Path(entry.name).suffix.lower() in ENDINGS:
            images.append(Path(entry.path))
        else:
            ignored += 1
    return images, ignored


def _list(folder: Path) -> _Listing:
    classes = _class_folders(folder)
    if not classes:
        raise DataError(f"{folder} holds no class folders; expected one folder with images per class")
    files: list[Path] = []
    labels: list[int] = []
    ignored = 0
    for label, path in enumerate(classes):
        found, others = _walk(path)
        if not found:
            raise DataError(f"class folder {path} holds no images; fill it or remove it")
        files, ignored = files + found, ignored + others
        labels += [label] * len(found)
    return _Listing(folder, tuple(p.name for p in classes), files, labels, ignored)


def _same_classes(train: _Listing, test: _Listing) -> None:
    if train.classes == test.classes:
        return
    missing, extra = set(train.classes) - set(test.classes), set(test.classes) - set(train.classes)
    parts = [f"{test.folder} lacks {', '.join(sorted(missing))}"] if missing else []
    parts += [f"{train.folder} lacks {', '.join(sorted(extra))}"] if extra else []
    raise DataError(f"train and test have different classes: {'; '.join(parts)}")


@dataclass(frozen=True)
class FolderSource:
    """Images in `train/CLASS/*` and `test/CLASS/*` (or `val/`), or in `CLASS/*` with a seeded split.

    The split of the second form is stratified, 80% train and 20% test.
    """

    root: Path
    seed: int = 0

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

    def _listings(self) -> list[_Listing]:
        parts = self._parts()
        return [_list(folder) for folder in parts or (self.root,)]

    def identity(self) -> dict[str, Any]:
        """Path, and a hash over every file's name, size and time."""
        digest = hashlib.sha256()
        for listing in self._listings():
            for path in listing.files:
                status = path.stat()
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        own = None if self._parts() else self.seed
        return {"scheme": "folder", "path": str(self.root), "files": digest.hexdigest(), "seed": own}

    def open(self) -> Opened:
        """The splits; files are decoded when they are read."""
        listings = self._listings()
        first, ignored = listings[0], sum(listing.ignored for listing in listings)
        if len(listings) == 2:
            _same_classes(first, listings[1])
            return Opened(first.rows(), listings[1].rows(), first.classes, ignored)
        labels = np.asarray(first.labels, np.int64)
        test = stratified(labels, max(1, round(len(labels) * TEST_SHARE)), self.seed)
        train = np.setdiff1d(np.arange(len(labels)), test)
        return Opened(first.rows(train), first.rows(test), first.classes, ignored)
