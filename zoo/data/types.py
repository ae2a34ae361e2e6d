"""What images and labels are while they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

Item = bytes | Path | Callable[[], "Image.Image"]
"""One undecoded image: an encoded file's bytes, its path, or a function that opens it."""

Chunk = Images | Sequence[Item]
"""Consecutive images: already decoded, uint8 (n, 3, H, W), or items to be decoded."""

CHUNK = 512
