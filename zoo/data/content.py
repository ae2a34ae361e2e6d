"""What images a split holds, whatever their order: copies of one dataset differ in that, and are the same otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.catalogue.registry import Registry
from zoo.data.label_sets import has_sets
from zoo.data.split import ImageData, Split


def content_sha256(split: Split, classes: Sequence[str]) -> str:
    """The sha256 (hexadecimal) over the images of a split with the names of their classes, in no order.

    It is taken of the sorted digests of the images: each the sha256 over height and width, the name of the class
    (of several labels, those of all its classes, each after height and width) and
    the bytes of the pixels (uint8, channels first).

    Args:
        classes: their names, in the order of the labels.
    Returns:
        "" where the images are decoded batch by batch, as streamed ones are.
    """
    if not isinstance(split.images, np.ndarray):
        return ""
    names = [f"{split.images.shape[2:]}\0{name}\0".encode() for name in classes]
    labels: list[Any] = split.labels.tolist()
    if has_sets(split.labels):
        words = [b"".join(name for name, has in zip(names, row, strict=True) if has) for row in labels]
    else:
        words = [names[label] for label in labels]
    digests = (
        hashlib.sha256(word + np.ascontiguousarray(image).tobytes()).digest()
        for image, word in zip(split.images, words, strict=True)
    )
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def catalogue_name(data: ImageData, registry: Registry) -> str:
    """The dataset of the catalogue whose images these are, in whatever order; "" where it names none.

    The classes must have the same order, as labels are numbers.
    """
    for name, dataset in registry.datasets.items():
        counts = (dataset.train, dataset.test) == (len(data.train), len(data.test))
        if not (dataset.sha256 and counts and dataset.classes == data.classes):
            continue
        if all(content_sha256(getattr(data, split), data.classes) == sha for split, sha in dataset.sha256.items()):
            return name
    return ""
