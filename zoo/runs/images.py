"""What a record says about the images of its run: how they are changed, and how many are evaluated at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from zoo.catalogue.registry import load_registry
from zoo.data.augment import pipeline as augment
from zoo.data.batches.mode import Delivery
from zoo.data.files.decode import Rule, make_rule, transform_rule
from zoo.data.load import evaluation_rule, load
from zoo.data.split import VALIDATION_SEED, Split, limit, validation_split
from zoo.errors import InputError, RunError, UnknownNameError
from zoo.runs.record import RunRecord

SplitName = Literal["test", "val", "train"]


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


def rule_of(record: RunRecord) -> Rule:
    """The run's own scaling and cropping, else its dataset's; the whole image where nothing is known of it here."""
    if record.data.transform:
        return transform_rule(record.data.transform)
    return dataset_rule(record.data.spec, (record.sizes.height, record.sizes.width))


def dataset_rule(spec: str, size: tuple[int, int]) -> Rule:
    """How a dataset brings an image to `size` (height, width); the whole image where nothing is known of it here."""
    try:
        rule = evaluation_rule(spec, load_registry(), size)
    except (UnknownNameError, InputError):  # a dataset of somebody else's catalogue
        return make_rule(None, size, None, None)
    return rule if rule.out_size() == size else make_rule(None, size, None, None)


def split_of(
    record: RunRecord, split: SplitName, data_dir: str | None = None, dataset: str | None = None
) -> Split:
    """The images of one split of a run, to the last one (from the SPEC `dataset`, if given).

    Raises:
        RunError: the dataset is not the one that was recorded, or the run has no such split.
    """
    if split == "val" and record.protocol == "paper":
        raise RunError(
            "the run has no validation split: by the protocol `paper` it selected on the test split; "
            "give --split test or --split train"
        )
    spec, kept = dataset or record.data.spec, record.data
    data = load(
        spec,
        load_registry(),
        data_dir=Path(data_dir) if data_dir else None,
        image_size=kept.image_size,
        seed=VALIDATION_SEED,
        skip_bad=kept.skipped > 0,
        delivery=Delivery(kept.mode, None, record.device),
        transform=kept.transform,
    )
    if data.fingerprint != kept.fingerprint:
        raise RunError(
            f"dataset {spec!r} is not the recorded one: its fingerprint is "
            f"{data.fingerprint[:12]}, recorded {kept.fingerprint[:12]}"
        )
    if split == "test":
        return limit(data.test, kept.limit_test)
    train = limit(data.train, kept.limit_train)
    if record.protocol == "paper":
        return train
    rows, held_out = validation_split(train.labels, kept.validation_fraction, VALIDATION_SEED, train.copies)
    return train.select(held_out if split == "val" else rows, train.copies)
