"""`wds:PATTERN`: tar files in the layout of WebDataset, on this machine or at an address."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.base.text import plural
from zoo.data.cache import columns_digest
from zoo.data.files.depth import SHALLOW
from zoo.data.files.image_files import Listing
from zoo.data.findings import Finding
from zoo.data.shards.packed import READERS
from zoo.data.shards.remote import RemoteFile
from zoo.data.shards.shuffle import Shuffle
from zoo.data.shards.tar_index import Fields, TarIndex, local_index, remote_index
from zoo.data.shards.tars import LocalTar, Tar, packed_tars
from zoo.data.sources.class_order import ClassOrder
from zoo.data.sources.listed import Part
from zoo.data.sources.parquet_files import unread_splits
from zoo.data.sources.source import Opened, Request, Show, silent
from zoo.data.sources.table_labels import UNKNOWN, UNLABELLED, classes_of
from zoo.data.sources.tar_files import ChosenTars, chosen_tars, is_remote
from zoo.data.split import TEST_SHARE, drawn_test
from zoo.data.types import CHUNK, VALIDATES, Chunk, Labels, SplitsFrom
from zoo.errors import DataError

OPTIONS = frozenset({"label", "image", "train", "validation", "test", "config", "classes", "order"})


class _Read(NamedTuple):
    """What the tars hold.

    Attributes:
        listing: of all samples with an image and a label. sides: int64 (N,), 0 train, 1 validation, 2 test.
        unlabelled, imageless: samples without a label, and without an image.
    """

    listing: Listing
    sides: Labels
    unlabelled: int
    imageless: int


@dataclass(frozen=True)
class TarSource:
    """Samples in tar files, sorted into splits by the names of the tars.

    Attributes:
        streams: whether images stay in their tars, whatever fits. seed, whole: as of
            `zoo.data.sources.parquet.ParquetSource`.
    """

    chosen: ChosenTars
    fields: Fields
    order: ClassOrder
    shuffle: Shuffle
    streams: bool = False
    seed: int = 0
    whole: bool = False
    show: Show = silent

    @classmethod
    def make(cls, request: Request) -> TarSource:
        """The source for `wds:PATTERN`.

        Raises:
            InputError: no such files, or an option is wrong. DataError: shards are missing.
        """
        where, options = f"wds:{request.rest}", request.options
        chosen = chosen_tars(request.rest, options, where, whole=request.whole, earlier=request.earlier)
        beside = Path.cwd() if is_remote(chosen.root) else Path(chosen.root)
        return cls(
            chosen,
            Fields.asked(options),
            ClassOrder.asked(options, beside, where),
            request.shuffle or Shuffle.asked(options, where),
            bool(options.get("stream")),
            request.seed,
            request.whole,
            request.show,
        )

    @cached_property
    def _read(self) -> _Read:
        chosen = self.chosen
        paths = [*dict.fromkeys((*chosen.train, *chosen.validation, *chosen.test))]
        found = []
        with ThreadPoolExecutor(READERS) as threads:
            for done, opened in enumerate(threads.map(self._opened, paths), 1):
                found.append(opened)
                self.show(f"listing the images of {plural(len(paths), 'shard')}", done, len(paths))
        indices = [index for _, index in found]
        files = packed_tars(chosen.root, [tar for tar, _ in found], indices, self.shuffle)
        side = {path: number for number, its in reversed([*enumerate(chosen[1:4])]) for path in its}
        sides = np.repeat(np.array([side[path] for path in paths], np.int64), [len(index) for index in indices])
        labels, classes, named = self._labels(indices, sides)
        used = np.flatnonzero(labels != UNLABELLED)
        unlabelled, imageless = (sum(getattr(i, name) for i in indices) for name in ("unlabelled", "imageless"))
        unlabelled += len(labels) - len(used)
        listing = Listing(files, labels, classes, unlabelled, named=named)
        return _Read(listing, np.where(labels == UNLABELLED, -1, sides), unlabelled, imageless)

    def _opened(self, path: str) -> tuple[Tar, TarIndex]:
        if not is_remote(path):
            return LocalTar.at(path), local_index(path, self.fields)
        remote = RemoteFile(path, path).looked_at()
        if remote.ranges:
            return remote, remote_index(remote, self.fields)
        copy = str(remote.fetched())  # without ranges, nothing less than the whole can be had
        return LocalTar.at(copy, path), local_index(copy, self.fields)

    def _labels(self, indices: Sequence[TarIndex], sides: Labels) -> tuple[Labels, tuple[str, ...], bool]:
        """The class number of every sample, the classes, and whether these have names."""
        texts = sorted({text for index in indices for text in index.labels})
        place = {text: number for number, text in enumerate(texts)}
        codes = np.concatenate(
            [np.array([place[text] for text in index.labels], np.int64)[index.codes] for index in indices]
        )
        learnt = {*np.unique(codes[(sides == 0) | self.whole]).tolist()}
        where = f"wds:{self.chosen.root}: the labels (?label={'.'.join([self.fields.label, *self.fields.key])})"
        first = [text for number, text in enumerate(texts) if number in learnt]
        others = [text for number, text in enumerate(texts) if number not in learnt]
        self._refuse_mixture(texts, where)
        classes = classes_of(first, others, self.order, where, count=self.whole)
        numbers = np.array(classes.numbers(texts), np.int64)
        if unknown := [text for text, number in zip(texts, numbers.tolist(), strict=True) if number == UNKNOWN]:
            raise DataError(f"{where}: {self.order.source} does not list the class {unknown[0]!r}; add it")
        return numbers[codes], classes.names, classes.named

    def _refuse_mixture(self, texts: Sequence[str], where: str) -> None:
        """Refuse class numbers among class names: some shards say it one way, some the other."""
        numbers = [text for text in texts if text.isdecimal()]
        if not self.order.listed and numbers and len(numbers) < len(texts):
            name = next(text for text in texts if not text.isdecimal())
            raise DataError(
                f"{where} are numbers ({numbers[0]}) and names ({name!r}); write all of them one way, or list the "
                "names by ?classes=FILE, in the order of the numbers"
            )

    @property
    def _divides(self) -> bool:
        """Whether the test is drawn from the training images."""
        return not (self.chosen.test or self.whole)

    def parts(self) -> tuple[Part, Part]:
        """Training images, with those that validate, and test images."""
        sides = self._read.sides
        train, test = np.flatnonzero((sides == 0) | (sides == 1)), np.flatnonzero(sides == 2)
        if self.whole:
            every = np.flatnonzero(sides >= 0)
            train, test = train if len(train) else every, test if len(test) else every
        elif self._divides:
            learnt = np.flatnonzero(sides == 0)
            _, drawn = drawn_test(self._read.listing.labels[learnt], self.seed, self.chosen.root)
            train, test = np.setdiff1d(train, learnt[drawn]), learnt[drawn]
        for name, rows in (("train", train), ("test", test)):
            if not len(rows):
                raise DataError(f"{self.chosen.root}: the {name} split holds no images with a label")
        return self._part(train), self._part(test)

    def _part(self, rows: Labels) -> Part:
        validates = self._read.sides[rows] == 1
        return Part(self._read.listing, rows, {VALIDATES: validates} if validates.any() else {})

    def splits_from(self) -> SplitsFrom:
        """The names of the splits, or of the tars, that are validation and test."""
        return self.chosen.splits_from

    def findings(self, listings: Sequence[Listing] | None = None) -> tuple[Finding, ...]:
        """Splits that are not read, and samples without an image or a label."""
        found = [*unread_splits(self.chosen.unread)]
        for count, what in ((self._read.unlabelled, "a label"), (self._read.imageless, "an image")):
            if count:
                text = f"{plural(count, 'sample')} without {what} not read"
                found.append(Finding(level="note", kind="unlabelled", message=text, count=count))
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the splits, a line each."""
        if self.chosen.validation or not self._divides:
            return ()
        return (f"the files have one split, which is divided by chance: {TEST_SHARE:.0%} are test images",)

    def content(self, listings: Sequence[Listing] | None = None) -> tuple[str, Iterator[Chunk]]:
        """What the pixels of all images depend on, and those that may have more than 8 bits, undecoded."""
        listing = self._read.listing
        files = listing.files

        def chunks() -> Iterator[Chunk]:
            rows = [row for row in range(len(files)) if not files.where(row).lower().endswith(SHALLOW)]
            for start in range(0, len(rows), CHUNK):
                yield files.items(np.array(rows[start : start + CHUNK]))

        return f"{listing.folder} {listing.digest(times=True)}", chunks()

    def identity(self) -> dict[str, Any]:
        """A hash over all names, labels, sizes and times, and over which images are which split."""
        digest = hashlib.sha256(self._read.listing.digest(times=True).encode())
        for part in self.parts():
            digest.update(np.ascontiguousarray(part.rows).data)
            digest.update(columns_digest(part.columns))
        return {"scheme": "wds", "path": self.chosen.root, "files": digest.hexdigest()}

    def open(self) -> Opened:
        """The splits; images are decoded when they are read."""
        listing, (train, test) = self._read.listing, self.parts()
        classes = listing.classes if listing.named else ()
        return Opened(train.opened(), test.opened(), classes, listing.ignored, splits_from=self.splits_from())
