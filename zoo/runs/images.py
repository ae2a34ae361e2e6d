"""What a record says about the images of its run: which they are, how they are prepared, how many at once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import torch

from zoo.catalogue.provenance import require_dataset
from zoo.catalogue.registry import Registry
from zoo.data.augment import pipeline as augment
from zoo.data.batches.mode import Delivery
from zoo.data.content import content_sha256
from zoo.data.dataset_spec import earlier_rule, evaluation_rule
from zoo.data.files.colours import Colours
from zoo.data.files.decode import Rule, transform_of, transform_rule
from zoo.data.given_data import GivenData
from zoo.data.load import load, only_this
from zoo.data.sources.source import Show
from zoo.data.split import VALIDATION_FRACTION, VALIDATION_SEED, ImageData, Split, divided_rows, is_given, learnt, limit
from zoo.data.types import CARVED, Labels
from zoo.errors import InputError, RunError, UnknownNameError
from zoo.plugin.contract import Transform
from zoo.runs.record import RunRecord, Sizes
from zoo.runs.validation_images import validation_images

SplitName = Literal["test", "val", "train"]

EVAL_PIXELS = 512 * 32 * 32

FEWEST = 64
"""Images of a batch of an evaluation, at least, up to `EVAL_MOST` pixels together."""

EVAL_MOST = FEWEST * 1024 * 1024


class HasSizes(Protocol):
    """A record, or a model that knows its images."""

    @property
    def sizes(self) -> Sizes:
        """Channels, pixels and classes."""


def eval_batch(model: HasSizes) -> int:
    """How many images one batch of an evaluation has: 512 at 32x32, fewer where they are larger."""
    pixels = model.sizes.height * model.sizes.width
    fewest = max(1, min(FEWEST, EVAL_MOST // pixels))
    return max(fewest, min(512, EVAL_PIXELS // pixels))


def make_augment(record: RunRecord, device: torch.device, *, cropped: bool = False) -> augment.Augment:
    """The recipe's augmentation for the images of a run; `cropped`: they were cut at random already."""
    sizes, data = record.sizes, record.data
    steps = record.settings.augment
    return augment.build(
        steps[1:] if cropped else steps,
        data.mean,
        data.std,
        bool(record.settings.normalize),
        size=(sizes.height, sizes.width),
        num_classes=sizes.num_classes,
        device=device,
        seed=record.seed,
    )


def rule_of(record: RunRecord, registry: Registry) -> Rule:
    """The run's own scaling and cropping; runs of earlier versions did not record it, and their dataset is asked.

    Where that is not known here, the whole image is scaled. Black, white and the background are those of the run's
    images.
    """
    data, size = record.data, (record.sizes.height, record.sizes.width)
    colours = Colours(data.white, data.background or None, data.black or None)
    return images_rule(data.spec, registry, size, data.transform or data.scaling or None, colours, data.image_size)


def scaling_of(data: ImageData) -> Transform:
    """How an image of any size is brought to that of a dataset's images, as they were brought to it."""
    _, _, height, width = data.train.images.shape
    return transform_of(data.rule, (height, width))


def images_rule(
    spec: str,
    registry: Registry,
    size: tuple[int, int],
    transform: Transform | None,
    known: Colours,
    side: int | None = None,
) -> Rule:
    """How more images are brought to those of a run: by `transform`, else as its dataset's are.

    Args:
        known: how the run's own images became colours; what it leaves open is the dataset's.
        side: of the images, where the run asked its dataset for one.
    """
    rule = dataset_rule(spec, registry, size, side)
    colours = replace(rule.colours, background=known.background) if known.background else rule.colours
    if known.white:
        colours = replace(colours, white=known.white, black=known.black)
    return replace(transform_rule(transform) if transform else rule, colours=colours)


def dataset_rule(spec: str, registry: Registry, size: tuple[int, int], side: int | None = None) -> Rule:
    """How a dataset brings an image to `size` (height, width); the whole image where it is not known here."""
    try:
        return evaluation_rule(spec, registry, size, None if side is None else (side, side))
    except (UnknownNameError, InputError):  # a dataset of somebody else's catalogue
        return Rule(size=size)


@dataclass(frozen=True)
class RunImages:
    """A dataset as a run divides it; a split is cut out when it is asked for, as that may copy its images.

    Validation images that are given select the epoch, all of them; none is held out then.

    Attributes:
        validation: share of the training images that is held out to select the epoch by; 0: none is, and the
            epoch is selected on the test images (the protocol `paper`). Validation images that came with the dataset
            are never learnt from.
        limit_train, limit_test: how many images are used of each part, before validation is held out.
        own: whether validation images that came with the dataset select, rather than a share.
        other: images of another dataset that select, rather than those.
    """

    data: ImageData
    validation: float
    limit_train: int | None = None
    limit_test: int | None = None
    own: bool = True
    other: Split | None = None

    @cached_property
    def _own_select(self) -> bool:
        """Whether validation images that came with the dataset select the epoch."""
        return self.own and bool(is_given(self.data.train).any())

    @property
    def carves(self) -> bool:
        """Whether a share of the training images selects the epoch."""
        return self.validation > 0 and self.other is None and not self._own_select

    @cached_property
    def _limited(self) -> Split:
        return limit(learnt(self.data.train), self.limit_train)

    @cached_property
    def _rows(self) -> tuple[Labels, Labels]:
        return divided_rows(self._limited, self.validation, VALIDATION_SEED)

    @property
    def train(self) -> Split:
        """The images that the run learns from."""
        limited = self._limited
        return limited.select(self._rows[0], limited.copies) if self.carves else limited

    @property
    def selecting(self) -> Split:
        """The images that the run selects its epoch by."""
        if not self.validation:
            return self.test
        if self.other is not None:
            return self.other
        if self._own_select:
            every = self.data.train
            return every.select(np.flatnonzero(is_given(every)), every.copies)
        limited = self._limited
        return limited.select(self._rows[1], limited.copies)

    @cached_property
    def test(self) -> Split:
        """The images that the run is measured on."""
        return limit(self.data.test, self.limit_test)

    def divided(self) -> tuple[Split, Split, Split]:
        """Training, selecting and test images."""
        return self.train, self.selecting, self.test


def images_of(
    record: RunRecord,
    registry: Registry,
    *,
    data_dir: str | None = None,
    dataset: str | None = None,
    workers: int | None = None,
    show: Show | None = None,
    given: GivenData | None = None,
    test_sha256: str = "",
    selects: bool = True,
) -> RunImages:
    """Load the images of a run again, to the last one, and divide them as the run did.

    Args:
        data_dir: where downloads are. dataset: where the same images are here, if not at the recorded SPEC.
        workers: processes that decode streamed images; the images are the same.
        show: told about the progress, as by `zoo.data.load.load`.
        given: the images themselves, given again, of a run that was given its images in Python.
        test_sha256: what its test images are (`zoo.data.content`): a dataset that has the same ones in another order
            is then taken for their sake; its training images are divided otherwise than the run's.
        selects: whether `selecting` is wanted; if not, validation images of another dataset are not looked for.
    Raises:
        RunError: the dataset is not the one that was recorded. Else as `zoo.data.load.load`.
        MissingPluginError: no installed plugin offers it.
    """
    recorded, spec = record.data, dataset or (given.spec if given else record.data.spec)
    require_dataset(spec, record.plugins, registry)
    with only_this():
        data = load(
            spec,
            registry,
            data_dir=Path(data_dir) if data_dir else None,
            image_size=recorded.image_size,
            seed=VALIDATION_SEED,
            show=show,
            skip_bad=recorded.skipped > 0,
            delivery=Delivery(recorded.mode, workers, record.device),
            transform=recorded.transform,
            given=given,
            earlier=recorded.validation_from is msgspec.UNSET,
            task=recorded.task or None,
            shuffle=recorded.shuffle or None,
        )
    is_other = data.fingerprint != recorded.fingerprint
    is_known = test_sha256 and data.classes == recorded.classes
    if is_other and not (is_known and content_sha256(data.test, data.classes) == test_sha256):
        raise RunError(
            f"dataset {spec!r} is not the recorded one: its fingerprint is "
            f"{data.fingerprint[:12]}, recorded {recorded.fingerprint[:12]}{_other_options(recorded.spec, spec)}"
        )
    clean = record.protocol == "clean"
    return RunImages(
        data,
        (recorded.validation_fraction or VALIDATION_FRACTION) if clean else 0.0,
        recorded.limit_train,
        recorded.limit_test,
        own=recorded.validation_from != CARVED,
        other=_recorded_validation(record, registry, data_dir, workers) if selects else None,
    )


def _other_options(recorded: str, given: str) -> str:
    """How to end a message about other images, where the recorded SPEC has options that the given one lacks."""
    options = recorded.partition("?")[2]
    return f"; the recorded SPEC ends in ?{options}" if options and options != given.partition("?")[2] else ""


def _recorded_validation(
    record: RunRecord, registry: Registry, data_dir: str | None, workers: int | None
) -> Split | None:
    """The images of another dataset that a run was given for validation, if it was.

    Raises:
        RunError: they are not those that were recorded.
    """
    recorded, size = record.data, (record.sizes.height, record.sizes.width)
    if not recorded.validation_fingerprint or not recorded.validation_from:
        return None
    spec, rule = recorded.validation_from, rule_of(record, registry)
    if not (recorded.scaling or recorded.transform):
        with suppress(UnknownNameError, InputError):  # then the whole image is scaled, as it was
            rule = replace(earlier_rule(recorded.spec, registry, size), colours=rule.colours)
    delivery = Delivery(recorded.mode, workers, record.device)
    how: dict[str, Any] = {"data_dir": data_dir, "delivery": delivery, "several": recorded.is_multi_label}
    found = validation_images(spec, registry, size, rule, recorded.classes, **how)
    if found.fingerprint != recorded.validation_fingerprint:
        raise RunError(
            f"the validation images {spec!r} are not the recorded ones: their fingerprint is "
            f"{found.fingerprint[:12]}, recorded {recorded.validation_fingerprint[:12]}"
        )
    return found.images


def split_of(
    record: RunRecord,
    split: SplitName,
    registry: Registry,
    *,
    data_dir: str | None = None,
    dataset: str | None = None,
    given: GivenData | None = None,
    test_sha256: str = "",
) -> Split:
    """The images of one split of a run, to the last one.

    Args:
        data_dir, dataset, given: as for `images_of`.
        test_sha256: as for `images_of`; only the test split is taken from images in another order.
    Raises:
        RunError: the run has no such split. Else as `images_of`.
    """
    if split == "val" and record.protocol == "paper":
        raise RunError(
            "the run has no validation split: by the protocol `paper` it selected on the test split; "
            "give --split test or --split train"
        )
    content = test_sha256 if split == "test" and record.data.limit_test is None else ""
    images = images_of(
        record, registry, data_dir=data_dir, dataset=dataset, given=given, test_sha256=content, selects=split == "val"
    )
    if split == "test":
        return images.test
    return images.selecting if split == "val" else images.train
