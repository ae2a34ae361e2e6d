"""Images that a model has never seen, brought to the size that it knows and to its classes."""

from __future__ import annotations

from zoo.catalogue.registry import Registry
from zoo.data.batches.mode import Delivery
from zoo.data.dataset_spec import find
from zoo.data.matched_images import Matched, Taken, loaded_as, matched
from zoo.data.split import Split
from zoo.errors import InputError
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord


def taken_by(record: RunRecord, registry: Registry) -> Taken:
    """What the model of a run takes."""
    size = record.sizes.height, record.sizes.width
    return Taken("the run", size, rule_of(record, registry), [record.data.classes], several=record.data.is_multi_label)


def other_images(
    taken: Taken, registry: Registry, spec: str, split: str, *, data_dir: str | None = None, device: str = "cpu"
) -> Split:
    """As `matched_images`, without the number of images that are left out."""
    return matched_images(taken, registry, spec, split, data_dir=data_dir, device=device).images


def matched_images(
    taken: Taken, registry: Registry, spec: str, split: str, *, data_dir: str | None = None, device: str = "cpu"
) -> Matched:
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
    files = find(spec, registry)[1].source.startswith(("folder:", "csv:", "jsonl:", "wds:"))
    delivery = Delivery("stream" if files else "auto", None, device)
    data = loaded_as(taken, registry, spec, data_dir=data_dir, delivery=delivery)
    return matched(data, data.test if split == "test" else data.train, taken, registry)
