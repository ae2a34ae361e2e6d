"""The listings of a dataset's folders as one dataset: one numbering of classes, validation images behind the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.data.files.image_files import Files, Listing
from zoo.data.label_sets import images_per_class, moved
from zoo.data.sources.known_classes import one_numbering
from zoo.errors import DataError


def refuse_empty(listing: Listing) -> None:
    """Refuse a class folder without images: of the training images, where it would be a class to be learnt.

    Raises:
        DataError: names the folder.
    """
    counts = np.array(images_per_class(listing.labels, len(listing.classes)))
    if not counts.all():
        empty = listing.folder / listing.classes[int(counts.argmin())]
        raise DataError(f"class folder {empty} holds no images; fill it or remove it")


def numbered_alike(first: Listing, others: Sequence[Listing]) -> list[Listing]:
    """All listings with the classes of the first, and those that it lacks behind them."""
    classes, numbers = one_numbering(first.classes, [listing.classes for listing in others])
    every = zip([first, *others], [np.arange(len(first.classes)), *numbers], strict=True)
    return [
        replace(listing, labels=moved(listing.labels, places, len(classes)), classes=classes)
        for listing, places in every
    ]


def joined(train: Listing, validation: Listing) -> Listing:
    """One listing of both, below the folder that holds both; see `Listing.validates`.

    Args:
        train, validation: with the same classes.
    """
    root = Path(os.path.commonpath([train.folder, validation.folder]))
    parts = [_below(root, listing.files) for listing in (train, validation)]
    names, ends, sizes, times = (
        np.concatenate([getattr(part, field) for part in parts]) for field in ("names", "ends", "sizes", "times")
    )
    ends[len(parts[0]) :] += len(parts[0].names)
    return Listing(
        Files(root, names, ends, sizes, times),
        np.concatenate([train.labels, validation.labels]),
        train.classes,
        train.ignored + validation.ignored,
        {},
        dict(Counter(train.left_out) + Counter(validation.left_out)),
        train.loose + validation.loose,
        len(validation.labels),
    )


def _below(root: Path, files: Files) -> Files:
    """The same files by their paths below another folder, further up."""
    prefix = np.frombuffer(os.fsencode(f"{files.root.relative_to(root).as_posix()}/"), np.uint8)
    lengths = np.diff(files.ends, prepend=0) + len(prefix)
    ends = np.cumsum(lengths)
    of_name = np.ones(int(lengths.sum()), bool)
    heads = (ends - lengths)[:, None] + np.arange(len(prefix))
    of_name[heads] = False
    names = np.empty(len(of_name), np.uint8)
    names[of_name], names[heads] = files.names, prefix
    return Files(root, names, ends, files.sizes, files.times)
