"""The order of an epoch of images that lie in shards: by blocks, windows and chance.

The blocks of the split (runs of images of a tar, row groups of a parquet file) are permuted. They are read in this
order, and collected into windows: a window is closed when it has `Shuffle.buffer` images or `Shuffle.buffer_mb`
megabytes; a block is never divided. The images of a window are permuted. All of it is a function of (seed, epoch), of
the blocks and sizes of the split's images, and of the numbers of `Shuffle`, which are recorded: a run that is resumed
within an epoch, and each of several processes, knows it without being told.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.batches.resident import generator
from zoo.data.shards.shuffle import Shuffle
from zoo.data.types import Labels


class Windows(NamedTuple):
    """The order of an epoch.

    Attributes:
        order: int64 (N,), rows of the split. window: int64 (N,), the window of each row of the split.
    """

    order: Tensor
    window: Labels


def windows(seed: int, epoch: int, blocks: Labels, sizes: Labels, shuffle: Shuffle) -> Windows:
    """The order of an epoch, and its windows.

    Args:
        blocks: int64 (N,), the block of each row of the split. sizes: int64 (N,), its encoded bytes.
    """
    drawn = generator(seed, epoch)
    _, inverse, counts = np.unique(blocks, return_inverse=True, return_counts=True)
    held = np.bincount(inverse, sizes, len(counts))
    chosen = torch.randperm(len(counts), generator=drawn).numpy()
    of_block = np.empty(len(counts), np.int64)
    window = images = 0
    size, most = 0.0, shuffle.buffer_mb << 20
    for block, count, its in zip(chosen.tolist(), counts[chosen].tolist(), held[chosen].tolist(), strict=True):
        of_block[block] = window
        images, size = images + count, size + its
        if images >= shuffle.buffer or size >= most:
            window, images, size = window + 1, 0, 0.0
    of_row = of_block[inverse]
    rows = torch.randperm(len(blocks), generator=drawn).numpy()
    order = rows[np.argsort(of_row[rows], kind="stable")]
    return Windows(torch.from_numpy(order), of_row)
