"""One run in its folder: lock, record, newest checkpoint, training, result.

`zoo train`, `zoo reproduce` and `zoo sweep` all train here, and so does whoever imports `zoo`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.base.files import clear_temporaries
from zoo.runs.lock import RunLock
from zoo.runs.record import CHECKPOINTS, RESULT, write_record
from zoo.train import checkpoint
from zoo.train.events import Listener
from zoo.train.loop import Saving, Trainer
from zoo.train.out_of_memory import refusing_too_much
from zoo.train.plan import Plan
from zoo.train.processes.world import World

Say = Callable[[str], None]
"""Receives one line for people."""

Stopper = Callable[[], int]
"""Asked before each step: the number of the signal that ends the run, -1 for a checkpoint alone, or 0."""


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who watches a run, who may stop it, and how often it is saved; none of it changes what is trained.

    Attributes:
        stop: as `zoo.train.loop.Trainer` asks it.
        ready: called when all is prepared: from then on a request to stop is answered between two steps.
        say: receives a line for each checkpoint that is damaged and passed over.
        world: the processes that train together.
    """

    listener: Listener = field(default_factory=Listener)
    stop: Stopper = lambda: 0
    saving: Saving = field(default_factory=Saving)
    ready: Callable[[], None] = _nothing
    say: Say = _nothing
    world: World = field(default_factory=World)


def train_in(folder: Path, plan: Plan, watch: Watch) -> dict[str, Any]:
    """Train by a plan in a run folder, from its newest checkpoint if it has one; a result of before is replaced.

    Returns:
        What `result.json` holds.
    Raises:
        zoo.train.loop.Stop: asked to stop, after a checkpoint.
        BusyError: another process trains in the folder. DeviceError: memory does not suffice.
        ZooError: it cannot be trained.
    """
    with _ended(watch), _locked(folder) if watch.world.first else nullcontext():
        return _train(folder, plan, watch)


def finish(
    folder: Path, make_plan: Callable[[], Plan], watch: Watch, *, locked: bool = False
) -> dict[str, Any] | None:
    """Train the run of a folder, or go on with it, unless it is finished.

    Args:
        make_plan: called under the lock, and only if there is something to train.
        locked: the caller holds the folder's lock.
    Returns:
        What `result.json` holds; None where the run was finished before.
    Raises:
        As `train_in`, and what `make_plan` raises.
    """
    with _ended(watch), nullcontext() if locked else _locked(folder):
        if (folder / RESULT).is_file():
            return None
        return _train(folder, make_plan(), watch)


def _train(folder: Path, plan: Plan, watch: Watch) -> dict[str, Any]:
    world = watch.world
    world.folder = folder
    if world.first:
        clear_temporaries(folder)
        (folder / RESULT).unlink(missing_ok=True)  # a run that is extended is not finished any more
        write_record(folder, plan.record)
    with refusing_too_much(plan):
        trainer = Trainer(plan, folder, watch.listener, watch.stop, watch.saving, world)
        newest = world.once(lambda: checkpoint.newest(folder / CHECKPOINTS, watch.say))
        if newest is not None:
            trainer.restore(newest.state)
        watch.ready()
        return trainer.fit()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder):
        yield


@contextmanager
def _ended(watch: Watch) -> Iterator[None]:
    """Tell the listener when a run ends before its result: an empty table."""
    try:
        yield
    except BaseException:
        watch.listener.end({})
        raise
