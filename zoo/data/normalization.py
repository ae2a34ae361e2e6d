"""Mean and standard deviation of the channels that images are normalised by: named, ImageNet's, or measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import numpy as np

from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.base.structs import Struct
from zoo.base.text import plural
from zoo.catalogue.recipe import Normalize
from zoo.data.files.image_files import FileImages
from zoo.data.shards.packed import ShardImages
from zoo.data.sources.source import Show
from zoo.data.split import ImageData, Split
from zoo.data.types import Images, Labels

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that most pretrained weights were trained with."""

FORMAT = 1

VALUES = 1 << 28
"""Pixel values that are looked at: all of 60,000 images of 32x32, 1,783 of those of 224x224."""

FEWEST = 1024
"""Images that are looked at in any case, however large they are."""

CHUNK = 256
DIGITS = 6
FLATTEST = 0.5 / 255
"""A smaller deviation is that of a channel without contrast, which is not scaled."""


class Normalization(Struct, frozen=True, kw_only=True):
    """What images are normalised by.

    Attributes:
        mean, std: of each channel, of pixel values in 0..1.
        measured_on: how many training images they were measured on; 0: they were named.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    measured_on: int = 0

    def notes(self, train: int) -> tuple[str, ...]:
        """What is said of it, a line; nothing where nothing was measured. `train`: number of training images."""
        if not self.measured_on:
            return ()
        rows = (", ".join(f"{value:.4f}" for value in row) for row in (self.mean, self.std))
        of = f"{self.measured_on:,} of {plural(train, 'training image')}"
        where = plural(train, "training image") if self.measured_on == train else f"{of}, evenly spaced"
        return (f"mean {next(rows)} and std {next(rows)} measured on {where}",)


NOTHING = Normalization(mean=(0.0,) * 3, std=(1.0,) * 3)


def normalization(
    wanted: Normalize, data: ImageData, show: Show, *, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
) -> Normalization:
    """What a run normalises its images by.

    Args:
        wanted: as the recipe says. mean, std: those of the weights that the run begins with, in the dataset's place.
    """
    if wanted == "imagenet":
        return Normalization(mean=IMAGENET[0], std=IMAGENET[1])
    if mean or data.dataset.mean:
        return Normalization(mean=mean or data.dataset.mean, std=std or data.dataset.std)
    return measured(data, show) if wanted else NOTHING


def measured(data: ImageData, show: Show) -> Normalization:
    """Mean and standard deviation over the pixels of a dataset's training images, test images left out.

    All images together take `VALUES` pixel values at most; of more, evenly spaced ones are looked at, and which they
    are depends on their number and size alone; of shards that are read block by block, on their blocks too. What was
    measured is kept beside the decoded images.

    Raises:
        DataError: an image that is still a file cannot be read.
    """
    train = data.train
    path = cache_dir() / "files" / f"channels-{_key(data)}.json"
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Normalization)
    rows = looked_at(len(train), int(np.prod(train.images.shape[1:])))
    if isinstance(train.images, ShardImages) and not train.images.files.store.is_local:
        rows = train.images.evenly(len(rows))
    counts, done = np.zeros((train.images.shape[1], 256)), 0
    for images in _chunks(train, rows):
        counts += [np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(len(counts))]
        done += len(images)
        show(f"measuring mean and std of {data.name}", done, len(rows))
    shares = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 0))
    std[std < FLATTEST] = 1.0
    made = Normalization(mean=_rounded(mean), std=_rounded(std), measured_on=len(rows))
    with suppress(WriteError), replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(made))
    return made


def looked_at(images: int, values: int) -> Labels:
    """The rows that are looked at, int64, ascending: all, or evenly spaced ones.

    Args:
        images: how many there are. values: pixel values of one.
    """
    most = max(FEWEST, VALUES // values)
    return np.arange(min(images, most)) * images // min(images, most)


def _key(data: ImageData) -> str:
    digest = hashlib.sha256(f"{FORMAT} {data.fingerprint}".encode())
    images = data.train.images
    if isinstance(images, FileImages):  # the fingerprint knows their sizes only
        digest.update(np.ascontiguousarray(images.files.times).data)
    return digest.hexdigest()[:24]


def _chunks(train: Split, rows: Labels) -> Iterator[Images]:
    """The images of the rows, some at a time: uint8 (n, 3, H, W)."""
    images = train.images
    parts = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    yield from (images.several(part) if isinstance(images, FileImages) else images[part] for part in parts)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), DIGITS) for value in values)
