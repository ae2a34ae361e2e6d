"""The finished state of a run that is being extended, kept in `before/` until the longer run is finished too.

`before/` is a run folder itself: it can be evaluated, packaged and published. The result moves there in one
step, after everything that belongs to it, so that at any moment either the run or `before/` is finished.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from zoo.base.files import WriteError, write_bytes
from zoo.runs.record import CURVES, METRICS, RECORD, RESULT, SOURCE, WEIGHTS

BEFORE = "before"
BESIDE = (RECORD, METRICS, WEIGHTS, CURVES)
"""What belongs to a result."""


def set_aside(folder: Path) -> bool:
    """Move the result of a finished run into `before/`, with copies of what belongs to it.

    Returns:
        Whether there was a result.
    Raises:
        WriteError: the disk is full, for example; the run is still finished.
    """
    if not (folder / RESULT).is_file():
        return False
    before = folder / BEFORE
    try:
        before.mkdir(exist_ok=True)
        for name in (RESULT, *BESIDE):  # of an earlier extension, whose end came with a crash
            (before / name).unlink(missing_ok=True)
        shutil.rmtree(before / SOURCE, ignore_errors=True)
        if (folder / SOURCE).is_dir():  # code of the user's own, without which the model cannot be built
            shutil.copytree(folder / SOURCE, before / SOURCE)
        for name in BESIDE:
            if (folder / name).is_file():
                _keep(folder / name, before / name)
        os.replace(folder / RESULT, before / RESULT)
    except OSError as error:
        raise WriteError(f"{before}: cannot be written: {error.strerror or error}") from error
    return True


def put_back(folder: Path) -> None:
    """Make the run what it was before `set_aside`; only renames, so that a full disk does not matter."""
    before = folder / BEFORE
    if (before / SOURCE).is_dir():  # the longer run may have been given other code
        shutil.rmtree(folder / SOURCE, ignore_errors=True)
        os.replace(before / SOURCE, folder / SOURCE)
    for name in (*BESIDE, RESULT):  # the result last: a run with a result is finished
        if (before / name).is_file():
            os.replace(before / name, folder / name)
            (before / name).unlink(missing_ok=True)  # two names of one file are not replaced by one another
    _remove(before)


def forget(folder: Path) -> None:
    """Delete what `set_aside` kept, once the longer run has a result."""
    before = folder / BEFORE
    for name in (RESULT, *BESIDE):
        with contextlib.suppress(OSError):
            (before / name).unlink(missing_ok=True)
    _remove(before)


def is_kept(folder: Path) -> bool:
    """Whether the run is being extended, and its finished state of before is kept."""
    return not (folder / RESULT).is_file() and (folder / BEFORE / RESULT).is_file()


def _keep(path: Path, copy: Path) -> None:
    """A second name for the file, which is only ever replaced as a whole; a copy of one that lines are added to."""
    if path.name == METRICS:
        write_bytes(copy, path.read_bytes())
        return
    try:
        os.link(path, copy)
    except OSError:  # not every file system has links
        shutil.copyfile(path, copy)


def _remove(before: Path) -> None:
    shutil.rmtree(before / SOURCE, ignore_errors=True)
    with contextlib.suppress(OSError):  # somebody has put more into it, a package for example
        before.rmdir()
