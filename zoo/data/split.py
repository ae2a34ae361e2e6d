"""Splits as arrays: what a loaded dataset is, and how indices are drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.base.text import plural
from zoo.catalogue.spec import Dataset
from zoo.data.files.colours import Colours
from zoo.data.files.decode import Rule
from zoo.data.findings import Finding
from zoo.data.grouped import whole_groups
from zoo.data.label_sets import Task, has_sets, strata
from zoo.data.types import GROUP, VALIDATES, Columns, Images, Labels, SplitsFrom
from zoo.errors import DataError, InputError

if TYPE_CHECKING:
    from zoo.data.files.image_files import FileImages
    from zoo.data.files.pool import Pool
    from zoo.data.origins import Origins


TEST_SHARE = 0.2
"""Of a dataset without splits, the share that is its test."""

VALIDATION_FRACTION = 0.1

VALIDATION_SEED = 0
"""The validation split is the same for every seed of a run: spread over seeds is of training alone."""


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, 3, H, W), maybe a read-only memory map, or files that are decoded when read.
        labels: int64 (N,), the class of each image; or, of several labels an image, uint8 (N, K), see
            `zoo.data.label_sets`.
        copies: how many altered copies of the same images follow one another in `images`
            (see `zoo.data.sources.altered_images`): row i and row i + N/copies show the same original.
        pool: what decodes them where they are streamed; None: they are brought to the device whole.
        decoded_from: where the images of an array came from, if that is known; see `origins`.
        columns: what else is known of each image; see `zoo.data.types`.
    """

    images: Images | FileImages
    labels: NDArray[Any]
    copies: int = 1
    pool: Pool | None = None
    decoded_from: Origins | None = None
    columns: Columns = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def origins(self) -> list[str]:
        """The file, or the row of a file, that each image came from."""
        if not isinstance(self.images, np.ndarray):
            return [self.images.where(row) for row in range(len(self))]
        known = self.decoded_from
        return known.names() if known else [f"image {row}" for row in range(len(self))]

    def select(self, rows: Labels, copies: int = 1) -> Split:
        """Some of the images: a copy in memory, or still files."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        chosen = replace(self, labels=self.labels[rows], columns=columns, copies=copies)
        images = self.images
        if isinstance(images, np.ndarray):
            known = self.decoded_from and self.decoded_from.select(rows)
            return replace(chosen, images=images[rows], decoded_from=known)
        return replace(chosen, images=images.select(rows))


@dataclass(frozen=True)
class ImageData:
    """A dataset that is ready for use.

    Attributes:
        name: short name, for file names and tables.
        spec: the string that was given.
        dataset: its description, with classes, size and counts filled in.
        train, test: the splits. classes: names, in label order.
        fingerprint: sha256 over shapes, image bytes, labels and class names, hexadecimal; where the
            images are streamed from files, "files-" and one over relative paths, sizes, labels, class
            names and the rule that brings images to their size.
        named: whether the classes have names of their own; else they are the numbers of the labels.
        skipped: unreadable images left out (`skip_bad`). ignored: files that were no images, and rows without a label.
        notes: how the images are delivered and why, a line each.
        findings: what was seen while they were listed and opened.
        white: the value of images of more than 8 bits that is read as white; None where there are none.
        splits_from: where validation and test came from.
        colours: how values become colours, as was asked for and as all images together need.
        rule: how the images were brought to their size; nothing set where they were left as they are.
    """

    name: str
    spec: str
    dataset: Dataset
    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    skipped: int = 0
    ignored: int = 0
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    white: float | None = None
    named: bool = True
    splits_from: SplitsFrom = SplitsFrom()  # noqa: RUF009 - a named tuple does not change
    colours: Colours = Colours()  # noqa: RUF009 - frozen
    rule: Rule = Rule()  # noqa: RUF009 - frozen

    @property
    def streamed(self) -> bool:
        """Whether the images are delivered batch by batch."""
        return self.train.pool is not None

    @property
    def task(self) -> Task:
        """Whether each image has one label, or any number of them."""
        return "multi-label" if has_sets(self.train.labels) else "single-label"


def _per_class(counts: Labels, total: int) -> Labels:
    """Share `total` among classes by largest remainder, none above its count."""
    exact = counts * (total / counts.sum())
    share = np.floor(exact).astype(np.int64)
    rest = total - int(share.sum())
    share[np.argsort(-(exact - share), kind="stable")[:rest]] += 1
    return share


def _bounded(shares: Labels, least: Labels, most: Labels, total: int) -> Labels:
    """The shares brought between bounds, with their sum as near to `total` as the bounds allow."""
    bounded = np.clip(shares, least, most)
    rest = total - int(bounded.sum())
    room = most - bounded if rest > 0 else bounded - least
    moved = room if abs(rest) >= room.sum() else _per_class(room, abs(rest))
    return bounded + np.sign(rest) * moved


def stratified(labels: NDArray[Any], n: int, seed: int, *, leave: int = 0, take: int = 0) -> Labels:
    """Choose `n` rows with the class shares of the whole.

    Args:
        labels: int64 (N,), or sets (N, K), see `zoo.data.label_sets.strata`. n: how many, 0..N.
        seed: of a numpy Generator (PCG64); the same seed gives the same rows on every machine.
        leave: so many rows of every class are never chosen, even where fewer than `n` are chosen then.
        take: so many rows of every class are chosen, where `n` is enough for that. Where the shares keep to
            both already, they change nothing.
    Returns:
        int64 (n,), sorted row numbers.
    """
    generator = np.random.default_rng(seed)
    labels = strata(labels)
    classes, counts = np.unique(labels, return_counts=True)
    if n == 0 or not len(classes):
        return np.empty(0, np.int64)
    counts = counts.astype(np.int64)
    least = np.minimum(counts, take if n >= take * len(classes) else 0)
    shares = _bounded(_per_class(counts, n), least, np.maximum(counts - leave, 0), n)
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def drawn_test(labels: NDArray[Any], seed: int, where: str, groups: Labels | None = None) -> tuple[Labels, Labels]:
    """Divide a dataset without splits: a stratified fifth is the test, and every class keeps an image to learn from.

    Args:
        groups: int64 (N,), the group of each image; groups stay whole, see `zoo.data.grouped.whole_groups`.
    Returns:
        (train rows, test rows), int64, sorted, disjoint.
    Raises:
        DataError: no class has two images, or two groups; names `where`.
    """
    n = max(1, round(len(labels) * TEST_SHARE))
    test = stratified(labels, n, seed, leave=1) if groups is None else whole_groups(strata(labels), groups, n, seed)
    if len(labels) and not len(test) and groups is not None:
        raise DataError(
            f"{where}: every group holds all images of a class, so that none can be held out whole for the test; add "
            "images, or divide them into train and test yourself"
        )
    if len(labels) and not len(test):
        raise DataError(
            f"{where}: no class has two images, so that none can be held out for the test; add images, or "
            "divide them into train and test yourself"
        )
    return np.setdiff1d(np.arange(len(labels)), test), test


def _spread(rows: Labels, originals: int, copies: int) -> Labels:
    """The rows of all copies of the chosen originals."""
    return np.concatenate([rows + k * originals for k in range(copies)])


def validation_split(
    labels: NDArray[Any], fraction: float, seed: int, copies: int = 1, groups: Labels | None = None
) -> tuple[Labels, Labels]:
    """Carve a stratified validation split out of the training rows.

    Every class keeps a training image: of a class with a single one, validation has none. With `copies` > 1
    (an altered training set) all copies of one original land on the same side.

    Args:
        labels: int64 (N,), or sets (N, K). fraction: of the originals that validate, 0 < fraction < 1.
        seed: the split is a function of labels, fraction, groups and seed alone.
        groups: int64 (N,), the group of each image; groups stay whole, see `zoo.data.grouped.whole_groups`.
    Returns:
        (train rows, validation rows), int64, sorted, disjoint.
    Raises:
        InputError: the fraction leaves one side empty.
    """
    originals = len(labels) // copies
    n = round(originals * fraction) if 0 < fraction < 1 else 0
    if not 0 < n < originals:
        raise InputError(
            f"holding out {fraction:.3g} of {plural(originals, 'training image')} for validation leaves one side "
            f"empty; use more images{_enough(fraction)}, another share (--validation), or --protocol paper, which "
            "selects on the test images"
        )
    if groups is None:
        validation = stratified(labels[:originals], n, seed, leave=1)
    else:
        validation = whole_groups(strata(labels[:originals]), groups[:originals], n, seed)
    if not len(validation) and groups is not None:
        raise InputError(
            "every group of training images holds all images of a class, so that none can be held out whole for "
            "validation: use more images, or --protocol paper, which selects on the test images"
        )
    if not len(validation):
        raise InputError(
            f"no class has two of the {plural(originals, 'training image')}, so that none can be held out for "
            "validation: use more images, or --protocol paper, which selects on the test images"
        )
    train = np.setdiff1d(np.arange(originals), validation, assume_unique=True)
    return _spread(train, originals, copies), _spread(validation, originals, copies)


def is_given(split: Split) -> Labels:
    """Which training images are validation images that came with the dataset: bool (N,)."""
    return split.columns.get(VALIDATES, np.zeros(len(split), bool))


def divided_rows(split: Split, fraction: float, seed: int) -> tuple[Labels, Labels]:
    """The rows that are learnt from, and those that select: the given validation images, or else carved ones.

    Args:
        split: all training images. fraction, seed: as for `validation_split`.
    Returns:
        (train rows, validation rows), int64, sorted, disjoint.
    Raises:
        InputError: as `validation_split`.
    """
    given = is_given(split)
    if given.any():
        return np.flatnonzero(~given), np.flatnonzero(given)
    return validation_split(split.labels, fraction, seed, split.copies, split.columns.get(GROUP))


def learnt(split: Split) -> Split:
    """The training images without the validation images that came with them."""
    given = is_given(split)
    return split.select(np.flatnonzero(~given), split.copies) if given.any() else split


def _enough(fraction: float) -> str:
    return f" (at least {int(0.5 / fraction) + 1:,})" if 0 < fraction < 1 else ""


def limit(split: Split, n: int | None, seed: int = 0) -> Split:
    """Keep a stratified subset of `n` images, deterministic, in the split's order; of every class if `n` allows.

    Returns:
        The split itself where `n` is None or not below its size; else as `Split.select`.
    Raises:
        InputError: n is not positive.
    """
    if n is not None and n < 1:
        raise InputError(f"a limit of {plural(n, 'image')} leaves nothing; give at least 1")
    if n is None or n >= len(split):
        return split
    originals = len(split) // split.copies
    rows = stratified(split.labels[:originals], max(1, n // split.copies), seed, take=1)
    return split.select(_spread(rows, originals, split.copies), split.copies)
