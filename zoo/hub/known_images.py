"""Naming the dataset of the catalogue that a run's own copy of images is, so that anybody can measure its package."""

from __future__ import annotations

from typing import Any

import msgspec

from zoo.catalogue.registry import Registry
from zoo.data.content import catalogue_name, content_sha256
from zoo.data.portable import is_local
from zoo.runs.images import images_of
from zoo.runs.record import RunRecord


def with_known_images(
    record: RunRecord, result: dict[str, Any], registry: Registry, data_dir: str | None
) -> tuple[RunRecord, dict[str, Any]]:
    """The record and the result of a run, which say what its images are.

    The result says what the test images are by a hash that no order changes; other copies of them are known by it.
    Where all images are those of a dataset of the catalogue, that is the record's dataset in place of a path.

    Raises:
        DataError, RunError: as `images_of`.
    """
    data = images_of(record, registry, data_dir=data_dir).data
    if sha256 := content_sha256(data.test, data.classes):
        result = {**result, "test_images_sha256": sha256}
    name = catalogue_name(data, registry) if is_local(record.data.spec) else ""
    if not name:
        return record, result
    named = msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, spec=name))
    return named, {**result, "dataset": name}
