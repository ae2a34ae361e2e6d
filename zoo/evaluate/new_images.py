"""Images that a model has never seen, brought to the size that it knows and to its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.catalogue.registry import Registry
from zoo.data.batches.mode import Delivery
from zoo.data.files.decode import Rule
from zoo.data.load import find, load, only_this
from zoo.data.split import ImageData, Split
from zoo.data.types import Labels
from zoo.errors import InputError
from zoo.plugin.contract import Transform
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord


class Taken(NamedTuple):
    """What a model takes, and what it tells apart.

    Attributes:
        whose: the run or the weights, for messages. size: (height, width). rule: how images are brought to it.
        names: of the classes, in the order of the logits; further lists are other names of the same classes.
    """

    whose: str
    size: tuple[int, int]
    rule: Rule
    names: Sequence[tuple[str, ...]]


def taken_by(record: RunRecord, registry: Registry) -> Taken:
    """What the model of a run takes."""
    size = record.sizes.height, record.sizes.width
    return Taken("the run", size, rule_of(record, registry), [record.data.classes])


def other_images(
    taken: Taken, registry: Registry, spec: str, split: str, *, data_dir: str | None = None, device: str = "cpu"
) -> Split:
    """The images of another dataset as a model takes them.

    They are scaled and cropped as the model's own test images were, in the place of the dataset's options.

    Args:
        spec: as for `zoo.data.load`. split: "test" or "train"; a folder that is not divided into them is taken whole.
        device: where the images are needed.
    Returns:
        The split; labels count the model's classes.
    Raises:
        InputError: no such split, or a class that the model does not know.
        UnknownNameError, DataError: as `zoo.data.load`.
    """
    if split not in ("test", "train"):
        raise InputError(f"--split {split} is of the run; other images have --split test or train")
    rule = taken.rule
    files = find(spec, registry)[1].source.startswith("folder:")
    with only_this():
        data = load(
            spec,
            registry,
            data_dir=Path(data_dir) if data_dir else None,
            delivery=Delivery("stream" if files else "auto", None, device),
            transform=Transform(
                size=taken.size,
                resize=rule.resize,
                squash=rule.squash,
                interpolation=rule.interpolation,  # type: ignore[arg-type]  # the rule has come from one
                rounding=rule.rounding,
            ),
            whole=True,
            white=rule.colours.white,
        )
    part = data.test if split == "test" else data.train
    present = np.unique(part.labels)
    places = np.zeros(len(data.classes), np.int64)
    places[present] = _places(data, present, _best_names(data, present, taken.names), taken.whose)
    return replace(part, labels=places[part.labels])


def _best_names(data: ImageData, present: Labels, lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The list that has the most of the classes with images; the first of equals.

    Lists are not mixed: a name may mean one class in one of them, and another class in another.
    """
    wanted = {data.classes[number] for number in present.tolist()}
    return max(lists, key=lambda names: len(wanted & set(names)))


def _places(data: ImageData, present: Labels, known: tuple[str, ...], whose: str) -> Labels:
    """Where the classes that have images stand among the known ones: by name.

    By number only where the dataset has no names, and the known ones are none of numbers: they would say otherwise.

    Returns:
        int64, one for each of `present`.
    """
    by_number = not data.named and not any(name.isdecimal() for name in known)
    if data.classes == known or (by_number and len(data.classes) <= len(known)):
        return present
    often = Counter(known) | Counter(data.classes)
    places = {name: place for place, name in enumerate(known)}
    for name in (data.classes[number] for number in present.tolist()):
        if name not in places:
            raise InputError(
                f"{data.spec}: its class {name!r} is none of {whose}'s {len(known)}: {', '.join(known[:10])}"
                f"{', ...' if len(known) > 10 else ''}; name its classes as {whose}'s are, or some of them"
            )
        if often[name] > 1:
            raise InputError(
                f"{data.spec}: several classes are called {name!r}, and cannot be told apart by their names; "
                f"give images with all classes of {whose}, in their order"
            )
    return np.array([places[data.classes[number]] for number in present.tolist()], np.int64)
