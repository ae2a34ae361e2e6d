"""Where each image of a split came from: a file, or a row of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zoo.data.types import Labels


@dataclass(frozen=True)
class Origins:
    """Names of decoded images, in a text file beside them; read when somebody asks.

    Attributes:
        path: of the file; earlier versions wrote none. rows: int64 (N,), which of its names are meant.
    """

    path: Path
    rows: Labels = field(repr=False)

    def select(self, rows: Labels) -> Origins:
        """Those of some of the images."""
        return Origins(self.path, self.rows[rows])

    def names(self) -> list[str]:
        """One for each image; its number in the split where nothing else is known."""
        try:
            every = os.fsdecode(self.path.read_bytes()).split("\0")
        except OSError:
            every = []
        return [every[row] if row < len(every) else f"image {row}" for row in self.rows.tolist()]


def write_origins(path: Path, where: Callable[[int], str], rows: Labels) -> None:
    """Write the names of some rows, for `Origins` of `range(len(rows))`."""
    with path.open("wb") as file:
        file.write(os.fsencode("\0".join(where(row) for row in rows.tolist())))


def all_rows(path: Path, count: int) -> Origins:
    """The origins of a whole split."""
    return Origins(path, np.arange(count))
