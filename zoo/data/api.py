"""The public call of this room: `zoo.check_dataset`."""

from __future__ import annotations

from pathlib import Path

from zoo.base.checked_call import checked
from zoo.base.reporter import Reporter
from zoo.catalogue.registry import load_registry
from zoo.data.checks import loaded_and_checked
from zoo.data.findings import DatasetCheck
from zoo.data.load import load, only_this
from zoo.data.split import ImageData
from zoo.data.split_findings import class_counts, validation_counts


@checked
def check_dataset(
    spec: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    skip_bad: bool = False,
    reporter: Reporter | None = None,
) -> DatasetCheck:
    """Read every image of a dataset and report problems, before hours are spent on training with it.

    It finds truncated images, empty classes, labels out of range, images that are in both train and test (or in both
    training and validation), unbalanced classes, images that differ in size or are nearly black, and files that are
    not read.

    Args:
        spec: a name of `zoo.datasets`, folder:PATH, csv:FILE, jsonl:FILE, parquet:PATH, hf:OWNER/NAME[@REVISION],
            torchvision:NAME, idx:PATH.
        data_dir: the folder for downloaded datasets.
        image_size: resize images to this side in pixels, or to this height and width.
        skip_bad: count unreadable images instead of failing on them.
        reporter: receives the progress of decoding.
    Returns:
        Numbers of images per class, findings, fingerprint; `usable` says whether it can be trained on.
    Raises:
        BadImagesError: images cannot be read; its `problems` has a line for each.
        UnknownNameError: no such dataset. DataError: it is not on this machine, or damaged.

    Example:
        >>> zoo.check_dataset("digits").usable
        True
    """
    registry, told = load_registry(), reporter or Reporter()

    def at(side: int | None) -> ImageData:
        size = side if image_size is None else image_size
        return load(spec, registry, data_dir=data_dir, image_size=size, skip_bad=skip_bad, show=told.progress)

    try:
        with only_this():
            data, findings = loaded_and_checked(at)
    finally:
        told.close()
    count = len(data.classes)
    return DatasetCheck(
        name=data.name,
        spec=data.spec,
        fingerprint=data.fingerprint,
        size=tuple(data.dataset.size or ()),
        classes=tuple(data.classes),
        train=tuple(class_counts(data.train, count)),
        test=tuple(class_counts(data.test, count)),
        skipped=data.skipped,
        ignored=data.ignored,
        findings=tuple(findings),
        validation=tuple(validation_counts(data.train, count)),
    )
