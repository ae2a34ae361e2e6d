"""Using a run folder: its test split measured again, images classified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from zoo.data import load
from zoo.data.arrays import Split, limit
from zoo.data.decode import image_array, make_rule
from zoo.data.mode import Delivery
from zoo.data.source import open_source
from zoo.errors import DataError, RunError
from zoo.evaluate import confusion, evaluate
from zoo.registry import load_registry
from zoo.run import RunRecord, read_record, read_result
from zoo.run import load as load_run
from zoo.train.device import autocast, pick_device, weights_format
from zoo.train.loop import eval_batch, make_augment
from zoo.train.plan import VALIDATION_SEED
from zoo.tta import views

Found = list[tuple[str, float]]


def evaluate_run(
    run: Path, *, data_dir: str | None = None, device: str | None = None, dataset: str | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Measure a run's test split again, in fp32 and over the same views, as it was recorded.

    Args:
        dataset: where the same images are here, if not at the recorded SPEC.
    Returns:
        (measured, recorded) with keys loss, top1, top5, correct, count; recorded is None where the
        run was not finished.
    Raises:
        RunError: a damaged run, or a dataset that is not the recorded one.
    """
    record = read_record(run)
    test = test_split(record, data_dir, dataset)
    where = pick_device(device or record.device)
    module = load_run(run).to(where).to(memory_format=weights_format(where, record.channels_last))
    source = open_source(test, where, channels_last=record.channels_last)
    metrics = evaluate(
        module,
        source.batches(eval_batch(record)),
        make_augment(record, where).prepare,
        autocast=lambda: autocast(where, "fp32"),
        forward=views(module, record.settings.tta),
    )
    try:
        recorded = read_result(run)["test"]
    except RunError:
        recorded = None
    return metrics.as_dict(), recorded


def confusion_run(
    run: Path, *, data_dir: str | None = None, device: str | None = None, dataset: str | None = None
) -> torch.Tensor:
    """What each class of a run's test split was taken for, in fp32.

    Returns:
        int64 (K, K): rows are the true classes, columns the predicted ones.
    Raises:
        RunError: as `evaluate_run`.
    """
    record = read_record(run)
    test = test_split(record, data_dir, dataset)
    where = pick_device(device or record.device)
    module = load_run(run).to(where).to(memory_format=weights_format(where, record.channels_last))
    source = open_source(test, where, channels_last=record.channels_last)
    prepare = make_augment(record, where).prepare
    return confusion(
        module,
        source.batches(eval_batch(record)),
        prepare,
        classes=record.sizes.num_classes,
        forward=views(module, record.settings.tta),
    )


def test_split(record: RunRecord, data_dir: str | None = None, dataset: str | None = None) -> Split:
    """The test images of a run, to the last one (from the SPEC `dataset`, if given).

    Raises:
        RunError: the dataset is not the one that was recorded.
    """
    spec = dataset or record.data.spec
    data = load(
        spec,
        load_registry(),
        data_dir=Path(data_dir) if data_dir else None,
        image_size=record.data.image_size,
        seed=VALIDATION_SEED,
        skip_bad=record.data.skipped > 0,
        delivery=Delivery(record.data.mode, None, record.device),
    )
    if data.fingerprint != record.data.fingerprint:
        raise RunError(
            f"dataset {spec!r} is not the recorded one: its fingerprint is "
            f"{data.fingerprint[:12]}, recorded {record.data.fingerprint[:12]}"
        )
    return limit(data.test, record.data.limit_test)


def predict_images(
    run: Path, images: Iterable[Path], *, top: int = 3, device: str = "cpu"
) -> Iterator[tuple[Path, Found | DataError]]:
    """Classify image files.

    Yields:
        (path, [(class, probability), ...]) with the `top` largest, or the error of that image.
    """
    record = read_record(run)
    where = pick_device(device)
    module, prepare = load_run(run).to(where), make_augment(record, where).prepare
    rule = make_rule(None, (record.sizes.height, record.sizes.width), None, None)
    for path in images:
        try:
            pixels = torch.from_numpy(image_array(path, rule, str(path)))[None].to(where)
        except DataError as error:
            yield path, error
            continue
        with torch.inference_mode():
            probabilities = module(prepare(pixels)).float().softmax(1)[0]
        values, rows = probabilities.topk(min(top, len(record.data.classes)))
        names = record.data.classes
        yield path, [(names[i], p) for i, p in zip(rows.tolist(), values.tolist(), strict=True)]
