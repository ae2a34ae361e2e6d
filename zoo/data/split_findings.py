"""What is wrong between the splits of a dataset: classes that only some of them have, groups that are torn apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from zoo.base.text import plural
from zoo.data.findings import Finding
from zoo.data.label_sets import has_sets, images_per_class
from zoo.data.split import ImageData, Split, is_given
from zoo.data.types import GROUP, Labels
from zoo.errors import DataError

FEW = 5
"""Names that a finding gives as examples."""


def class_counts(split: Split, classes: int) -> list[int]:
    """Images per class, in label order; of a training split without the validation images that came with it."""
    return images_per_class(split.labels[~is_given(split)], classes)


def validation_counts(split: Split, classes: int) -> list[int]:
    """Validation images per class that came with a training split; empty where there are none."""
    given = is_given(split)
    return images_per_class(split.labels[given], classes) if given.any() else []


def image_counts(data: ImageData) -> dict[str, int]:
    """Images of each split that a dataset has, however many labels each of them has."""
    held = int(is_given(data.train).sum())
    given = {"validation": held} if held else {}
    return {"train": len(data.train) - held, **given, "test": len(data.test)}


def _sides(data: ImageData) -> dict[str, Labels]:
    """Images per class of each split that the dataset has."""
    count, given = len(data.classes), is_given(data.train)
    sides = {"train": data.train.labels[~given]}
    if given.any():
        sides["validation"] = data.train.labels[given]
    sides["test"] = data.test.labels
    return {side: np.array(images_per_class(labels, count), np.int64) for side, labels in sides.items()}


def class_findings(data: ImageData) -> Iterator[Finding]:
    """Classes without images of a split: nothing can be learnt of one without training images, others are warned of."""
    sides = _sides(data)
    for side, counts in sides.items():
        empty = tuple(data.classes[number] for number in np.flatnonzero(counts == 0).tolist())
        if not empty:
            continue
        text = f"{plural(len(empty), 'class has', 'classes have')} no {side} image, of {len(data.classes)}"
        text += f"{labels_are_numbers(data)}{_elsewhere(data, sides)}" if side == "train" else ""
        level: Literal["error", "warning"] = "error" if side == "train" else "warning"
        yield Finding(level=level, kind="empty-class", message=text, count=len(empty), examples=empty[:FEW])


def _elsewhere(data: ImageData, sides: dict[str, Labels]) -> str:
    """Where the images of classes without training images are, and what to do about them."""
    lacking = sides["train"] == 0
    held = {side: int(counts[lacking].sum()) for side, counts in sides.items() if side != "train"}
    told = [plural(count, f"{side} image") for side, count in held.items() if count]
    if not told:
        return ""
    verb = "is" if sum(held.values()) == 1 else "are"
    how = "" if data.spec.startswith("memory:") else f" by {'&' if '?' in data.spec else '?'}drop-unknown"
    return f"; {' and '.join(told)} {verb} of such a class: add training images, or leave them out{how}"


def labels_are_numbers(data: ImageData) -> str:
    """Of a dataset without class names: what its labels are, for a message about classes without images."""
    if data.named or not len(data.train) or has_sets(data.train.labels):
        return ""
    labels = data.train.labels[~is_given(data.train)]
    return f"; the labels have no names and count the classes from 0: here they are {labels.min()} to {labels.max()}"


def refuse_classes(data: ImageData) -> None:
    """Refuse what nothing can be learnt from: a class without training images, or one class alone.

    Raises:
        DataError: says which class, and what to do.
    """
    if len(data.classes) < 2:
        raise DataError(
            f"{data.spec} has one class, {', '.join(data.classes)!r}: training needs two or more; give each class a "
            "folder (or a label) of its own, see `zoo datasets check`"
        )
    sides = _sides(data)
    empty = [data.classes[number] for number in np.flatnonzero(sides["train"] == 0).tolist()]
    if empty:
        advice = _elsewhere(data, sides) or "; remove the class, or see `zoo datasets check`"
        raise DataError(
            f"{data.spec}: class {empty[0]!r} has no training images ({len(empty)} of {len(data.classes)} classes "
            f"are empty){labels_are_numbers(data)}{advice}"
        )


def group_findings(data: ImageData) -> Iterator[Finding]:
    """Groups with images on both sides of a division that came with the dataset: what is measured there is known."""
    groups = data.train.columns.get(GROUP)
    if groups is None:
        return
    given = is_given(data.train)
    others = {"validation": groups[given], "test": data.test.columns.get(GROUP, np.empty(0, np.int64))}
    for side, held in others.items():
        torn = len(np.intersect1d(groups[~given], held))
        if torn:
            text = f"{plural(torn, 'group has', 'groups have')} images both in train and in {side}"
            yield Finding(level="warning", kind="torn-group", message=text, count=torn)
