"""Where batches come from: one interface for images on the device and for images that are streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from zoo.data.augment.crop import Bounds
from zoo.data.batches.resident import Resident
from zoo.data.batches.stream import Streamed
from zoo.data.split import Split

Batch = tuple[Tensor, Tensor, Tensor]
"""Row or sample numbers int64 (B,), images uint8 (B, 3, H, W), labels int64 (B,): all on the device."""


class BatchSource(Protocol):
    """A split, ready to be trained on or evaluated.

    Attributes:
        labels: int64 (N,), on the device.
        cropped: whether `steps` gives images that a random-resized-crop has cut already.
    """

    labels: Tensor
    cropped: bool
    device: torch.device

    def __len__(self) -> int:
        """Number of images."""

    def steps(self, batches: Tensor, start: int = 0, *, epoch: int = 0) -> Iterator[Batch]:
        """One batch for each row of `batches` (int64 (steps, B)), from row `start` on.

        `batches` holds sample numbers: image s % N each, where the sampler has one several times in an epoch (see
        `zoo.data.batches.sampler`). What a batch holds depends on its sample numbers and on `epoch` alone, not on
        `start`.
        """

    def batches(
        self, batch_size: int, *, rows: Tensor | None = None, drop_last: bool = False, start: int = 0
    ) -> Iterator[Batch]:
        """Batches in the order of `rows` (int64; default: as stored), for evaluation."""

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of these rows (int64 (B,), on the device), whole."""


def open_source(
    split: Split,
    device: torch.device | str = "cpu",
    *,
    channels_last: bool = False,
    bounds: Bounds | None = None,
    seed: int = 0,
) -> BatchSource:
    """Bring a split to the device, or prepare to stream it, as it was loaded.

    Args:
        bounds, seed: of random crops, which a source of files cuts from them (see `BatchSource.cropped`).
    """
    if split.pool is None:
        return Resident(split, device, channels_last=channels_last)
    return Streamed(split, device, channels_last=channels_last, bounds=bounds, seed=seed)
