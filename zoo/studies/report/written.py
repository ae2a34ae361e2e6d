"""What `zoo.report` gives: the page that was written, and what is not on it."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zoo.base.text import plural


@dataclass(frozen=True, repr=False, eq=False)
class Report(os.PathLike[str]):
    """A page on disk; it stands for its path wherever a path is taken.

    Attributes:
        path: the page. size: its bytes.
        runs: the names of the runs on it. results: how many results of the catalogue are beside them.
        left_out: a line for each thing that was left out, as the page would have been too large.
        unmeasured: by the name of a run, why its test images were not looked at; empty if that was not asked for.
    """

    path: Path
    size: int
    runs: tuple[str, ...]
    results: int
    left_out: tuple[str, ...] = ()
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    def __fspath__(self) -> str:
        """The path, for `open` and the like."""
        return str(self.path)

    def __repr__(self) -> str:
        """One line: where it is, and what is on it."""
        results = f", {plural(self.results, 'result')} of the catalogue" if self.results else ""
        unmeasured = f", {plural(len(self.unmeasured), 'run')} not measured" if self.unmeasured else ""
        size = f"{self.size / 1e6:.2f} MB"
        return f"Report({str(self.path)!r}: {plural(len(self.runs), 'run')}{results}{unmeasured}, {size})"

    def _repr_html_(self) -> str:
        """The line, and what is missing."""
        missing = [*self.left_out, *(f"{name}: not measured: {why}" for name, why in self.unmeasured.items())]
        items = "".join(f"<li>{html.escape(line)}</li>" for line in missing)
        return f"<p>{html.escape(repr(self))}</p>{f'<ul>{items}</ul>' if items else ''}"
