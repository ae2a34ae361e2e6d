"""One file in several class folders as one image with several labels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from zoo.base.text import plural
from zoo.data.files.image_files import Files, Listing
from zoo.data.findings import Finding
from zoo.data.label_sets import as_sets
from zoo.data.sources.table_rows import chosen_files
from zoo.errors import DataError


def with_sets(listing: Listing) -> Listing:
    """The listing with each file once, and the set of its classes as its label.

    Files are the same where their path below the class folder, their size and their content agree; only what agrees in
    the first two is read. The first one is kept.

    Raises:
        DataError: a file cannot be read.
    """
    files, sets = listing.files, as_sets(listing.labels, len(listing.classes))
    first = np.arange(len(files))
    for rows in _alike(files):
        by_content: dict[bytes, int] = {}
        for row in rows:
            first[row] = by_content.setdefault(_content(files, row), row)
    kept = np.flatnonzero(first == np.arange(len(files)))
    merged = sets[kept]
    np.maximum.at(merged, np.searchsorted(kept, first), sets)
    return replace(listing, files=chosen_files(files, kept), labels=merged)


def _alike(files: Files) -> list[list[int]]:
    """Groups of rows whose paths below the class folder and sizes agree."""
    groups: defaultdict[tuple[bytes, int], list[int]] = defaultdict(list)
    for row in range(len(files)):
        groups[files.name(row).partition(b"/")[2], files.stamp(row).size].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def _content(files: Files, row: int) -> bytes:
    try:
        with files[row].open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"{files[row]}: cannot be read: {error.strerror}") from None


def several_findings(listings: Sequence[Listing]) -> Iterator[Finding]:
    """How many images have several labels; a warning where none has."""
    several = sum(int((listing.labels.sum(1) > 1).sum()) for listing in listings)
    if several:
        text = f"{plural(several, 'image lies', 'images lie')} in several class folders, and has several labels"
        text = text if several == 1 else text.replace("has several", "have several")
        yield Finding(level="note", kind="several-labels", message=text, count=several)
    else:
        text = "no file lies in several class folders under one name, so that each image has one label"
        yield Finding(level="warning", kind="one-label", message=text)
