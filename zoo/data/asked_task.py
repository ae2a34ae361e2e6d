"""Whether images have one label or several, as a user asks for it and as the labels are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zoo.data.label_sets import Task, as_sets
from zoo.data.split import ImageData
from zoo.errors import InputError


def asked_task(source: str, common: dict[str, Any], asked: Task | None) -> Task | None:
    """The task that was asked for, in the SPEC or beside it.

    Args:
        source: of the dataset, for messages. common: its options.
    Raises:
        InputError: the two contradict each other.
    """
    if not common.get("multi_label"):
        return asked
    if asked == "single-label":
        raise InputError(f"{source}: `multi_label` contradicts --task single-label; leave one of them out")
    return "multi-label"


def as_asked(data: ImageData, task: Task | None) -> ImageData:
    """The dataset with sets of classes as labels, where these were asked for.

    Raises:
        InputError: images have several labels, and one was asked for.
    """
    if task == "single-label" and data.task != task:
        raise InputError(
            f"{data.spec}: its images have several labels, which one class cannot hold; leave --task out, or name a "
            "column with one label by ?label=COLUMN"
        )
    if task is None or data.task == task:
        return data
    count = len(data.classes)
    train, test = (replace(side, labels=as_sets(side.labels, count)) for side in (data.train, data.test))
    return replace(data, train=train, test=test)
