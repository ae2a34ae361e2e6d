"""Trains one run in its folder: lock, record, newest checkpoint, training, result.

`zoo train`, `zoo reproduce`, `zoo sweep` and the Python API all train through this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.base.files import clear_temporaries, make_folder
from zoo.models.denormals import denormals_as_zeros
from zoo.runs import before
from zoo.runs.lock import RunLock
from zoo.runs.own_source import keep_sources
from zoo.runs.record import CHECKPOINTS, RESULT, write_record
from zoo.train import checkpoint
from zoo.train.events import Listener
from zoo.train.loop import Saving, Trainer
from zoo.train.out_of_memory import refusing_too_much
from zoo.train.own_augment import code_of
from zoo.train.own_failure import saying_own_failures
from zoo.train.plan import Plan
from zoo.train.processes.world import World
from zoo.train.smaller import give_back, halved, line_of
from zoo.train.too_small import refusing_too_few_images

Say = Callable[[str], None]
"""Receives one line for people."""

Stopper = Callable[[], int]
"""Called before each step; returns a signal's number to end the run, -1 to write only a checkpoint, or 0."""


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What surrounds a training without changing it: listener, stop requests, checkpoints, messages, processes.

    Attributes:
        stop: as for `zoo.train.loop.Trainer`.
        ready: called when everything is prepared; from then on, a run stops between two steps.
        say: receives a line for each damaged checkpoint that is skipped.
        world: the processes that train together.
    """

    listener: Listener = field(default_factory=Listener)
    stop: Stopper = lambda: 0
    saving: Saving = field(default_factory=Saving)
    ready: Callable[[], None] = _nothing
    say: Say = _nothing
    world: World = field(default_factory=World)


def train_in(folder: Path, plan: Plan, watch: Watch) -> dict[str, Any]:
    """Train a plan in a run folder, from its newest checkpoint if it has one; replaces a former result.

    Returns:
        The content of `result.json`.
    Raises:
        zoo.train.loop.Stop: a signal asked to stop; a checkpoint is written.
        BusyError: another process trains in the folder. DeviceError: memory does not suffice.
        ZooError: it cannot be trained.
    """
    with _ended(watch), _locked(folder) if watch.world.first else nullcontext():
        return _train(folder, plan, watch)


def finish(folder: Path, make_plan: Callable[[], Plan], watch: Watch, *, locked: bool = False) -> dict[str, Any] | None:
    """Train or resume the run of a folder, unless it is finished.

    Args:
        make_plan: called while the lock is held, and only if there is something to train.
        locked: whether the caller already holds the folder's lock.
    Returns:
        The content of `result.json`; None if the run was already finished.
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
    batch = min(plan.recipe.batch_size, len(plan.train))
    with _keeping_what_was(folder, watch) if world.first else nullcontext():
        if world.first:
            clear_temporaries(folder)
            write_record(folder, plan.record)
            keep_sources(folder, plan.record, plan.registry, code_of(plan.augment))
        too_few = refusing_too_few_images(batch, plan.recipe.accumulate)
        with saying_own_failures(plan), refusing_too_much(plan), too_few:
            found = _fit(folder, plan, watch)
        if isinstance(found, dict):
            return found
        give_back()
        watch.say(line_of(found))
        write_record(folder, found.record)
        too_few = refusing_too_few_images(batch, found.recipe.accumulate)
        with saying_own_failures(found), refusing_too_much(found), too_few:
            again = _fit(folder, found, replace(watch, listener=_Again(watch.listener)), once=True)
        assert isinstance(again, dict)
        return again


def _fit(folder: Path, plan: Plan, watch: Watch, *, once: bool = False) -> dict[str, Any] | Plan:
    """Train from the newest checkpoint, if there is one.

    Returns:
        The content of `result.json`; or, where memory did not suffice, the plan to go on with, unless this is `once`.
    """
    trainer = Trainer(plan, folder, watch.listener, watch.stop, watch.saving, watch.world)
    newest = watch.world.once(lambda: checkpoint.newest(folder / CHECKPOINTS, watch.say))
    if newest is not None:
        trainer.restore(newest.state)
    watch.ready()
    try:
        with denormals_as_zeros(plan.hardware.device):
            return trainer.fit()
    except (MemoryError, RuntimeError) as error:
        smaller = None if once else halved(plan, trainer, error)
        if smaller is None:
            raise
        return smaller


class _Again(Listener):
    """Hears of a run that goes on, of whose start it has heard."""

    def __init__(self, listener: Listener) -> None:
        self.tick, self.epoch, self.end = listener.tick, listener.epoch, listener.end  # type: ignore[method-assign]


@contextmanager
def _keeping_what_was(folder: Path, watch: Watch) -> Iterator[None]:
    """Keep the finished state of a run that is extended, from before its first change until its new result.

    A run that is extended is not finished any more. If the extension ends before it has saved anything, the run
    is made what it was; if later, both are there: the checkpoints to go on from, and the finished state.
    """
    saved = checkpoint.names(folder / CHECKPOINTS)
    extended = before.set_aside(folder)
    try:
        yield
    except BaseException:
        if extended and checkpoint.names(folder / CHECKPOINTS) == saved:
            before.put_back(folder)
        elif before.is_kept(folder):
            watch.say(f"{folder / before.BEFORE} keeps the finished run, until the longer one is finished")
        raise
    before.forget(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    make_folder(folder)
    with RunLock(folder):
        yield


@contextmanager
def _ended(watch: Watch) -> Iterator[None]:
    """Call the listener's `end` with an empty table if the run ends without a result."""
    try:
        yield
    except BaseException:
        watch.listener.end({})
        raise
