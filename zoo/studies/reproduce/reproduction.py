"""What `zoo.reproduce` gives: the table, what is worth knowing about it, and which runs failed."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base.tables import Table
from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.studies.reproduce.rows import Ask, Job, Row

SHOWN = (
    *("model", "variant", "dataset", "budget", "published_top1", "top1", "difference", "spread", "seeds"),
    *("parameters", "published_minutes", "minutes", "energy_wh", "published_as"),
)
"""The columns that a terminal and a notebook show of a table; `rows` has them all."""


@dataclass(frozen=True, repr=False)
class Reproduction:
    """Our results beside the published ones.

    Attributes:
        target: the source, table, study or model; None: `rows` are the names of all of them, with a summary.
        rows: what `zoo reproduce --json` prints: a row for each published one; of a whole source, a row for each
            measurement (see `zoo.studies.reproduce.paper_table.paper_rows`). `top1`, `published_top1`, `difference`
            and `spread` (over the seeds) are fractions, None where nothing is recorded; `minutes` and `energy_wh` are
            means over the seeds; `runs` has the folder and the whole result of each seed.
        heading: a line about the whole: source, protocol, recipe, budget.
        states: for each row, how far its runs are: "recorded", "missing", "3 epochs done".
        notes: what is worth knowing about rows, such as why one is not trained; a line each.
        failed: a line for each run that has no result, with the reason.
        figures: the files that were drawn.
        file: the table's file, in which results of all commands and calls come together.
        stopped: whether `stop` ended it; the same call continues.
        columns: what a terminal and a notebook show of `rows`.
    """

    target: str | None
    rows: Table
    heading: str = ""
    states: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    figures: tuple[Path, ...] = ()
    file: Path | None = None
    stopped: bool = False
    columns: tuple[str, ...] = SHOWN

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "target": self.target,
            "heading": self.heading,
            "rows": list(self.rows),
            "states": list(self.states),
            "notes": list(self.notes),
            "failed": list(self.failed),
            "figures": [str(path) for path in self.figures],
            "file": str(self.file) if self.file else None,
            "stopped": self.stopped,
        }

    @property
    def _shown(self) -> Table:
        return Table(self.rows, self.columns) if self.target is not None else self.rows

    @property
    def _told(self) -> list[str]:
        """The lines around the table: the heading, and what did not go as it should."""
        stopped = ["stopped: the same call continues"] if self.stopped else []
        failed = [f"{plural(len(self.failed), 'run')} failed: {self.failed[0]}"] if self.failed else []
        return [line for line in (self.heading, *stopped, *failed) if line]

    def __repr__(self) -> str:
        """The heading and the table."""
        return "\n".join([*self._told, repr(self._shown)])

    def _repr_html_(self) -> str:
        """The heading and the table."""
        return "".join(f"<p>{html.escape(line)}</p>" for line in self._told) + self._shown._repr_html_()


def heading(ask: Ask, registry: Registry, rows: Sequence[Row]) -> str:
    """The line above the table: source, protocol, recipe, budget, and the images if others were given."""
    source = registry.sources.get(rows[0].source)
    parts = [source.title if source else ask.target, f"{ask.protocol} protocol", f"recipe {ask.recipe}"]
    if ask.budget == "small":
        parts.append("SMALL BUDGET (few images and epochs: not comparable)")
    if any(row.images.stand_in for row in rows):
        parts.append(f"images of {ask.dataset}")
    return "; ".join(parts)


def states(rows: Sequence[Row], jobs: Sequence[Job]) -> tuple[str, ...]:
    """For each row, how far its runs are."""
    from zoo.studies.reproduce.recorded import state

    words = [", ".join(dict.fromkeys(state(job) for job in jobs if job.row == row)) for row in rows]
    return tuple(word or "not trained" for word in words)


def notes(rows: Sequence[Row], *, training: bool) -> tuple[str, ...]:
    """Why rows are not trained, and, unless they were just trained, which are fine-tuned from which weights."""
    why = dict.fromkeys(f"{row.name}: {row.why_not}" for row in rows if row.why_not)
    tuned = [
        f"{row.name} is fine-tuned from {row.weights}; to train it alone: "
        f"zoo reproduce {row.table} --only {row.model}/{row.dataset}"
        for row in rows
        if row.weights and not row.why_not
    ]
    return (*why, *([] if training else tuned))
