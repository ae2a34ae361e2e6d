"""Images that a run has never seen, brought to the size that its model knows and to its classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.catalogue.registry import Registry
from zoo.data.batches.mode import Delivery
from zoo.data.load import find, load, only_this
from zoo.data.split import ImageData, Split
from zoo.data.types import Labels
from zoo.errors import InputError
from zoo.plugin.contract import Transform
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord


def other_images(
    record: RunRecord, registry: Registry, spec: str, split: str, *, data_dir: str | None = None, device: str = "cpu"
) -> Split:
    """The images of another dataset as a run's model takes them.

    They are scaled and cropped as the run's own test images were, in the place of the dataset's options.

    Args:
        spec: as for `zoo.data.load`. split: "test" or "train"; a folder that is not divided into them is taken whole.
        device: where the images are needed.
    Returns:
        The split; labels count the run's classes.
    Raises:
        InputError: no such split, or a class that the run does not know.
        UnknownNameError, DataError: as `zoo.data.load`.
    """
    if split not in ("test", "train"):
        raise InputError(f"--split {split} is of the run; other images have --split test or train")
    rule = rule_of(record, registry)
    files = find(spec, registry)[1].source.startswith("folder:")
    with only_this():
        data = load(
            spec,
            registry,
            data_dir=Path(data_dir) if data_dir else None,
            delivery=Delivery("stream" if files else "auto", None, device),
            transform=Transform(
                size=(record.sizes.height, record.sizes.width),
                resize=rule.resize,
                interpolation=rule.interpolation,  # type: ignore[arg-type]  # a run's rule has come from one
            ),
            whole=True,
            white=rule.colours.white,
        )
    part = data.test if split == "test" else data.train
    present = np.unique(part.labels)
    places = np.zeros(len(data.classes), np.int64)
    places[present] = _places(data, present, record.data.classes)
    return replace(part, labels=places[part.labels])


def _places(data: ImageData, present: Labels, known: tuple[str, ...]) -> Labels:
    """Where the classes that have images stand among the run's: by name.

    By number only where the dataset has no names, and the run's are none of numbers: they would say otherwise.

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
                f"{data.spec}: its class {name!r} is none of the run's {len(known)}: {', '.join(known[:10])}"
                f"{', ...' if len(known) > 10 else ''}; name its classes as the run's are, or some of them"
            )
        if often[name] > 1:
            raise InputError(
                f"{data.spec}: several classes are called {name!r}, and cannot be told apart by their names; "
                "give images with all classes of the run, in their order"
            )
    return np.array([places[data.classes[number]] for number in present.tolist()], np.int64)
