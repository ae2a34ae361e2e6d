"""The images whose features are wanted: the splits of a dataset, or images that somebody names; batch by batch."""

from __future__ import annotations

import hashlib
import os
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from zoo.base.reporter import callers
from zoo.catalogue.registry import Registry
from zoo.data.batches.mode import Delivery
from zoo.data.batches.open import open_source
from zoo.data.dataset_spec import find
from zoo.data.files.image_files import FileImages
from zoo.data.label_sets import has_sets
from zoo.data.matched_images import Taken, loaded_as
from zoo.data.split import VALIDATION_FRACTION, Split
from zoo.data.types import Images
from zoo.errors import DataError, InputError, ZooWarning
from zoo.evaluate.classifier import Classifier
from zoo.evaluate.predictions import text_of
from zoo.predict.inputs import Given
from zoo.predict.stream import Decoded, decoded, default_threads
from zoo.runs.images import RunImages, images_of
from zoo.runs.record import RunRecord

SPLITS = ("train", "validation", "test")


class Rows(NamedTuple):
    """A batch of images.

    Attributes:
        names: of the images. split: of all of them; "" where they are of no dataset.
        labels: int64 (B,), or of several labels an image uint8 (B, K); None where there are none.
        pixels: uint8 (B, 3, H, W). taken: images that were asked for, with those that could not be read.
    """

    names: list[str]
    split: str
    labels: Tensor | None
    pixels: Tensor | Images
    taken: int


class Wanted(Protocol):
    """Images in a fixed order, which can be gone through again from any place on."""

    @property
    def spec(self) -> str:
        """The SPEC of a dataset; "" for images that are of none."""

    @property
    def fingerprint(self) -> str:
        """Which images these are."""

    @property
    def changed(self) -> str:
        """A sha256 over paths and times of change, where the fingerprint knows no contents; else ""."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; () where there are none."""

    @property
    def counts(self) -> dict[str, int]:
        """Images of each split."""

    @property
    def has_sets(self) -> bool:
        """Whether an image may have several labels."""

    def batches(self, start: int, size: int) -> Iterator[Rows]:
        """The images from `start` on, `size` at once; a batch is of one split."""


@dataclass(frozen=True)
class DatasetImages:
    """All images of a dataset: those of training, of validation and of the test, each in their order."""

    spec: str
    fingerprint: str
    classes: tuple[str, ...]
    splits: tuple[Split, Split, Split]
    classifier: Classifier = field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Images of each split."""
        return {name: len(split) for name, split in zip(SPLITS, self.splits, strict=True)}

    @property
    def has_sets(self) -> bool:
        """Whether an image may have several labels."""
        return has_sets(self.splits[0].labels)

    @property
    def changed(self) -> str:
        """Of files that are read image by image, a sha256 over their paths and times; "" of images in memory."""
        digest, streamed = hashlib.sha256(), False
        for split in self.splits:
            if isinstance(images := split.images, FileImages):
                streamed = True
                digest.update("\0".join(map(text_of, split.origins())).encode())
                digest.update(np.ascontiguousarray(images.files.times[images.rows], "<i8").data)
        return digest.hexdigest() if streamed else ""

    def batches(self, start: int, size: int) -> Iterator[Rows]:
        """The images from `start` on, `size` at once; a batch is of one split."""
        for name, split in zip(SPLITS, self.splits, strict=True):
            skipped, start = min(start, len(split)), max(0, start - len(split))
            if skipped == len(split):
                continue
            origins = split.origins()
            source = open_source(split, self.classifier.device, channels_last=self.classifier.channels_last)
            for indices, images, labels in source.batches(size, rows=torch.arange(skipped, len(split))):
                names = [origins[row] for row in indices.tolist()]
                yield Rows(names, name, labels.cpu(), images, len(names))


@dataclass(frozen=True)
class NamedImages:
    """Images as `zoo.predict` takes them.

    Attributes:
        given: the images, and what is wrong with a word that names none. skip_bad: images that cannot be read are left
            out, each with a warning.
    """

    given: Sequence[Given | DataError]
    classifier: Classifier = field(repr=False)
    threads: int = 0
    skip_bad: bool = False
    spec: str = ""
    classes: tuple[str, ...] = ()
    has_sets: bool = False
    changed: str = ""  # the fingerprint has the times

    @property
    def fingerprint(self) -> str:
        """A sha256 over paths, sizes and times of change; of images that have no path, one that never comes again."""
        digest = hashlib.sha256()
        for one in self.given:
            digest.update(f"{one if isinstance(one, DataError) else _identity(one)}\n".encode("utf-8", "replace"))
        return f"files-{digest.hexdigest()}"

    @property
    def counts(self) -> dict[str, int]:
        """How many images were asked for."""
        return {"": len(self.given)}

    def batches(self, start: int, size: int) -> Iterator[Rows]:
        """The images from `start` on, `size` at once.

        Raises:
            DataError: an image cannot be read, unless such images are left out.
        """
        left = islice(self.given, start, None)
        with closing(decoded(self.classifier, left, 2 * size, self.threads or default_threads())) as images:
            while batch := list(islice(images, size)):
                good = [one for one in map(self._readable, batch) if one is not None]
                names = [name for name, _ in good]
                pixels = np.stack([pixels for _, pixels in good]) if good else np.empty((0, 3, 1, 1), np.uint8)
                yield Rows(names, "", None, pixels, len(batch))

    def _readable(self, one: Decoded) -> tuple[str, Images] | None:
        if not isinstance(one, DataError):
            return one
        if not self.skip_bad:
            raise one
        warnings.warn(f"{one}; left out", ZooWarning, stacklevel=callers())
        return None


def _identity(given: Given) -> str:
    if isinstance(given.data, Path):
        status = os.stat(given.data)
        return f"{text_of(given.name)} {status.st_size} {status.st_mtime_ns}"
    if isinstance(given.data, bytes):
        return f"{given.name} {hashlib.sha256(given.data).hexdigest()}"
    return uuid.uuid4().hex


def named_images(
    given: Iterable[Given | DataError], classifier: Classifier, *, threads: int, skip_bad: bool
) -> NamedImages:
    """Images that somebody names; their list is made at once, the images are read batch by batch."""
    return NamedImages(tuple(given), classifier, threads, skip_bad)


def dataset_images(
    spec: str, classifier: Classifier, registry: Registry, *, data_dir: str | None = None
) -> DatasetImages:
    """The images of any dataset, as the classifier takes them; its classes need not be the classifier's.

    It is divided as a training with it would divide it: validation images that came with it, or else a share of the
    training images that is the same for every model.

    Raises:
        UnknownNameError, InputError, DataError: as `zoo.data.load`.
    """
    sizes = classifier.sizes
    size, rule = (sizes.height, sizes.width), classifier.preprocessing.rule
    files = find(spec, registry)[1].source.startswith(("folder:", "csv:", "jsonl:"))
    delivery = Delivery("stream" if files else "auto", None, str(classifier.device))
    taken = Taken(classifier.name, size, rule, [classifier.class_names])
    data = loaded_as(taken, registry, spec, data_dir=data_dir, delivery=delivery, whole=False)
    return _divided(spec, RunImages(data, VALIDATION_FRACTION), classifier)


def own_images(
    record: RunRecord, classifier: Classifier, registry: Registry, *, data_dir: str | None, dataset: str | None
) -> DatasetImages:
    """The images of a run, divided as the run divided them.

    Args:
        dataset: where they are here, if not at the recorded SPEC.
    Raises:
        RunError: they are not the recorded ones. Else as `zoo.data.load`.
        InputError: the run selected its epoch on the test images, so that it has no validation images.
    """
    images = images_of(record, registry, data_dir=data_dir, dataset=dataset)
    if not images.validation:
        raise InputError(
            "the run has no validation images: by the protocol `paper` it selected on the test images; name the "
            f"dataset, which is then divided as by the protocol `clean`: --on {quote(record.data.spec)}"
        )
    return _divided(dataset or record.data.spec, images, classifier)


def _divided(spec: str, images: RunImages, classifier: Classifier) -> DatasetImages:
    data = images.data
    return DatasetImages(spec, data.fingerprint, data.classes, images.divided(), classifier)
