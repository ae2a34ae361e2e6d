"""The public call of this room: `zoo.check_dataset`."""

from __future__ import annotations

from pathlib import Path

from zoo.base.checked_call import checked
from zoo.base.paths import local_path
from zoo.base.reporter import Reporter
from zoo.catalogue.registry import Registry, load_registry
from zoo.data.findings import DatasetCheck, sorted_findings
from zoo.data.load import only_this
from zoo.data.pixel_findings import splits_of
from zoo.data.split_findings import class_counts, image_counts, validation_counts
from zoo.data.suspects import LabelNoise
from zoo.data.whole_check import Examined, examine
from zoo.errors import InputError
from zoo.runs.api import RunLike


@checked
def check_dataset(
    spec: str,
    *,
    data_dir: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    skip_bad: bool = False,
    label_noise: RunLike | None = None,
    folds: int = 0,
    device: str | None = None,
    html: str | Path | None = None,
    reporter: Reporter | None = None,
) -> DatasetCheck:
    """Read every image of a dataset and report all problems at once, before hours are spent on training with it.

    It finds images that cannot be read, are blank or have an odd size, images that occur twice or look nearly the same,
    across the splits and within them, with the same label or another one, empty and unbalanced classes, files that are
    not read, and, with a run, labels that are probably wrong. The page on checking a dataset describes each kind.

    Args:
        spec: a name of `zoo.datasets`, folder:PATH, csv:FILE, jsonl:FILE, parquet:PATH, wds:PATTERN,
            hf:OWNER/NAME[@REVISION], torchvision:NAME, idx:PATH.
        data_dir: the folder for downloaded datasets.
        image_size: resize images to this side in pixels, or to this height and width.
        skip_bad: count unreadable images, as a run with this option does, instead of calling them an error.
        label_noise: a run that judges the labels of the images that it has not learnt from: of its own dataset the
            validation and test images, of another one with its classes all.
        folds: train the run's model with its recipe so many times, each time without one part of the training images,
            which is then judged; 0: training images are not judged.
        device: where the networks compute; default: that of the run.
        html: a file for a page with pictures of what was found, which needs nothing beside it.
        reporter: receives the progress.
    Returns:
        Numbers of images per class, findings, fingerprint; `usable` says whether it can be trained on.
    Raises:
        BadImagesError: no image of a split can be read; its `problems` has a line for each.
        UnknownNameError: no such dataset. DataError: it is not on this machine, or damaged.
        InputError: no such run, or `folds` without a run or below 2. WriteError: the page cannot be written.

    Example:
        >>> zoo.check_dataset("digits").usable
        True
    """
    if folds and (folds < 2 or label_noise is None):
        raise InputError(f"folds={folds}: give 2 or more, and the run whose recipe is trained (--label-noise RUN)")
    registry, told = load_registry(), reporter or Reporter()
    try:
        with only_this():
            found = examine(
                spec, registry, data_dir=data_dir, image_size=image_size, skip_bad=skip_bad, show=told.progress
            )
        noise = None
        if label_noise is not None:
            noise = _label_noise(spec, label_noise, registry, folds, _text(data_dir), device, told)
        checked_dataset = _described(found, noise)
        if html is not None:
            from zoo.data.check_page import write_page

            write_page(local_path(html), checked_dataset, found.data, noise)
            told.say(f"wrote {html}")
        return checked_dataset
    finally:
        told.close()


def _described(found: Examined, noise: LabelNoise | None) -> DatasetCheck:
    data, count = found.data, len(found.data.classes)
    findings = [*found.findings, *([noise.finding()] if noise else [])]
    counts = {side: tuple(class_counts(split, count)) for side, split in splits_of(data).items()}
    places = {place for finding in findings for group in finding.images for place in group}
    return DatasetCheck(
        name=data.name,
        spec=data.spec,
        fingerprint=data.fingerprint,
        size=tuple(data.dataset.size or ()),
        classes=tuple(data.classes),
        train=counts["train"],
        test=counts["test"],
        skipped=data.skipped,
        ignored=data.ignored,
        findings=tuple(sorted_findings(findings)),
        unreadable=found.unreadable,
        label_noise=noise.as_dict() if noise else None,
        sources={place: found.names.of(place) for place in sorted(places)},
        validation=tuple(validation_counts(data.train, count)),
        images=image_counts(data),
    )


def _label_noise(
    spec: str,
    run: RunLike,
    registry: Registry,
    folds: int,
    data_dir: str | None,
    device: str | None,
    reporter: Reporter,
) -> LabelNoise:
    from zoo.runs.api import word_of
    from zoo.studies.folds import judged_labels

    word = word_of(run)
    return judged_labels(spec, word, registry, folds=folds, data_dir=data_dir, device=device, reporter=reporter)


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
