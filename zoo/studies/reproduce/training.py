"""A whole table: its rows, the training of the runs that are missing, and the results beside the published ones."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from zoo.base.reporter import Reporter
from zoo.base.tables import Table
from zoo.catalogue.registry import Registry, load_registry
from zoo.errors import DeviceError
from zoo.runs.folder import any_result, extensions_of
from zoo.studies.checked import Remembered, stays
from zoo.studies.reproduce.paper_table import PAPER_COLUMNS, is_whole_source, paper_rows, refuse_training_options
from zoo.studies.reproduce.recorded import figures, file_of, measured, read, store, unclean, with_other_seeds
from zoo.studies.reproduce.reproduction import Reproduction, heading, notes, states
from zoo.studies.reproduce.rows import Ask, Job, Row, jobs_of, rows_of, targets

if TYPE_CHECKING:
    from zoo.studies.workers import Engine
    from zoo.train.events import Listener


@dataclass(frozen=True)
class How:
    """How runs are trained, which changes no result; as `zoo.reproduce`."""

    jobs: int
    engine: Engine
    listeners: Sequence[Listener]
    reporter: Reporter
    stop: Remembered


def list_targets() -> Reproduction:
    """Every source, table and study."""
    summaries = targets(load_registry())
    rows = [{"name": name, "summary": text} for name, text in summaries.items()]
    return Reproduction(None, Table(rows, ("name", "summary")))


def carry_out(ask: Ask, how: How, results: Path, *, train: bool | None, draw: bool) -> Reproduction:
    """Train the missing runs, unless only what is there is asked for.

    Args:
        results: the folder for the table and the figures. draw: whether to draw the figures.
        train: None: train, except for a whole source, which is shown as it is recorded.
    Raises:
        InputError: no such target, or options that contradict one another. ZooError: as `store`.
    """
    registry = load_registry()
    if train is None and is_whole_source(ask.target, registry):
        spread = {"figures": draw, "jobs": how.jobs > 1, "engine": how.engine != "local"}
        refuse_training_options(ask, [name for name, given in spread.items() if given])
        return _as_recorded(ask, registry, results)
    train = train is not False
    rows = rows_of(ask, registry)
    table = _Table(ask, registry, rows, jobs_of(ask, registry, rows), file_of(ask, results))
    failed: list[str] = []
    if train:
        failed, stopped = _train(table, how)
        if stopped:
            return table.reproduction(train=True, stopped=True)
        for line in unclean(read(table.path)):
            how.reporter.warn(line)
    return table.reproduction(train=train, failed=failed, figures=_draw(ask, registry, results) if draw else ())


def _as_recorded(ask: Ask, registry: Registry, results: Path) -> Reproduction:
    """A whole source: every result of ours that is recorded."""
    return Reproduction(
        target=ask.target,
        rows=Table(paper_rows(ask, registry, results)),
        heading=f"{registry.sources[ask.target].title}; as recorded, nothing is trained",
        columns=PAPER_COLUMNS,
    )


@dataclass(frozen=True)
class _Table:
    """A table that is trained: its rows, its runs and its file."""

    ask: Ask
    registry: Registry
    rows: list[Row]
    jobs: list[Job]
    path: Path
    invocation: str = field(default_factory=lambda: uuid.uuid4().hex)

    def store(self) -> None:
        """Merge what is recorded into the table's file."""
        store(self.path, self.ask, self.registry, measured(self.rows, self.jobs))

    def reproduction(
        self, *, train: bool, failed: Sequence[str] = (), figures: Sequence[Path] = (), stopped: bool = False
    ) -> Reproduction:
        """What is recorded now."""
        rows = measured(self.rows, self.jobs)
        if self.ask.first_seed:
            stored = read(self.path)
            rows = [with_other_seeds(row, stored) for row in rows]
        return Reproduction(
            target=self.ask.target,
            rows=Table(rows),
            heading=heading(self.ask, self.registry, self.rows),
            states=states(self.rows, self.jobs),
            notes=notes(self.rows, training=train),
            failed=tuple(failed),
            figures=tuple(figures),
            file=self.path,
            stopped=stopped,
        )


def _train(table: _Table, how: How) -> tuple[list[str], bool]:
    """Train the missing runs, and store the table after each one.

    Returns:
        (a line for each run that failed, whether a signal stopped it).
    Raises:
        ZooError: as `store`. InputError: not a device's name.
    """
    from zoo.studies.reproduce.perform import failure

    table.store()  # fails now, before any training, if it cannot be written
    if table.ask.device != "auto" and how.engine == "local":  # a cluster has its own
        from zoo.models.device import pick_device

        with contextlib.suppress(DeviceError):  # each run that begins says so
            pick_device(table.ask.device)
    for job in table.jobs:
        for line in extensions_of(any_result(job.folder)):
            how.reporter.warn(f"{job.title}: was extended ({line}), so that its row is not what the table asks for")
    if line := stays((job.folder for job in table.jobs), table.ask.device):
        how.reporter.warn(line)
    problems: list[str] = []
    if how.stop() > 0:  # asked here for the first time: from now on the work is stopped between two steps
        return [], True
    if (how.engine, how.jobs) == ("local", 1):
        _alone(table, how)
    elif not all(job.recorded for job in table.jobs):
        problems = _together(table, how)
    if how.stop() > 0:
        return [], True
    table.store()
    reasons = {job.title: failure(job, table.invocation) for job in table.jobs if not job.recorded}
    other = "; ".join(problems) or "not finished"
    return [f"{title}: {reason or other}; repeat the command to continue" for title, reason in reasons.items()], False


def _alone(table: _Table, how: How) -> None:
    """Train in this process; `how.stop` remembers whether that was stopped."""
    from zoo.studies.reproduce.perform import work
    from zoo.train.loop import Stop

    with contextlib.suppress(Stop):
        work(table.ask, table.registry, table.invocation, how.stop, how.listeners, how.reporter, table.store)


def _together(table: _Table, how: How) -> list[str]:
    """Train in several processes; returns a line for each that failed."""
    from zoo.studies import workers

    ask = table.ask
    given = {"ask": msgspec.to_builtins(ask), "invocation": table.invocation, "results": str(table.path)}
    gpu = workers.takes_gpu(how.engine, ask.device)
    call = "zoo.studies.reproduce.perform:assist"
    return workers.spread(call, given, how.jobs, how.engine, how.stop, how.reporter, gpu=gpu)


def _draw(ask: Ask, registry: Registry, results: Path) -> list[Path]:
    """Draw the recorded runs of the whole target, whatever `only` selected."""
    ask = msgspec.structs.replace(ask, only=())
    rows = rows_of(ask, registry)
    return figures(ask, rows, jobs_of(ask, registry, rows), results)
