"""Which images an epoch shows, and in which order.

As everything random here, this is a function of (seed, epoch) alone, so that a run which is resumed within an epoch,
and each of several processes, knows it without being told.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from zoo.catalogue.recipe import Sampler
from zoo.data.batches.resident import generator, order
from zoo.data.batches.windows import windows
from zoo.data.shards.packed import ShardImages
from zoo.data.split import Split
from zoo.data.types import Labels
from zoo.errors import InputError

POWERS = MappingProxyType({"balanced": 1.0, "sqrt": 0.5})
"""Of the number of images in a class: an image is drawn in proportion to its inverse."""


def epoch_order(sampler: Sampler, seed: int, epoch: int, labels: Labels) -> Tensor:
    """The images of an epoch, as many as there are, by their sample numbers; on the CPU.

    "shuffled" gives each once. Otherwise they are drawn with replacement: an image of a class of n images with a
    probability proportional to 1/n ("balanced", so that each class is as probable as any other) or 1/sqrt(n) ("sqrt").

    Args:
        labels: int64 (N,).
    Returns:
        int64 (N,). Sample number s is row s % N; the row's second appearance in the epoch is row + N, its third
        row + 2 * N, and so on, so that what is random about an image (see `zoo.data.augment.crop`) differs each time.
    """
    if sampler == "shuffled":
        return order(seed, epoch, len(labels))
    chance = torch.rand(2, len(labels), generator=generator(seed, epoch), dtype=torch.float64)
    _, classes, counts = torch.tensor(labels).unique(return_inverse=True, return_counts=True)
    bounds = (counts.double() ** (1 - POWERS[sampler])).cumsum(0)
    chosen = torch.searchsorted(bounds, chance[0] * bounds[-1], right=True)
    begins = counts.cumsum(0) - counts
    rows = classes.argsort(stable=True)[begins[chosen] + (chance[1] * counts[chosen]).long()]
    return rows + len(labels) * appearances(rows)


def split_order(sampler: Sampler, seed: int, epoch: int, split: Split) -> Tensor:
    """The sample numbers of an epoch of a split, as `epoch_order`; of images in shards, see `windows`."""
    images = split.images
    if sampler == "shuffled" and isinstance(images, ShardImages):
        return windows(seed, epoch, images.blocks, images.sizes, images.shuffle).order
    refuse_sampler(sampler, split)
    return epoch_order(sampler, seed, epoch, split.labels)


def refuse_sampler(sampler: Sampler, split: Split) -> None:
    """Refuse to draw images at any place where only whole blocks can be read.

    Raises:
        InputError: says what to do.
    """
    images = split.images
    if sampler != "shuffled" and isinstance(images, ShardImages) and not images.files.store.is_local:
        raise InputError(
            f'recipe.sampler="{sampler}" draws images at any place of the dataset, and these shards are read block by '
            'block: set recipe.sampler="shuffled" with recipe.class_weights="balanced", or stream from tar files on '
            "this machine (wds:)"
        )


def appearances(rows: Tensor) -> Tensor:
    """How often each value has come before in the list: int64 (N,) for int64 (N,)."""
    ordered, places = rows.sort(stable=True)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    here = torch.arange(len(rows))
    first = torch.where(starts, here, 0).cummax(0).values
    return torch.empty_like(rows).scatter_(0, places, here - first)
