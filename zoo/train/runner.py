"""One run, from its plan to its result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.base.files import clear_temporaries

if TYPE_CHECKING:
    from zoo.runs.record import RunRecord


@contextmanager
def written(folder: Path, record: RunRecord) -> Iterator[None]:
    """Hold the lock of a run folder that has its record."""
    from zoo.runs.lock import RunLock
    from zoo.runs.record import RESULT, write_record

    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder):
        clear_temporaries(folder)
        (folder / RESULT).unlink(missing_ok=True)  # a run that is extended is not finished any more
        write_record(folder, record)
        yield
