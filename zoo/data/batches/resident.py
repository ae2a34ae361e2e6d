"""Batches from arrays that lie on the device, and the randomness that everything derives from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from zoo.base.quiet_imports import ignoring
from zoo.base.text import plural
from zoo.data.files.image_files import FileImages
from zoo.data.seeds import mix_seed
from zoo.data.split import Split
from zoo.data.types import Images, Labels
from zoo.errors import InputError

_CHUNK = 4096
COPY_BELOW = 2 << 30
"""Splits smaller than this (bytes) are copied into memory on a CPU; larger ones stay mapped."""


def generator(*parts: int) -> torch.Generator:
    """A fresh CPU generator seeded by `mix_seed`: the same numbers whatever device trains."""
    return torch.Generator().manual_seed(mix_seed(*parts))


def order(seed: int, epoch: int, n: int) -> Tensor:
    """The order of an epoch: a permutation of 0..n-1, int64 (n,), on the CPU; f(seed, epoch, n) alone."""
    return torch.randperm(n, generator=generator(seed, epoch))


def slices(n: int, batch_size: int, *, drop_last: bool, start: int = 0) -> Iterator[tuple[int, int]]:
    """(from, to) of each batch of an epoch of `n` images, from batch number `start` on.

    With `drop_last` every batch is full (one shape for the compiler); an epoch smaller than one batch
    still gives one, so that a tiny dataset trains.

    Raises:
        InputError: the batch size is not positive.
    """
    if batch_size < 1:
        raise InputError(f"a batch of {plural(batch_size, 'image')} is not possible; give at least 1")
    count = batch_count(n, batch_size, drop_last=drop_last)
    for number in range(start, count):
        yield number * batch_size, min(n, (number + 1) * batch_size)


def batch_count(n: int, batch_size: int, *, drop_last: bool) -> int:
    """How many batches `slices` gives."""
    full, rest = divmod(n, batch_size)
    return full + (1 if rest and (not drop_last or not full) else 0)


class Resident:
    """A split whose uint8 images and labels lie on the device; a batch is one gather.

    Attributes:
        images: uint8 (N, 3, H, W), contiguous or (channels_last) with channels innermost.
        labels: int64 (N,).
        cropped: no image is cut before it is given (see `zoo.data.batches.open.BatchSource`).
    """

    cropped = False

    def __init__(
        self,
        split: Split,
        device: torch.device | str = "cpu",
        *,
        rows: Labels | None = None,
        channels_last: bool = False,
    ) -> None:
        """Bring a split, or the given `rows` of it (int64, any order), to the device."""
        self.device = torch.device(device)
        self.channels_last = channels_last
        self.labels = torch.tensor(split.labels if rows is None else split.labels[rows], device=self.device)
        self.images = self._resident(split.images, rows)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The batch of these rows: uint8 (B, 3, H, W) and int64 (B,).

        Args:
            indices: int64 (B,), on the device.
        """
        labels = self.labels.index_select(0, indices)
        shape = (len(indices), *self.images.shape[1:])
        if self.channels_last:
            flat = self.images.permute(0, 2, 3, 1).view(len(self), -1)
            nhwc = (shape[0], shape[2], shape[3], shape[1])
            return flat.index_select(0, indices).view(nhwc).permute(0, 3, 1, 2), labels
        return self.images.view(len(self), -1).index_select(0, indices).view(shape), labels

    def steps(self, batches: Tensor, start: int = 0, *, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Training batches (numbers, images, labels) for each row of `batches`, int64 (steps, B), from `start` on.

        Args:
            batches: sample numbers: row s % N each (see `zoo.data.batches.sampler`).
        """
        del epoch  # nothing is cut here (see `BatchSource`)
        for numbers in batches[start:].to(self.device):
            yield numbers, *self.take(numbers % len(self))

    def batches(
        self, batch_size: int, *, rows: Tensor | None = None, drop_last: bool = False, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches (indices, images, labels) in the order of `rows` (int64; default: as stored).

        Args:
            drop_last, start: as in `slices`.
        """
        chosen = torch.arange(len(self), device=self.device) if rows is None else rows.to(self.device)
        for begin, end in slices(len(chosen), batch_size, drop_last=drop_last, start=start):
            indices = chosen[begin:end]
            yield indices, *self.take(indices)

    def _resident(self, images: Images | FileImages, rows: Labels | None) -> Tensor:
        count, (channels, height, width) = len(self.labels), images.shape[1:]
        if rows is None and not self.channels_last and isinstance(images, np.memmap) and self._stays_mapped(images):
            return _mapped(images)
        shape = (count, height, width, channels) if self.channels_last else (count, channels, height, width)
        out = torch.empty(shape, dtype=torch.uint8, device=self.device)
        for start in range(0, count, _CHUNK):
            part = slice(start, min(start + _CHUNK, count))
            block = images[part] if rows is None else images[rows[part]]
            block = block.transpose(0, 2, 3, 1) if self.channels_last else block
            out[part].copy_(torch.from_numpy(np.array(block, order="C")))
        return out.permute(0, 3, 1, 2) if self.channels_last else out

    def _stays_mapped(self, images: Images) -> bool:
        return self.device.type == "cpu" and images.nbytes >= COPY_BELOW


def _mapped(images: Images) -> Tensor:
    with ignoring("The given NumPy array is not writable"):
        return torch.from_numpy(images)  # nothing here writes to it
