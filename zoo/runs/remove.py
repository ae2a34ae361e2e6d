"""Removing run folders, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zoo.base.files import WriteError
from zoo.errors import RunError
from zoo.runs.before import BEFORE
from zoo.runs.lock import RunLock, is_held
from zoo.runs.record import RECORD, read_record


def check_removable(folder: Path) -> None:
    """Refuse what is no run folder, what is in use, and what holds more than the run.

    Raises:
        RunError: says which.
    """
    read_record(folder)
    whole = folder.resolve()
    if folder.is_symlink():
        raise RunError(f"{folder}: is a link to {whole}; remove the link, or name that folder")
    if whole in (Path(os.path.expanduser("~")).resolve(), Path.cwd().resolve(), *Path.cwd().resolve().parents):
        raise RunError(f"{folder}: is your home, the working folder, or above it; it is not removed")
    inside = [path.parent for path in sorted(whole.glob(f"**/{RECORD}")) if path.parent != whole]
    others = [path for path in inside if path.name not in ("package", BEFORE)]
    if others:
        raise RunError(f"{folder}: another run lies in it ({others[0].relative_to(whole)}); it is not removed")
    if is_held(folder):
        raise RunError(f"{folder}: is being trained; stop it first")


def remove(folder: Path) -> None:
    """Remove a run folder, under its lock.

    Raises:
        RunError: as `check_removable`. WriteError: the system refuses.
    """
    check_removable(folder)
    with RunLock(folder, named=False):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise WriteError(f"{folder}: cannot be removed: {error.strerror or error}") from error


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
