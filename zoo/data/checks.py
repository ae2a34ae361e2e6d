"""What is worth knowing about a dataset before hours are spent on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
import numpy as np

from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.base.text import plural, printable_line
from zoo.catalogue.recipe import Recipe
from zoo.data.findings import Finding, sorted_findings
from zoo.data.image_names import Names, named
from zoo.data.label_sets import has_sets
from zoo.data.pixel_findings import pixel_findings, splits_of
from zoo.data.pixels import looked_at
from zoo.data.split import ImageData, Split, is_given
from zoo.data.split_findings import class_counts, class_findings, group_findings
from zoo.data.types import WEIGHT

FORMAT = 3  # 1: without blank images and the files' names; 2: given validation images were training images
"""Of the findings that are kept: counted up when something else is looked for."""

LOOKED_AT = 256 << 20
"""Bytes of images that a run looks at for duplicates, which takes a second or two, once."""

IMBALANCE = 10.0

LONGEST_NAME = 40
"""Characters of the name of a class in a line with others."""


def check(data: ImageData) -> list[Finding]:
    """Look for empty classes, duplicates and imbalance, beside what its source found.

    Unreadable images are found by `load`.

    Returns:
        Findings, errors first; an empty list where all is well.
    """
    return sorted_findings([*label_findings(data), *_pixel_findings(data)])


def label_findings(data: ImageData) -> list[Finding]:
    """What classes and labels say, and what the source has seen; nothing that needs pixels."""
    return [*_classes(data), *_single(data), *_imbalance(data), *_left_out(data)]


def findings_for_training(data: ImageData, clean: bool) -> list[Finding]:
    """What `check` would say, as far as it costs a run nothing: pixels are looked at once, and only in small datasets.

    Args:
        clean: whether validation images are held out of the training images.
    """
    findings = [f for f in _classes(data) if f.level != "error"]  # which the run refuses
    images = (data.train.images, data.test.images)
    if not data.streamed and sum(part.nbytes for part in images) <= LOOKED_AT:
        seen = [f for f in _kept_pixel_findings(data) if f.level == "warning"]
        seen = [f for f in seen if clean or not f.kind.startswith("validation-")]
        findings += named(seen, data, Names(data))
    return [*findings, *_left_out(data)]


def _kept_pixel_findings(data: ImageData) -> list[Finding]:
    path = cache_dir() / "files" / f"check-{FORMAT}-{data.fingerprint[:24]}.json"
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=list[Finding])
    findings = _pixel_findings(data)
    with suppress(WriteError), replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(findings))
    return findings


def _pixel_findings(data: ImageData) -> list[Finding]:
    return pixel_findings(data, {side: looked_at(split) for side, split in splits_of(data).items()})


def _classes(data: ImageData) -> list[Finding]:
    findings = [*_alike(data)]
    if len(data.classes) == 1:
        text = "there is one class only: nothing can be learnt from it, and training refuses it"
        findings.append(Finding(level="warning", kind="one-class", message=text, count=1, examples=data.classes))
    return [*findings, *class_findings(data), *group_findings(data)]


def _alike(data: ImageData) -> Iterator[Finding]:
    """Classes of one name, and names that differ by case or blanks alone."""
    often = [name for name, count in Counter(data.classes).items() if count > 1]
    if often:
        text = f"{plural(len(often), 'name is', 'names are')} that of several classes"
        yield Finding(
            level="warning", kind="same-name", message=text, count=len(often), examples=tuple(map(repr, often[:5]))
        )
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(data.classes):
        groups["".join(name.casefold().split())].append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    if alike:
        text = f"{plural(len(alike), 'name is', 'names are')} written in several ways, each a class of its own"
        examples = tuple(" and ".join(map(repr, names)) for names in alike[:5])
        yield Finding(level="warning", kind="similar-classes", message=text, count=len(alike), examples=examples)


def _single(data: ImageData) -> list[Finding]:
    counts = class_counts(data.train, len(data.classes))
    names = tuple(name for name, n in zip(data.classes, counts, strict=True) if n == data.train.copies)
    if not names or len(data.classes) < 2 or is_given(data.train).any():
        return []
    text = (
        f"{plural(len(names), 'class has', 'classes have')} a single training image, which is never held out: "
        "validation has none of them"
    )
    return [Finding(level="note", kind="single-image", message=text, count=len(names), examples=names[:5])]


def division_findings(
    data: ImageData, train: Split, limited: int | None, drawn: Split | None = None, other: Split | None = None
) -> list[Finding]:
    """What a run's own division of the images does to small classes.

    Args:
        train: what the run learns from. limited: how many training images were asked for, if fewer than all.
        drawn: validation images that were drawn from those of training. other: those of another dataset.
    """
    counts = class_counts(train, len(data.classes))
    names = tuple(name for name, n in zip(data.classes, counts, strict=True) if not n)
    if not names:
        if drawn is None:
            return [] if other is None else [*_unheld(data, other, 1)]
        return [*_single(data), *(_unheld(data, drawn, data.train.copies + 1) if limited is None else [])]
    text = f"{plural(limited or len(train), 'image')} leave {len(names):,} of {plural(len(data.classes), 'class')} out"
    return [Finding(level="warning", kind="class-left-out", message=text, count=len(names), examples=names[:5])]


def _unheld(data: ImageData, held: Split, least: int) -> Iterator[Finding]:
    """Classes of `least` training images or more that have no validation image."""
    known, counts = class_counts(data.train, len(data.classes)), class_counts(held, len(data.classes))
    names = tuple(name for name, n, has in zip(data.classes, known, counts, strict=True) if n >= least and not has)
    if names:
        text = f"{plural(len(names), 'class has', 'classes have')} no validation image, of {len(data.classes)}"
        yield Finding(level="warning", kind="unvalidated-class", message=text, count=len(names), examples=names[:5])


def _imbalance(data: ImageData) -> list[Finding]:
    counts = [n for n in class_counts(data.train, len(data.classes)) if n]
    if not counts or max(counts) < IMBALANCE * min(counts):
        return []
    text = f"train classes hold {min(counts):,} to {plural(max(counts), 'image')}"
    return [Finding(level="note", kind="imbalance", message=text, count=len(counts))]


def range_of_classes(split: Split, classes: Sequence[str]) -> str:
    """Images of the smallest and of the largest class: "500 (ship) to 4,500 (cat)", or "450" where all have as many.

    Args:
        classes: their names.
    """
    counts = class_counts(split, len(classes))
    least, most = min(counts), max(counts)
    if least == most:
        return f"{most:,}"
    named = (printable_line(classes[counts.index(count)], LONGEST_NAME) for count in (least, most))
    return " to ".join(f"{count:,} ({name})" for count, name in zip((least, most), named, strict=True))


def imbalance_findings(train: Split, classes: Sequence[str], recipe: Recipe) -> list[Finding]:
    """That a run's classes are uneven and its recipe does nothing about it, nor do the weights of its images.

    Classes without images do not count.

    Args:
        train: what the run learns from. classes: their names.
    """
    if has_sets(train.labels):  # each class is a question of its own
        return []
    counts = [n for n in np.bincount(train.labels, train.columns.get(WEIGHT), len(classes)).tolist() if n]
    is_met = recipe.class_weights != "none" or recipe.sampler != "shuffled" or recipe.loss == "focal"
    if is_met or not counts or max(counts) < IMBALANCE * min(counts):
        return []
    text = (
        f"training images per class are uneven, {range_of_classes(train, classes)}; a model may learn to ignore the "
        'small ones: set recipe.class_weights="balanced", recipe.sampler="balanced" (or "sqrt") or '
        'recipe.loss="focal", and select by recipe.select="balanced-top1"'
    )
    return [Finding(level="warning", kind="imbalance", message=text, count=len(counts))]


def _left_out(data: ImageData) -> list[Finding]:
    findings = []
    if data.skipped:
        text = f"{plural(data.skipped, 'unreadable image is', 'unreadable images are')} left out"
        findings.append(Finding(level="warning", kind="skipped", message=text, count=data.skipped))
    return [*findings, *data.findings]
