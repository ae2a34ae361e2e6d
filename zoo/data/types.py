"""What images and labels are while they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

Item = bytes | Path | Callable[[], "Image.Image"]
"""One undecoded image: an encoded file's bytes, its path, or a function that opens it."""

Chunk = Images | Sequence[Item]
"""Consecutive images: already decoded, uint8 (n, 3, H, W), or items to be decoded."""

Columns = Mapping[str, NDArray[Any]]
"""What else is known of each image of a split, by name: arrays (N, ...) in the order of its labels."""

VALIDATES, GROUP, WEIGHT = "validates", "group", "weight"
"""Columns: whether an image selects the epoch and is not learnt from (bool); the number of the group that it is never
parted from (int64); how much it counts in the loss (float32). All of shape (N,)."""

CHUNK = 512

CARVED = "carved"
"""In the place of the name of a split: drawn from the training images, always the same ones."""


class SplitsFrom(NamedTuple):
    """Where the splits of a dataset came from: names of folders or of splits, or `CARVED`.

    Attributes:
        validation: "" where the dataset has none of its own. test: "" where the source does not say.
    """

    validation: str = ""
    test: str = ""
