"""`folder:PATH`: image files in one folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.base.paths import local_path
from zoo.data.files.image_files import Listing, list_folder, read_folder, visible
from zoo.data.findings import Finding
from zoo.data.sources.class_order import BY_TEXT, ClassOrder
from zoo.data.sources.folder_findings import folder_findings
from zoo.data.sources.folder_listings import joined, numbered_alike, refuse_empty
from zoo.data.sources.listed import Part
from zoo.data.sources.same_files import several_findings, with_sets
from zoo.data.sources.source import Opened, Request
from zoo.data.sources.split_folders import Division, division
from zoo.data.split import drawn_test
from zoo.data.types import CARVED, CHUNK, VALIDATES, Chunk, Labels, SplitsFrom
from zoo.errors import DataError, InputError


def _part(listing: Listing, rows: Labels) -> Part:
    validates = listing.held[rows]
    return Part(listing, rows, {VALIDATES: validates} if validates.any() else {})


@dataclass(frozen=True)
class FolderSource:
    """Images in `train/CLASS/*` with `val/CLASS/*` or `test/CLASS/*` or both, or in `CLASS/*` with a seeded split.

    Where there is no test, a stratified fifth of the images that are learnt from is drawn for it; or, `whole`, each
    split is all of it: for an evaluation, which reads one of them. Which names stand for which split:
    `zoo.data.sources.split_folders`.

    Attributes:
        earlier: as of `zoo.data.sources.source.Request`: validation images are not read, or are the test.
        several: one file in several class folders is one image with several labels.
        skip_bad: as of `zoo.data.sources.source.Request`; then no listing of before is trusted, as nobody would notice
            that a file which was left out has been repaired in its place.
    """

    root: Path
    seed: int = 0
    whole: bool = False
    earlier: bool = False
    order: ClassOrder = BY_TEXT
    several: bool = False
    skip_bad: bool = False

    @classmethod
    def make(cls, request: Request) -> FolderSource:
        """The source for `folder:PATH`.

        Raises:
            InputError: no such folder, or an option is wrong. DataError: it is empty.
        """
        root = local_path(request.rest)
        if not root.is_dir():
            raise InputError(f"no folder {root}; folder:PATH needs an existing folder of images")
        if not any(entry.is_dir() for entry in visible(root)):
            raise DataError(f"{root} holds no folders; expected train/ and test/, or one folder per class")
        order = ClassOrder.asked(request.options, root, f"folder:{request.rest}")
        how = (request.seed, request.whole, request.earlier, order, request.several, request.skip_bad)
        return cls(root.resolve(), *how)

    @cached_property
    def _division(self) -> Division | None:
        found = division(self.root, whole=self.whole)
        if found is None or found.validation is None or not (self.whole or self.earlier):
            return found
        unread = (found.validation, *found.unread) if found.test else found.unread
        return Division(found.train, found.test or found.validation, None, unread)

    @cached_property
    def _listings(self) -> list[Listing]:
        return self.listings()

    def listings(self, read: Callable[[Path], Listing] = read_folder) -> list[Listing]:
        """The files of train and test, or of the one folder that both are drawn from; validation files behind train's.

        Args:
            read: lists one folder of class folders; `list_folder` trusts the times of directories.
        """
        found = self._division
        if found is None or found.train == found.test:
            only = self._read(found.train if found else self.root, read)
            refuse_empty(only)
            return [self.order.of(only)]
        listed = [self._read(folder, read) for folder in found.read]
        refuse_empty(listed[0])
        train, *others = map(self.order.of, listed)
        train, *others = numbered_alike(train, others)
        if found.validation is not None:
            train = joined(train, others.pop(0))
        return [train, *others]

    def _read(self, folder: Path, read: Callable[[Path], Listing]) -> Listing:
        """The files of one folder of class folders; with `several`, each once, with the set of its classes."""
        return with_sets(read(folder)) if self.several else read(folder)

    def splits_from(self) -> SplitsFrom:
        """The folders that are validation and test."""
        found = self._division
        if found is None or found.train == found.test:
            return SplitsFrom(test=CARVED)
        validation, test = (
            os.path.relpath(folder, self.root) if folder else "" for folder in (found.validation, found.test)
        )
        return SplitsFrom(validation, test or CARVED)

    def findings(self, listings: Sequence[Listing] | None = None) -> tuple[Finding, ...]:
        """What is not read, or read in a way that its names do not make certain.

        Args:
            listings: as `listings` gave them, so that the folders are not listed again.
        """
        listed = listings or self._listings
        found = folder_findings(self.root, self._division, listed)
        return (*found, *several_findings(listed)) if self.several else found

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
        drawn = None if len(self._listings) > 1 else "whole" if self.whole else self.seed
        identity = {"scheme": "folder", "path": str(self.root), "files": digest.hexdigest(), "seed": drawn}
        identity |= {"several": True} if self.several else {}
        return identity | ({"validation": held} if (held := self._listings[0].validates) else {})

    def drawn(self, listing: Listing) -> tuple[Labels, Labels]:
        """The rows of train and of test where there is no test: stratified, by the seed, of what is learnt from."""
        everything = np.arange(len(listing.labels))
        if self.whole:
            return everything, everything
        count = len(everything) - listing.validates
        train, test = drawn_test(listing.labels[:count], self.seed, str(self.root))
        return np.concatenate([train, everything[count:]]), test

    def parts(self) -> tuple[Part, Part]:
        """Train and test; what was listed before is trusted, but with `skip_bad`."""
        return self._parts(self._listings if self.skip_bad else self.listings(list_folder))

    def _parts(self, listings: Sequence[Listing]) -> tuple[Part, Part]:
        first, *rest = listings
        if rest:
            train, test = (_part(listing, np.arange(len(listing.labels))) for listing in listings)
        else:
            train, test = (_part(first, rows) for rows in self.drawn(first))
        return train, test

    def open(self) -> Opened:
        """The splits; files are decoded when they are read."""
        train, test = self._parts(self._listings)
        ignored, classes = sum(listing.ignored for listing in self._listings), train.listing.classes
        return Opened(train.opened(), test.opened(), classes, ignored, splits_from=self.splits_from())
