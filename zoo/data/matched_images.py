"""Images of another dataset, brought to the size that a model knows, and to its classes by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.catalogue.registry import Registry
from zoo.data.batches.mode import Delivery
from zoo.data.dataset_spec import drops_unknown
from zoo.data.files.decode import Rule, transform_of
from zoo.data.label_sets import has_sets, moved, present_classes
from zoo.data.load import load, only_this
from zoo.data.sources.labels import composed
from zoo.data.split import ImageData, Split
from zoo.data.types import Labels
from zoo.errors import InputError


class Taken(NamedTuple):
    """What a model takes, and what it tells apart.

    Attributes:
        whose: the run or the weights, for messages. size: (height, width). rule: how images are brought to it.
        names: of the classes, in the order of the logits; further lists are other names of the same classes.
        several: whether an image may have several labels.
    """

    whose: str
    size: tuple[int, int]
    rule: Rule
    names: Sequence[tuple[str, ...]]
    several: bool = False


class Matched(NamedTuple):
    """A split whose labels count the classes of a model; how many images of other classes `?drop-unknown` left out."""

    images: Split
    left_out: int = 0


def loaded_as(
    taken: Taken, registry: Registry, spec: str, *, data_dir: str | None, delivery: Delivery, whole: bool = True
) -> ImageData:
    """Another dataset, its images scaled and cropped as a model takes them, in the place of the dataset's options.

    Args:
        spec: as for `zoo.data.load`.
        whole: a folder that is not divided into train and test is not divided here either.
    Raises:
        UnknownNameError, InputError, DataError: as `zoo.data.load`.
    """
    rule = taken.rule
    with only_this():
        return load(
            spec,
            registry,
            data_dir=Path(data_dir) if data_dir else None,
            delivery=delivery,
            transform=transform_of(rule, taken.size),
            whole=whole,
            colours=rule.colours,
            task="multi-label" if taken.several else None,
        )


def matched(data: ImageData, part: Split, taken: Taken, registry: Registry) -> Matched:
    """A split of another dataset with the class numbers of a model.

    Args:
        part: of `data`.
    Raises:
        InputError: a class that the model does not know, unless the SPEC says `?drop-unknown`.
    """
    if data.task == "multi-label" and not taken.several:
        raise InputError(f"{data.spec}: its images have several labels, and {taken.whose} gives each image one class")
    every = len(part)
    if drops_unknown(data.spec, registry):
        part = _of_known(data, part, taken)
    present = present_classes(part.labels)
    places = np.full(len(data.classes), -1, np.int64)
    places[present] = _places(data, present, _best_names(data, present, taken.names), taken.whose)
    return Matched(replace(part, labels=moved(part.labels, places, len(taken.names[0]))), every - len(part))


def _of_known(data: ImageData, part: Split, taken: Taken) -> Split:
    """The images of classes that the model knows by name; all, where the dataset has no names.

    Images with several labels all stay, with those of their classes that the model knows.

    Raises:
        InputError: there are none.
    """
    if not data.named:
        return part
    known = {*map(composed, _best_names(data, present_classes(part.labels), taken.names))}
    kept = np.array([composed(name) in known for name in data.classes])
    if has_sets(part.labels):
        return replace(part, labels=part.labels * kept.astype(np.uint8))
    rows = np.flatnonzero(kept[part.labels])
    if not len(rows):
        raise InputError(f"{data.spec}: no image is of a class of {taken.whose}")
    return part if len(rows) == len(part) else part.select(rows)


def _best_names(data: ImageData, present: Labels, lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The list that has the most of the classes with images; the first of equals.

    Lists are not mixed: a name may mean one class in one of them, and another class in another.
    """
    wanted = {composed(data.classes[number]) for number in present.tolist()}
    return max(lists, key=lambda names: len(wanted & set(map(composed, names))))


def _places(data: ImageData, present: Labels, known: tuple[str, ...], whose: str) -> Labels:
    """Where the classes that have images stand among the known ones: by name, whichever way it spells an accent.

    By number only where the dataset has no names, and the known ones are none of numbers: they would say otherwise.

    Returns:
        int64, one for each of `present`.
    """
    by_number = not data.named and not any(name.isdecimal() for name in known)
    if data.classes == known or (by_number and len(data.classes) <= len(known)):
        return present
    own = [*map(composed, data.classes)]
    often = Counter(map(composed, known)) | Counter(own)
    places = {composed(name): place for place, name in enumerate(known)}
    owner = f"{whose}'" if whose.endswith("s") else f"{whose}'s"
    for name in (own[number] for number in present.tolist()):
        if name not in places:
            raise InputError(
                f"{data.spec}: its class {name!r} is none of {owner} {len(known)}: {', '.join(known[:10])}"
                f"{', ...' if len(known) > 10 else ''}; name its classes as {owner} are, or some of them, "
                "or leave out such images by ?drop-unknown"
            )
        if often[name] > 1:
            raise InputError(
                f"{data.spec}: several classes are called {name!r}, and cannot be told apart by their names; "
                f"give images with all classes of {whose}, in their order"
            )
    return np.array([places[own[number]] for number in present.tolist()], np.int64)
