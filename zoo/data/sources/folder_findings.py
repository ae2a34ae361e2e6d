"""What the names and places of files say about a folder of images, without opening one."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from zoo.base.text import plural
from zoo.data.files.image_files import Listing, is_image, visible
from zoo.data.findings import Finding
from zoo.data.label_sets import has_sets
from zoo.data.sources.split_folders import Division

FEW = 5
PHOTOS = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".psd", ".jxl", ".svg")
"""Endings of images that Pillow does not read by itself."""

PLAIN = frozenset({"train", "test", "val", "valid", "validation"})
"""Names of folders that need no word."""

LOOKED_AT = 10_000
"""Files of a class whose folders are looked at for an example."""


def folder_findings(root: Path, division: Division | None, listings: Sequence[Listing]) -> tuple[Finding, ...]:
    """Files and folders that are left out, and classes that may not be what was meant.

    Args:
        division: the folders of train and test, where there are two. listings: of each of them, or of `root`.
    """
    findings = [*_places(root, division), *_left_out(listings), *_loose(root, division, listings)]
    return (*findings, *_categories(listings[0], division.train if division else root))


def _places(root: Path, division: Division | None) -> Iterator[Finding]:
    if division is None:
        return
    sides = {"training images": division.train, "validation images": division.validation, "test images": division.test}
    names = {kind: os.path.relpath(folder, root) for kind, folder in sides.items() if folder is not None}
    if not {*names.values()} <= PLAIN:
        text = ", ".join(f"{kind} from {name}/" for kind, name in names.items())
        yield Finding(level="note", kind="split-folders", message=text.replace(" from", " are read from", 1))
    if division.unread:
        beside = " and ".join(f"{name}/" for name in names.values())
        text = f"{plural(len(division.unread), 'folder')} with images beside {beside} not read"
        examples = tuple(f"{os.path.relpath(folder, root)}/" for folder in division.unread[:FEW])
        count = len(division.unread)
        yield Finding(level="warning", kind="unread-folder", message=text, count=count, examples=examples)


def _left_out(listings: Sequence[Listing]) -> Iterator[Finding]:
    endings: Counter[str] = Counter()
    for listing in listings:
        endings.update(listing.left_out)
    if endings:
        photos = sum(endings[ending] for ending in PHOTOS)
        text = f"{plural(endings.total(), 'file')} in class folders not read, having no suffix of an image that is read"
        text += "; convert them to JPEG or PNG" if photos else ""
        examples = tuple(f"{count:,} {ending}" for ending, count in endings.most_common(FEW))
        count = endings.total()
        level: Literal["warning", "note"] = "warning" if photos else "note"
        yield Finding(level=level, kind="ignored", message=text, count=count, examples=examples)


def _loose(root: Path, division: Division | None, listings: Sequence[Listing]) -> Iterator[Finding]:
    count = sum(listing.loose for listing in listings)
    if division is not None:
        count += sum(is_image(entry.name) and not entry.is_dir() for entry in visible(root))
    if count:
        text = f"{plural(count, 'image')} beside the folders of the classes not read"
        yield Finding(level="warning", kind="loose-image", message=text, count=count)


def _categories(listing: Listing, train: Path) -> Iterator[Finding]:
    """Classes whose images all lie in folders below: these may be the classes that were meant.

    Args:
        train: the folder of the training images, which the listing's own holds or is.
    """
    files, labels = listing.files, listing.labels[: len(listing.labels) - listing.validates]
    if not len(labels) or has_sets(labels):
        return
    above = len(train.relative_to(listing.folder).parts) if train.is_relative_to(listing.folder) else 0
    starts = np.concatenate([[0], files.ends[:-1]])
    depths = np.add.reduceat(files.names == ord("/"), starts, dtype=np.int64)[: len(labels)] - above
    firsts = np.flatnonzero(np.diff(labels, prepend=-1))  # the files of a class follow one another
    present = labels[firsts]
    deep = np.minimum.reduceat(depths, firsts) > 1
    nested = present[deep].tolist()
    below: defaultdict[int, set[str]] = defaultdict(set)
    for label, first in zip(nested[:FEW], firsts[deep].tolist(), strict=False):
        rows = range(first, len(labels))[:LOOKED_AT]
        below[label] = {os.fsdecode(files.name(row).split(b"/")[above + 1]) for row in rows if labels[row] == label}
    if nested:
        text = (
            f"{plural(len(nested), 'class holds its images', 'classes hold their images')} in folders below, whose "
            "names are not read: each folder at the top is a class"
        )
        examples = tuple(f"{listing.classes[label]}: {', '.join(sorted(below[label])[:3])}" for label in nested[:FEW])
        yield Finding(level="warning", kind="nested-class", message=text, count=len(nested), examples=examples)
