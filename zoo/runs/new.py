"""The folder of a new run, and the newest unfinished run of a configuration."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal

from zoo.base.files import TEMPORARY
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.runs.record import RunRecord


LeftOpen = Literal["accumulate", "mode"]
"""What a command may leave to the memory that is free: micro-batches, and whether images are streamed."""

OF_THE_MODE = ("mode", "fingerprint", "decoding", "mean", "std", "measured_on", "white", "black")
"""What a record says of images otherwise if they are streamed; whether they are the same is seen when it goes on."""


def is_same(there: RunRecord, asked: RunRecord, left_open: Collection[LeftOpen] = ()) -> bool:
    """Whether a run is the one that is asked for, whatever free memory or a timing chose for each of them.

    Args:
        left_open: what the command leaves open; the compiler's mode is, where the recipe says `auto`.
    """
    import msgspec

    from zoo.runs.record import OUT_OF_MEMORY, configuration

    settings, mode, data = there.settings, there.compile, there.data
    halved = OUT_OF_MEMORY in there.environment and settings.accumulate % asked.settings.accumulate == 0
    if halved or "accumulate" in left_open:
        settings = msgspec.structs.replace(settings, accumulate=asked.settings.accumulate)
    if halved or (settings.compile == asked.settings.compile == "auto"):
        mode = asked.compile
    if "mode" in left_open and data.mode != asked.data.mode:
        data = msgspec.structs.replace(data, **{key: getattr(asked.data, key) for key in OF_THE_MODE})
    there = msgspec.structs.replace(there, settings=settings, compile=mode, data=data)
    return configuration(there) == configuration(asked)


def unfinished(record: RunRecord, left_open: Collection[LeftOpen] = ()) -> Path | None:
    """The newest run under `runs/` that is the same (see `is_same`) and has no result."""
    from zoo.errors import RunError
    from zoo.runs.record import RECORD, RESULT, read_record

    def fits(folder: Path) -> bool:
        try:
            return is_same(read_record(folder), record, left_open)
        except RunError:
            return False

    folders = [p.parent for p in Path("runs").glob(f"*/{RECORD}") if not (p.parent / RESULT).exists()]
    return max(filter(fits, folders), key=lambda p: (p / RECORD).stat().st_mtime, default=None)


def refuse_another(folder: Path, record: RunRecord, left_open: Collection[LeftOpen] = ()) -> None:
    """Refuse to go on with the run of a folder if it is finished or another one (see `is_same`).

    Raises:
        InputError: says which. RunError: it is damaged.
    """
    from zoo.runs.record import RESULT, read_record

    if (folder / RESULT).exists():
        raise InputError(f"--output {folder}: its run is finished; choose another folder")
    if not is_same(read_record(folder), record, left_open):
        raise InputError(
            f"--output {folder}: its run has another configuration than the one that is asked for; choose another "
            f"folder, or go on with it as it is: zoo train --resume {quote(str(folder))}"
        )


def check_free(folder: Path, *, resumable: bool = True) -> None:
    """Refuse a folder that holds something already.

    Args:
        resumable: whether what makes the new run can also go on with one that is there.
    Raises:
        InputError: it is not empty, or no folder.
    """
    left_behind = ("lock", TEMPORARY)  # by a run that was killed before it was recorded
    if folder.exists() and (not folder.is_dir() or any(not p.name.startswith(left_behind) for p in folder.iterdir())):
        from zoo.runs.record import RECORD, RESULT

        unfinished = (folder / RECORD).is_file() and not (folder / RESULT).exists()
        hint = f", or go on with its run: zoo train --resume {quote(str(folder))}" if resumable and unfinished else ""
        raise InputError(f"--output {folder}: is there already and not empty; choose another folder{hint}")


def new_folder(model: str, spec: str) -> Path:
    """`runs/<model>-<dataset>-<time>`, not there yet."""
    last = (spec.partition(":")[2] or spec).partition("?")[0].rstrip("/").rpartition("/")[2]
    safe = "".join(c if c.isalnum() or c in ".-" else "-" for c in f"{model}-{last}").strip("-.")
    stem = f"{safe[:80].strip('-.')}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = (Path("runs") / f"{stem}{suffix}" for suffix in ("", *(f"-{i}" for i in range(2, 1000))))
    for folder in candidates:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise InputError("runs/ holds a thousand folders of this second")
