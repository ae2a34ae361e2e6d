"""Rows that differ in their test images only: the network of one of them is trained once, and tested for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import msgspec

from zoo.base.files import bytes_of_file, write_text
from zoo.catalogue.registry import Registry
from zoo.data.dataset_spec import training_images
from zoo.errors import ZooError
from zoo.runs.images import images_of
from zoo.runs.record import CHECKPOINTS, RunRecord, configuration, read_record
from zoo.studies.reproduce import energy
from zoo.studies.reproduce.recorded import TRAINED_IN, trained_in
from zoo.studies.reproduce.rows import Job
from zoo.train import checkpoint
from zoo.train.environment import differences
from zoo.train.plan import Plan


def take_over(folder: Path, plan: Plan, others: Iterable[Job], data_dir: str | None = None) -> tuple[Job, Plan] | None:
    """Give a new run the end of a finished training that would be its own to the bit, so that only its test is left.

    That is so where the last epoch counts, whatever the test images say (`select = "last"`, protocol "paper"), where
    all that decides the training is equal, and where this machine would go on with the other run to the bit.

    Args:
        folder: of the new run. plan: its plan. others: runs that may be finished. data_dir: for downloaded datasets.
    Returns:
        The run whose last checkpoint it has now, and the plan with the commit and versions that trained it; None:
        there is none such.
    Raises:
        WriteError: the folder cannot be written.
    """
    if plan.recipe.select != "last" or plan.record.protocol != "paper":
        return None
    for job in others:
        trained = job.recorded and job.folder != folder and trained_in(job.folder) is None
        other = _same(plan.record, job.folder, plan.registry, data_dir) if trained else None
        state = _end_of(job.folder) if other else None
        if other and state:
            _begin(folder, state, job.folder)
            record = msgspec.structs.replace(plan.record, environment=other.environment)
            return job, dataclasses.replace(plan, record=record)
    return None


def _same(record: RunRecord, folder: Path, registry: Registry, data_dir: str | None) -> RunRecord | None:
    """The record of a finished run that had the training that a new one is to have, on images that are still there."""
    try:
        other = read_record(folder)
        specs = [training_images(one.data.spec, registry) for one in (record, other)]
        same = configuration(_without_test(record)) == configuration(_without_test(other))
        if not same or specs[0] != specs[1] or differences(other, registry):
            return None
        images_of(other, registry, data_dir=data_dir)  # refuses images that are others now
    except ZooError:  # also of a damaged run, or of a dataset that is not there any more
        return None
    return other


def _without_test(record: RunRecord) -> RunRecord:
    data = msgspec.structs.replace(record.data, spec="", fingerprint="", test=0)
    return msgspec.structs.replace(record, data=data)


def _end_of(folder: Path) -> dict[str, object] | None:
    """The last checkpoint of a finished run; None: it has none that can be read."""
    try:
        newest = checkpoint.newest(folder / CHECKPOINTS)
    except ZooError:
        return None
    return newest.state if newest is not None and newest.state.get("best_weights") else None


def _begin(folder: Path, state: dict[str, object], other: Path) -> None:
    """Write the checkpoint of another run into a new one, without what its epochs had on its own test images.

    The time and the energy that the training took are the new run's too.
    """
    rows, position, weights = state["rows"], state["position"], state.pop("best_weights")
    assert isinstance(rows, list)
    assert isinstance(position, dict)
    assert isinstance(weights, dict)
    state["rows"] = [{key: value for key, value in row.items() if not key.startswith("test_")} for row in rows]
    state["best"] = checkpoint.save_best(folder / CHECKPOINTS, weights)
    used = bytes_of_file(f"{other}/{energy.FILE}")
    if used is not None:
        write_text(folder / energy.FILE, used.decode())
    write_text(folder / TRAINED_IN, msgspec.json.encode(other.as_posix()).decode())
    checkpoint.save(folder / CHECKPOINTS, position["total"], state)
