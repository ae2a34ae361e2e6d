"""Images that a run has never seen, brought to the size that its model knows and to its classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.catalogue.registry import Registry
from zoo.data.batches.mode import Delivery
from zoo.data.load import find, load
from zoo.data.split import Split
from zoo.data.types import Labels
from zoo.errors import InputError
from zoo.plugin.contract import Transform
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord


def other_images(
    record: RunRecord,
    registry: Registry,
    spec: str,
    split: str,
    *,
    data_dir: str | None = None,
    device: str = "cpu",
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
    return replace(part, labels=_places(data.classes, record.data.classes, spec)[part.labels])


def _places(classes: tuple[str, ...], known: tuple[str, ...], spec: str) -> Labels:
    """Where each class stands among the run's: by name, or by number where the dataset has no names.

    Returns:
        int64, one for each of `classes`.
    """
    if classes == tuple(map(str, range(len(classes)))) and len(classes) <= len(known):
        return np.arange(len(classes))
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise InputError(
            f"{spec}: its class {unknown[0]!r} is none of the run's {len(known)}: {', '.join(known[:10])}"
            f"{', ...' if len(known) > 10 else ''}; name its classes as the run's are, or some of them"
        )
    return np.array([known.index(name) for name in classes], np.int64)
