"""What `zoo.release` gives: for each run, what was done with it or why it was left out."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base.tables import Table
from zoo.base.text import plural

STATES = ("released", "planned", "present", "left out", "failed")
SHOWN = ("run", "name", "top1", "state", "files", "bytes", "steps", "reason")
COLUMNS = ("run", "name", "top1", "repo", "state", "steps", "files", "bytes", "reference", "reason")


@dataclass(frozen=True, repr=False)
class Release:
    """What was released, or, with `dry_run`, what would be.

    Attributes:
        owner: whose repositories they are. registry: the file with the entries.
        rows: a row for each run: `run`; `name` (NAME@DATASET) and `repo`; `top1`, a fraction; `state`: "released",
            "planned" (by `dry_run`), "present" (there was nothing left to do), "left out" or "failed"; `steps` that
            were or would be done; `files` and `bytes` that were or would be sent; `reference`: hf://OWNER/NAME@COMMIT;
            `reason`: why it was left out, or failed.
        collection: the title, or the address of its page; "" for none.
        problem: why the collection could not be completed; "" if nothing went wrong.
        dry_run: whether nothing was sent and written.
    """

    owner: str
    registry: Path
    rows: Table
    collection: str = ""
    problem: str = ""
    dry_run: bool = False

    @property
    def files(self) -> int:
        """How many files were or would be sent."""
        return sum(self.rows.column("files"))

    @property
    def size(self) -> int:
        """Bytes of these files."""
        return sum(self.rows.column("bytes"))

    @property
    def failed(self) -> tuple[str, ...]:
        """A line for each run that should have been released and was not, and for the collection."""
        runs = tuple(f"{row['run']}: {row['reason']}" for row in self.rows if row["state"] == "failed")
        return (*runs, f"collection: {self.problem}") if self.problem else runs

    @property
    def left_out(self) -> tuple[str, ...]:
        """A line for each run that was left out, with the reason."""
        return tuple(f"{row['run']}: {row['reason']}" for row in self.rows if row["state"] == "left out")

    @property
    def summary(self) -> str:
        """One line: how many runs, files and bytes."""
        counts = {state: self.rows.column("state").count(state) for state in STATES}
        states = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        sent = "to send; nothing was sent" if self.dry_run else "sent"
        amount = f"{plural(self.files, 'file')}, {plural(self.size, 'byte')} {sent}"
        return f"{plural(len(self.rows), 'run')}: {states or 'none'}; {amount}"

    def as_dict(self) -> dict[str, Any]:
        """As `zoo release --json` prints it."""
        return {
            "owner": self.owner,
            "registry": str(self.registry),
            "dry_run": self.dry_run,
            "rows": list(self.rows),
            "files": self.files,
            "bytes": self.size,
            "collection": self.collection,
            "failed": list(self.failed),
        }

    def __repr__(self) -> str:
        """The line, and the runs as a table."""
        return f"Release to {self.owner}: {self.summary}\n{Table(self.rows, SHOWN)!r}"

    def _repr_html_(self) -> str:
        """The line, and the runs as a table."""
        return (
            f"<p>Release to {html.escape(f'{self.owner}: {self.summary}')}</p>{Table(self.rows, SHOWN)._repr_html_()}"
        )
