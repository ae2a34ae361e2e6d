"""What a record says about the images of its run: how they are changed, and how many are evaluated at once."""

from __future__ import annotations

import torch

from zoo.data.augment import pipeline as augment
from zoo.runs.folder import RunRecord

EVAL_PIXELS = 512 * 32 * 32


def eval_batch(record: RunRecord) -> int:
    """How many images one batch of an evaluation has: 512 at 32x32, fewer where they are larger."""
    return max(64, min(512, EVAL_PIXELS // (record.sizes.height * record.sizes.width)))


def make_augment(record: RunRecord, device: torch.device, *, cropped: bool = False) -> augment.Augment:
    """The recipe's augmentation for the images of a run; `cropped`: they were cut at random already."""
    sizes, data = record.sizes, record.data
    steps = record.settings.augment
    return augment.build(
        steps[1:] if cropped else steps,
        data.mean,
        data.std,
        record.settings.normalize,
        size=(sizes.height, sizes.width),
        num_classes=sizes.num_classes,
        device=device,
        seed=record.seed,
    )
