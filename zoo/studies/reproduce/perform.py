"""Training the runs of a table: each one once, by whoever comes first, from where it was left.

Runs are trained in the process that was asked: ending it ends the training, and nothing is orphaned.
Several processes at one table (`--jobs`, a second command, a Ray cluster) share it by the lock of each
run's folder: who finds it held goes on to the next run and looks again later; the lock of a process
that died is free, and its run goes on from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from zoo.base.files import write_text
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.vary import inline
from zoo.errors import BusyError, ZooError
from zoo.runs.record import RECORD
from zoo.studies.reproduce.energy import Meter, counters
from zoo.studies.reproduce.recorded import measured, store
from zoo.studies.reproduce.rows import Ask, Job, changed_fields, jobs_of, rows_of
from zoo.train.events import Listener
from zoo.train.listeners import Several
from zoo.train.loop import Saving, Stop
from zoo.train.plan import Plan
from zoo.train.request import Request
from zoo.train.runner import Say, Stopper, Watch, finish
from zoo.train.speed.heap import keep_heap
from zoo.train.start import continued, plan_of

FAILURE = "failure.json"
WAIT_SECONDS = 1.0

Make = Callable[[], Listener]


def work(
    ask: Ask,
    registry: Registry,
    invocation: str,
    stop: Stopper,
    listener: Make,
    say: Say,
    done: Callable[[], None],
) -> None:
    """Train what is missing of a table, until every run of it has a result or has failed.

    Args:
        invocation: names the command: a run that failed under it is not tried again by its helpers.
        stop: as `zoo.train.loop.Trainer` asks it. listener: makes what watches one run.
        done: called after each run that was finished here.
    Raises:
        zoo.train.loop.Stop: asked to stop, after a checkpoint.
    """
    keep_heap()
    pending, told = jobs_of(ask, registry, rows_of(ask, registry)), set[Path]()
    while pending := [job for job in pending if not job.recorded and not failure(job, invocation)]:
        busy = []
        for job in pending:
            try:
                if perform(job, ask, registry, stop, listener(), say):
                    done()
            except BusyError as error:
                busy.append(job)
                if job.folder not in told:
                    say(f"{job.title}: {error}")
                    told.add(job.folder)
            except ZooError as error:
                say(f"{job.title}: failed: {error}")
                text = {"invocation": invocation, "message": str(error)}
                write_text(job.folder / FAILURE, msgspec.json.encode(text).decode())
            _free()
        if len(busy) == len(pending):
            _pause(stop)


def assist(given: dict[str, Any], stop: Stopper) -> None:
    """`work` as one of several processes, by plain data: "ask", "invocation", "results", "quiet"."""
    ask, quiet = msgspec.convert(given["ask"], Ask), given["quiet"]
    registry = load_registry()
    rows = rows_of(ask, registry)
    runs, path = jobs_of(ask, registry, rows), Path(given["results"])

    def done() -> None:
        store(path, ask, registry, measured(rows, runs))

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    work(ask, registry, given["invocation"], stop, lambda: EpochLines(say), say, done)


class EpochLines(Listener):
    """A line for each epoch, with the name of its run: several runs speak at once."""

    def __init__(self, say: Say) -> None:
        self.say = say

    def start(self, plan: Plan, parameters: int) -> None:
        """Remember whose lines these are."""
        self.name, self.epochs = f"{plan.record.model} on {plan.record.data.spec}", plan.recipe.epochs

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Say how the epoch went."""
        split = "val" if "val_top1" in row else "test"
        score = f"{split} top-1 {row[f'{split}_top1']:.2%}{' *' if best else ''}"
        self.say(f"{self.name}: epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.4f}  {score}")


def failure(job: Job, invocation: str) -> str:
    """Why a run failed under this invocation; "" where it did not."""
    try:
        kept = msgspec.json.decode((job.folder / FAILURE).read_bytes())
        return str(kept["message"]) if kept["invocation"] == invocation else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def perform(
    job: Job, ask: Ask, registry: Registry, stop: Stopper, listener: Listener, say: Say
) -> dict[str, Any] | None:
    """Train one run in its folder, or go on with it.

    Returns:
        What `result.json` holds; None where somebody finished it meanwhile.
    Raises:
        BusyError: another process is at it. ZooError: it cannot be trained.
    """
    metered = Metered(job.folder)

    def plan() -> Plan:
        begun = (job.folder / RECORD).is_file()
        say(f"{job.title}: {'goes on' if begun else 'starts'} in {job.folder}")
        warn = partial(_warn, say, job.title)
        made = continued(job.folder, registry, data_dir=ask.data_dir, warn=warn) if begun else None
        made = made or planned(job, ask, registry)
        metered.begin(made.record.device)
        return made

    watch = Watch(
        listener=Several([metered, listener]), stop=stop, saving=Saving(ask.checkpoint_seconds), say=say
    )
    return finish(job.folder, plan, watch)


def _warn(say: Say, title: str, line: str) -> None:
    say(f"warning: {title}: {line}")


def planned(job: Job, ask: Ask, registry: Registry) -> Plan:
    """The plan of a run that has not begun.

    Raises:
        ZooError: whatever cannot be used, in one line.
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
    plan = plan_of(request, found=(registry, row.model, row.entry))
    if not row.images.mean or row.weights:
        return plan
    data = msgspec.structs.replace(plan.record.data, mean=row.images.mean, std=row.images.std)
    return dataclasses.replace(plan, record=msgspec.structs.replace(plan.record, data=data))


class Metered(Listener):
    """Keeps what the run has used, epoch by epoch, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meter: Meter | None = None

    def begin(self, device: str) -> None:
        """Read the device's counters from here on."""
        self.meter = Meter(self.folder, counters(device))

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Keep the sum so far."""
        self.end(row)

    def end(self, result: dict[str, Any]) -> None:
        """Keep the sum."""
        del result
        if self.meter is not None:
            self.meter.keep()


def _free() -> None:
    """Let go of the last run's memory before the next one takes its own."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _pause(stop: Stopper) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if (asked := stop()) > 0:
            raise Stop(asked)
        time.sleep(0.05)
