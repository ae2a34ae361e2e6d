"""One call that trains: its plan, its folder, its listeners, and how it ends early; behind `zoo.train`."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo.base.cpus import Neighbours
from zoo.base.files import make_folder
from zoo.base.heap import keep_heap
from zoo.base.reporter import Reporter
from zoo.catalogue.registry import find_model, load_registry
from zoo.models.precision import usual_torch
from zoo.runs.folder import is_finished
from zoo.runs.new import LeftOpen, check_free, new_folder, refuse_another, unfinished
from zoo.runs.own_source import remember
from zoo.runs.record import CHECKPOINTS, RECORD, RunRecord, read_record
from zoo.train import checkpoint
from zoo.train.events import Listener
from zoo.train.given import Given
from zoo.train.interrupt import Interrupt
from zoo.train.listeners import Several, attach, attach_objects, find_listeners
from zoo.train.loop import Saving, Stop
from zoo.train.own_failure import saying_own_failures
from zoo.train.plan import Entry, Plan
from zoo.train.processes.world import World
from zoo.train.result import doubts
from zoo.train.run_options import AUTO, Request
from zoo.train.runner import Watch, train_in
from zoo.train.speed.threads import beside_others
from zoo.train.start import continued, plan_from, plan_of, refuse_anew, refuse_package, refuse_soup


@dataclass(frozen=True, kw_only=True)
class Training:
    """What surrounds a training without changing what is trained.

    Attributes:
        stop: what ends it early. reporter: receives messages, warnings and the progress of decoding.
        saving: how often a checkpoint is written. log: names of plugins' loggers.
        listeners: objects with any of start, epoch and end, as plugins' loggers are; or a `Listener`, which gets more.
        world: the processes that train together.
    """

    stop: Interrupt
    reporter: Reporter
    saving: Saving
    log: Sequence[str] = ()
    listeners: Sequence[Any] = ()
    world: World = field(default_factory=World)
    neighbours: Neighbours = field(default_factory=Neighbours)

    def start(self, request: Request, entry: Entry | None, output: Path | None, own: Given, *, look: bool) -> Outcome:
        """Train a new run; with `look`, resume an unfinished one with the same configuration."""
        there = look and output is not None and (output / RECORD).is_file()
        if output is not None and not there:
            check_free(output)
        entry = entry or own.entry() or find_model(request.model)
        loggers = find_listeners(self.log, entry[0])
        plan = self._beside_others(self._prepared(lambda show: plan_of(request, show, entry, own)))
        if output is not None and there:
            self.world.once(lambda: refuse_another(output, plan.record, _left_open(request)))
        found = output if there else None
        if look and output is None:
            found = self.world.once(lambda: unfinished(plan.record, _left_open(request)))
        if (folder := found) is not None:
            kept = folder / CHECKPOINTS
            if not self.world.once(lambda: checkpoint.exists(kept)):  # it begins as it is asked for now
                return self._train(plan, folder, loggers)
            return self.resume(folder, {"data_dir": request.data_dir, "workers": request.workers}, own)
        return self._train(plan, self._new_folder(plan, output), loggers)

    def start_from(self, source: str, given: Mapping[str, Any], output: Path | None, own: Given) -> Outcome:
        """Repeat a recorded run, or fine-tune its weights; only options that were given change it."""
        if output is not None:
            check_free(output)
        registry = load_registry()
        loggers = find_listeners(self.log, registry)
        warn = self.reporter.warn
        plan = self._prepared(lambda show: plan_from(source, given, show, registry, warn=warn, own=own))
        plan = self._beside_others(plan)
        return self._train(plan, self._new_folder(plan, output), loggers)

    def resume(self, folder: Path, changed: Mapping[str, Any], own: Given) -> Outcome:
        """Resume the run of a folder, after warning about differences that make it not bit-identical."""
        if changed.get("epochs") is None and is_finished(folder):
            record = read_record(folder)
            refuse_package(folder)
            refuse_soup(record, str(folder))
            self.reporter.say(
                f"{folder}: this run is finished; extend it with --epochs N, N above {record.settings.epochs}"
            )
            return Outcome(folder, None)
        registry = load_registry()
        loggers = find_listeners(self.log, registry)
        warn = self.reporter.warn
        plan = self._prepared(lambda show: continued(folder, registry, **changed, show=show, warn=warn, given=own))
        refuse_anew(folder, plan.record)
        return self._train(plan, folder, loggers)

    def _prepared(self, make: Callable[[Any], Plan]) -> Plan:
        """Make a plan, with progress while images are decoded."""
        keep_heap()
        try:
            return self.world.placed(self.world.in_turn(lambda: make(self.reporter.progress)))
        finally:
            self.reporter.close()

    def _new_folder(self, plan: Plan, output: Path | None) -> Path:
        return self.world.once(lambda: output or new_folder(plan.record.model, plan.record.data.spec))

    def _beside_others(self, plan: Plan) -> Plan:
        """The plan with fewer threads if other processes keep CPUs busy and a step is faster so."""
        if self.world.size > 1:
            return plan
        with saying_own_failures(plan):  # it times a step
            plan, line = beside_others(plan, self.neighbours.busy())
        if line:
            self.reporter.say(line)
        return plan

    def _train(self, plan: Plan, folder: Path, loggers: Mapping[str, Callable[..., Any]]) -> Outcome:
        watch = Watch(
            listener=self._listener(loggers, folder) if self.world.first else Listener(),
            stop=self.stop,
            saving=self.saving,
            ready=self.stop.answer_between_steps,
            say=self.reporter.warn,
            world=self.world,
        )
        for message in plan.messages:
            self.reporter.say(message)
        for finding in plan.findings:
            line = finding.line()
            self.reporter.warn(line) if finding.level == "warning" else self.reporter.say(f"{finding.level}: {line}")
        for note in plan.notes:
            self.reporter.note(note)
        remember(folder, plan.record, plan.registry)
        try:
            result = train_in(folder, plan, watch)
            for line in doubts(result) if self.world.first else ():
                self.reporter.warn(line)
            return Outcome(folder, result, plan.record)
        except Stop as stopped:
            self.stop.stopped(stopped.signal)
            return Outcome(folder, None, plan.record)
        finally:
            self.stop.done()

    def _listener(self, loggers: Mapping[str, Callable[..., Any]], folder: Path) -> Listener:
        """All listeners as one, the loggers of plugins among them, which write into the run folder."""
        ours = [listener for listener in self.listeners if isinstance(listener, Listener)]
        given = [listener for listener in self.listeners if not isinstance(listener, Listener)]
        warn = self.reporter.warn
        display: Listener = Several(ours) if len(ours) != 1 else ours[0]
        if loggers:
            make_folder(folder)
            display = attach(display, dict(loggers), folder, warn)
        return self.stop.hearing(attach_objects(display, given, warn) if given else display)


def _left_open(request: Request) -> list[LeftOpen]:
    """What a request leaves to the memory that is free when it is asked."""
    parts: list[LeftOpen] = ["accumulate"] if request.batch_size == AUTO else []
    return [*parts, "mode"] if request.data_mode == "auto" else parts


@dataclass(frozen=True)
class Outcome:
    """How a call that trains ended.

    Attributes:
        result: the content of `result.json`; None if the run was stopped, or was finished before.
        record: of the run; None if it was finished before.
    """

    folder: Path
    result: dict[str, Any] | None
    record: RunRecord | None = None


@contextmanager
def as_before(device: str) -> Iterator[None]:
    """Train in torch's usual modes, and leave torch as it was: a program goes on after the training.

    What the caller's program set for itself, such as `torch.set_grad_enabled(False)` at the top of a notebook, must not
    change the weights; and what code of the user's own sets during the training must not outlast it. All threads of a
    process share torch's random generator, so that a training waits for that of another thread.

    Args:
        device: the name of the device that is trained on.
    """
    turn = _turn(os.getpid())
    if not turn.acquire(blocking=False):
        Reporter().say("another thread of this program trains; this training begins when that one has ended")
        turn.acquire()
    try:
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        cuda = device not in ("cpu", "mps") and torch.cuda.is_available()
        try:
            with usual_torch(), torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()):
                yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
    finally:
        turn.release()


@functools.cache
def _turn(process: int) -> threading.RLock:
    """Held while this process trains; a fork of it has another one."""
    del process
    return threading.RLock()


_turn(os.getpid())  # made while this module is imported, by one thread
