"""Probes of several models on one dataset: their features, and a row for each model, method and number of shots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from zoo.base.reporter import Reporter
from zoo.catalogue.registry import Registry
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier
from zoo.predict.embedded_images import SPLITS, DatasetImages, dataset_images, own_images
from zoo.predict.embedding import Embeddings
from zoo.predict.extraction import extracted, refuse_not_finite
from zoo.studies.probe.probed import Method
from zoo.studies.probe.protocol import Part, Parts, few_shot, probe
from zoo.train.environment import environment


class Asked(NamedTuple):
    """How models are probed; see `zoo.probe`."""

    on: str | None
    methods: tuple[Method, ...]
    shots: tuple[int, ...]
    draws: int
    seed: int
    layer: str | None
    batch_size: int
    data_dir: str | None


def leaderboard(
    models: Sequence[tuple[str, Callable[[], Classifier]]], asked: Asked, registry: Registry, reporter: Reporter
) -> dict[str, Any]:
    """Probe models on the same images.

    Args:
        models: their names, and what opens each.
    Returns:
        The document of a `Probe`.
    Raises:
        InputError: the models are not probed on the same images, or an image has several labels. RunError: features
            are not finite.
    """
    rows: list[dict[str, Any]] = []
    first: Parts | None = None
    facts: dict[str, Any] = {}
    for name, opened in models:
        classifier = opened()
        images = _images(classifier, asked, registry)
        options: dict[str, Any] = {"layer": asked.layer, "batch_size": asked.batch_size, "reporter": reporter}
        embedded = extracted(classifier, images, **options)
        refuse_not_finite(name, embedded.feature, embedded.features)  # an earlier version may have kept them
        parts = _parts(embedded, images)
        _check_same(name, parts, first)
        first = first or parts
        facts = facts or _facts(images, classifier.device)
        about = {"model": name, "feature": embedded.feature, "width": embedded.width}
        rows += [about | row for row in _rows(parts, asked, name, reporter)]
    rows.sort(key=lambda row: (row["shots"] or 0, -row["validation_top1"]))
    return {**facts, "seed": asked.seed, "sorted_by": "validation top-1", "rows": rows}


def _images(classifier: Classifier, asked: Asked, registry: Registry) -> DatasetImages:
    """The images to probe on.

    Raises:
        InputError: none are named and none are recorded, or an image has several labels.
    """
    record = classifier.record
    if asked.on is not None:
        images = dataset_images(asked.on, classifier, registry, data_dir=asked.data_dir)
    elif record is not None:
        images = own_images(record, classifier, registry, data_dir=asked.data_dir, dataset=None)
    else:
        raise InputError(f"{classifier.name} is no run: no images of its own are recorded; name some with --on SPEC")
    if images.has_sets:
        raise InputError(f"{images.spec}: its images have several labels, and a probe needs one label for each image")
    if not all(images.counts.values()):
        lacking = ", ".join(name for name, count in images.counts.items() if not count)
        raise InputError(
            f"{images.spec}: a probe needs training, validation and test images; no {lacking} images are there"
        )
    return images


def _parts(embedded: Embeddings, images: DatasetImages) -> Parts:
    features, labels, splits = embedded.features, embedded.labels, np.asarray(embedded.splits)
    assert labels is not None
    train, validation, test = (
        Part(features[splits == name].astype(np.float64), labels[splits == name]) for name in SPLITS
    )
    return Parts(train, validation, test, images.classes)


def _check_same(name: str, parts: Parts, first: Parts | None) -> None:
    if first is None:
        return
    for ours, theirs in ((parts.train, first.train), (parts.validation, first.validation), (parts.test, first.test)):
        if parts.classes != first.classes or not np.array_equal(ours.labels, theirs.labels):
            raise InputError(f"{name} has other images than the first model; name one dataset for all: --on SPEC")


def _facts(images: DatasetImages, device: torch.device) -> dict[str, Any]:
    from sklearn import __version__ as version

    return {
        "dataset": images.spec,
        "classes": list(images.classes),
        "counts": images.counts,
        "environment": environment(device) | {"scikit-learn": version},
    }


def _rows(parts: Parts, asked: Asked, name: str, reporter: Reporter) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for method in asked.methods:
        rows.append(_row(method, None, 1, probe(parts, method)))
        reporter.note(f"{name}: {method}: validation top-1 {rows[-1]['validation_top1']:.2%}")
        for shots in asked.shots:
            rows.append(_row(method, shots, asked.draws, few_shot(parts, method, shots, asked.draws, asked.seed)))
    return rows


def _row(method: Method, shots: int | None, draws: int, found: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": method, "shots": shots, "draws": draws, **found}
