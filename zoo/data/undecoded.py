"""Image files as a dataset whose images stay files: nothing is decoded before it is needed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.base.text import plural
from zoo.data.cache import Cached, columns_digest, numbered
from zoo.data.files.decode import Rule, image_array
from zoo.data.files.heif import decoders
from zoo.data.files.image_files import FileImages, Listing
from zoo.data.files.pool import Pool
from zoo.data.findings import Finding
from zoo.data.label_sets import moved
from zoo.data.shards.packed import images_in
from zoo.data.sources.known_classes import known_classes
from zoo.data.sources.listed import FileSource, Part
from zoo.data.sources.source import Show
from zoo.data.split import Split
from zoo.data.types import Item, Labels
from zoo.errors import BadImagesError, DataError

CHUNK = 1024


class Undecoded(NamedTuple):
    """A source's files, listed.

    Attributes:
        train, test: the splits. size: (height, width) of all images. findings: what was seen while they were listed.
    """

    train: Part
    test: Part
    rule: Rule
    size: tuple[int, int]
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        """Images of both splits."""
        return len(self.train.rows) + len(self.test.rows)

    @property
    def listings(self) -> list[Listing]:
        """Of train and test, or the one that both are drawn from."""
        train, test = self.train.listing, self.test.listing
        return [train] if train is test else [train, test]

    def of_known_classes(self) -> Undecoded:
        """Without the classes that have no training images: the option `?drop-unknown`."""
        classes, validates = self.train.listing.classes, self.train.validates
        known = known_classes(classes, self.train.labels, validates, self.test.labels)
        if known is None:
            return self
        named = self.train.listing.named or not numbered(known.classes)
        listings = [
            replace(
                listing, labels=moved(listing.labels, known.places, known.remaining), classes=known.classes, named=named
            )
            for listing in self.listings
        ]
        train, test = self.train.select(known.train, listings[0]), self.test.select(known.test, listings[-1])
        if not len(test.rows):
            raise DataError(f"{test.listing.folder}: every test image is of a class without training images")
        return Undecoded(train, test, self.rule, self.size, known.findings)


def undecoded(source: FileSource, rule: Rule, *, skip_bad: bool = False) -> Undecoded:
    """List the files of a source; one image is opened where the rule leaves the size open.

    Args:
        skip_bad: it is the first that can be read.
    Raises:
        DataError: as `FileSource.parts`, or the first image (with `skip_bad` all) cannot be read.
    """
    train, test = source.parts()
    return Undecoded(train, test, rule, rule.out_size() or _first_size(train.listing, rule, skip_bad))


def _first_size(listing: Listing, rule: Rule, skip_bad: bool) -> tuple[int, int]:
    for row in range(len(listing.files)):
        try:
            item = listing.files.items(np.array([row]))[0]
            _, height, width = image_array(item, rule, listing.files.where(row)).shape
            return height, width
        except DataError as error:
            if not skip_bad:
                raise BadImagesError([str(error)]) from None
    raise DataError(f"{listing.folder}: none of {plural(len(listing.files), 'image')} can be read")


def as_cached(files: Undecoded, workers: int, show: Show, *, name: str, skip_bad: bool = False) -> Cached:
    """The dataset with its images as files: what `zoo.data.cache.cached` gives with them decoded.

    Args:
        skip_bad: read every image once, and leave those out that cannot be read; which ones these are
            is kept, until a file changes.
    """
    pool = Pool(workers, files.rule, files.size)
    splits, skipped = [], sum(listing.skipped for listing in files.listings)
    for side, part in (("train", files.train), ("test", files.test)):
        images = images_in(part.listing.files, part.rows, files.rule, files.size)
        split = Split(images, part.labels, pool=pool, columns=part.columns)
        if skip_bad:
            good = _readable(split, part.listing, show, f"checking {name} ({side})")
            skipped += len(split) - len(good)
            split = split.select(good)
        splits.append(split)
    return Cached(
        splits[0],
        splits[1],
        files.train.listing.classes,
        _fingerprint(files, splits),
        skipped,
        sum(listing.ignored for listing in files.listings),
        "",
        files.train.listing.named,
    )


def _fingerprint(files: Undecoded, splits: Sequence[Split]) -> str:
    """As `ImageData.fingerprint` says."""
    digest = hashlib.sha256(json.dumps(files.rule.table(), sort_keys=True).encode())
    for part, split in zip((files.train, files.test), splits, strict=True):
        digest.update(part.listing.digest(times=False).encode())
        assert isinstance(split.images, FileImages)
        digest.update(np.ascontiguousarray(split.images.rows, "<i8").data)
        digest.update(columns_digest(split.columns))
    return f"files-{digest.hexdigest()}"


# ---- skip_bad ---------------------------------------------------------------------------------


def _readable(split: Split, listing: Listing, show: Show, title: str) -> Labels:
    """The rows that can be decoded, int64, ascending.

    Raises:
        DataError: none can.
    """
    images = split.images
    assert isinstance(images, FileImages)
    stamp = hashlib.sha256(f"{listing.digest(times=True)} {images.rule.table()} {decoders()}".encode())
    stamp.update(np.ascontiguousarray(images.rows).data)
    path = cache_dir() / "files" / f"bad-{stamp.hexdigest()[:24]}.npy"
    bad = _stored_bad(path)
    if bad is None:
        bad = _unreadable(images, show, title)
        with suppress(WriteError), replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, bad)
    good = np.setdiff1d(np.arange(len(split)), bad)
    if not len(good):
        raise DataError(f"{title}: none of {plural(len(split), 'image')} can be read")
    return good


def _stored_bad(path: os.PathLike[str]) -> Labels | None:
    try:
        bad: Labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return bad


def _unreadable(images: FileImages, show: Show, title: str) -> Labels:
    def is_bad(item: Item) -> bool:
        try:
            image_array(item, images.rule, "")
        except DataError:
            return True
        return False

    bad: list[int] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(images), CHUNK):
            rows = range(start, min(start + CHUNK, len(images)))
            items = images.files.items(images.rows[start : rows.stop])
            bad += [row for row, wrong in zip(rows, threads.map(is_bad, items), strict=True) if wrong]
            show(title, rows.stop, len(images))
    return np.array(bad, np.int64)
