"""Trains the runs of a table: each one once, resumed from its last checkpoint if it was interrupted.

Runs are trained in the calling process, so that ending it ends the training. Several processes (`--jobs`, a
second command, a Ray cluster) share a table by the lock of each run's folder: a process that finds the lock
held continues with the next run and tries again later. The lock of a process that died is free, and the next
process resumes its run.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from zoo.base.files import write_text
from zoo.base.heap import keep_heap
from zoo.base.reporter import Reporter
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.vary import inline
from zoo.errors import BusyError, InputError, ZooError
from zoo.runs.record import RECORD
from zoo.studies.checked import goes_on
from zoo.studies.reproduce.energy import Meter, counters
from zoo.studies.reproduce.recorded import measured, store
from zoo.studies.reproduce.rows import MEANT, Ask, Job, changed_fields, jobs_of, meant_by, rows_of
from zoo.studies.reproduce.same_training import take_over
from zoo.train.call import as_before
from zoo.train.events import Listener
from zoo.train.listeners import Several
from zoo.train.loop import Saving, Stop
from zoo.train.plan import Plan
from zoo.train.result import doubts
from zoo.train.run_options import Request
from zoo.train.runner import Say, Stopper, Watch, finish
from zoo.train.smaller import give_back
from zoo.train.start import continued, plan_of

FAILURE = "failure.json"
WAIT_SECONDS = 1.0


def work(
    ask: Ask,
    registry: Registry,
    invocation: str,
    stop: Stopper,
    listeners: Sequence[Listener],
    reporter: Reporter,
    done: Callable[[], None],
) -> None:
    """Train the missing runs of a table, until every run has a result or has failed.

    Args:
        invocation: identifies the command; a run that failed under it is not tried again under it.
        stop: as for `zoo.train.loop.Trainer`. listeners: receive the events of each run, one run after another.
        done: called after each run that was finished here.
    Raises:
        zoo.train.loop.Stop: a signal asked to stop; a checkpoint is written.
    """
    keep_heap()
    pending, reported = jobs_of(ask, registry, rows_of(ask, registry)), set[Path]()
    whole = msgspec.structs.replace(ask, only=())
    others = jobs_of(whole, registry, rows_of(whole, registry))
    while pending := [job for job in pending if not job.recorded and not failure(job, invocation)]:
        busy = []
        for job in pending:
            try:
                if perform(job, ask, registry, stop, listeners, reporter, others):
                    done()
            except BusyError as error:
                busy.append(job)
                if job.folder not in reported:
                    reporter.say(f"{job.title}: {error}")
                    reported.add(job.folder)
            except ZooError as error:
                reporter.say(f"{job.title}: failed: {error}")
                text = {"invocation": invocation, "message": str(error)}
                write_text(job.folder / FAILURE, msgspec.json.encode(text).decode())
            give_back()
        if len(busy) == len(pending):
            _pause(stop)


def assist(given: dict[str, Any], stop: Stopper, reporter: Reporter) -> None:
    """Call `work` in one of several processes, with plain data: "ask", "invocation", "results"."""
    ask = msgspec.convert(given["ask"], Ask)
    registry = load_registry()
    rows = rows_of(ask, registry)
    runs, path = jobs_of(ask, registry, rows), Path(given["results"])

    def done() -> None:
        store(path, ask, registry, measured(rows, runs))

    work(ask, registry, given["invocation"], stop, [EpochLines(reporter.say)], reporter, done)


class EpochLines(Listener):
    """Says a line for each epoch with the name of its run, as several runs are trained at the same time."""

    def __init__(self, say: Say) -> None:
        self.say = say

    def start(self, plan: Plan, parameters: int) -> None:
        """Remember the name of the run."""
        self.name, self.epochs = f"{plan.record.model} on {plan.record.data.spec}", plan.recipe.epochs

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Say the results of the epoch."""
        split = "val" if "val_top1" in row else "test"
        score = f"{split} top-1 {row[f'{split}_top1']:.2%}{' *' if best else ''}"
        self.say(f"{self.name}: epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.4f}  {score}")


def failure(job: Job, invocation: str) -> str:
    """Why a run failed under this invocation; "" if it did not."""
    try:
        stored = msgspec.json.decode((job.folder / FAILURE).read_bytes())
        return str(stored["message"]) if stored["invocation"] == invocation else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def perform(
    job: Job,
    ask: Ask,
    registry: Registry,
    stop: Stopper,
    listeners: Sequence[Listener],
    reporter: Reporter,
    others: Sequence[Job] = (),
) -> dict[str, Any] | None:
    """Train or resume one run in its folder.

    Args:
        others: runs of the table; one that has the same training is not trained a second time.
    Returns:
        The content of `result.json`; None if another process finished the run meanwhile.
    Raises:
        BusyError: another process is training it. ZooError: it cannot be trained.
    """
    metered = Metered(job.folder)

    def warn(line: str) -> None:
        reporter.warn(f"{job.title}: {line}")

    def plan() -> Plan:
        begun = (job.folder / RECORD).is_file()
        reporter.say(f"{job.title}: {'resumed' if begun else 'started'} in {job.folder}")
        if line := goes_on(job.folder, ask.device):
            warn(line)
        made = continued(job.folder, registry, data_dir=ask.data_dir, warn=warn) if begun else None
        if made is None:
            made = planned(job, ask, registry)
            write_text(job.folder / MEANT, meant_by(job.row.images.spec, registry))
            if (taken := take_over(job.folder, made, others, ask.data_dir)) is not None:
                same, made = taken
                reporter.say(f"{job.title}: has the training of {same.title}, only its test images are others")
        for line in made.messages:
            reporter.say(f"{job.title}: {line}")
        metered.begin(made.record.device)
        return made

    heard = Several([metered, *listeners])
    watch = Watch(listener=heard, stop=stop, saving=Saving(ask.checkpoint_seconds), say=reporter.say)
    with as_before(ask.device):
        result = finish(job.folder, plan, watch)
    for line in doubts(result) if result else ():
        warn(line)
    return result


def planned(job: Job, ask: Ask, registry: Registry) -> Plan:
    """The plan of a new run.

    Raises:
        ZooError: something cannot be used; one line says what.
    """
    row = job.row
    request = Request(
        model=row.model,
        dataset=row.images.spec,
        data_dir=ask.data_dir,
        recipe=row.recipe,
        settings=tuple(f"{key}={inline(value)}" for key, value in changed_fields(row).items()),
        seed=job.seed,
        device=ask.device,
        protocol=row.protocol,
        image_size=row.images.size,
        limit_train=row.limit_train,
        limit_test=row.limit_test,
        weights=row.weights,
    )
    plan = plan_of(request, entry=(registry, row.model, row.entry))
    _refuse_without_top1(plan)
    if not row.images.mean or row.weights or plan.recipe.normalize == "imagenet":
        return plan
    named = {"mean": row.images.mean, "std": row.images.std, "measured_on": msgspec.UNSET}
    data = msgspec.structs.replace(plan.record.data, **named)
    return dataclasses.replace(plan, record=msgspec.structs.replace(plan.record, data=data))


def _refuse_without_top1(plan: Plan) -> None:
    """Refuse a run whose result would have no top-1 to stand in a table.

    Raises:
        InputError: says why, and what to do.
    """
    if plan.record.without_labels:
        why = 'the objective "masked" learns no labels'
    elif plan.record.data.is_multi_label:
        why = f"the images of {plan.record.data.spec} have several labels"
    else:
        return
    raise InputError(f"{why}, and a table compares top-1; train the model by itself: zoo train {plan.record.model}")


class Metered(Listener):
    """Stores the energy that a run has used in its folder, after each epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meter: Meter | None = None

    def begin(self, device: str) -> None:
        """Start reading the device's counters."""
        self.meter = Meter(self.folder, counters(device))

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Store the sum so far."""
        self.end(row)

    def end(self, result: dict[str, Any]) -> None:
        """Store the sum."""
        del result
        if self.meter is not None:
            self.meter.keep()


def _pause(stop: Stopper) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if (signal := stop()) > 0:
            raise Stop(signal)
        time.sleep(0.05)
