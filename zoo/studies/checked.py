"""What calls are given: checked as the command line checks its words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zoo.base.text import plural
from zoo.errors import InputError, RunError
from zoo.runs.record import RECORD, RESULT, read_record


class Remembered:
    """A `stop` that, once it has asked to stop, goes on asking: those that look later see it too."""

    def __init__(self, stop: Callable[[], int]) -> None:
        self.stop, self.number = stop, 0

    def __call__(self) -> int:
        """The number of the stopping signal, -1 to write only a checkpoint, or 0."""
        if self.number > 0:
            return self.number
        self.number = self.stop()
        return self.number


def check_among(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is not among those allowed.

    Raises:
        InputError: names them.
    """
    if value not in allowed:
        raise InputError(f"{name}={value!r}: allowed: {', '.join(allowed)}")


def check_least(name: str, value: float | None, least: float) -> None:
    """Refuse a number below the least one; None stands for a default.

    Raises:
        InputError: names it.
    """
    if value is not None and not value >= least:
        raise InputError(f"{name}={value!r} must be at least {least}")


def elsewhere(folder: Path, asked: str) -> str:
    """The device that a begun run has, where another one is asked for; "" where it is the same, or any will do.

    Args:
        asked: as `--device` takes it.
    """
    if asked == "auto" or not (folder / RECORD).is_file():
        return ""
    try:
        recorded = read_record(folder).device
    except RunError:  # who goes on with it says so
        return ""
    return "" if _numbered(recorded) == _numbered(asked) else recorded


def goes_on(folder: Path, asked: str) -> str:
    """A line for a run that goes on on another device than is asked for; "" for one that does not."""
    other = elsewhere(folder, asked)
    return f"stays on {other}, where it began, instead of {asked}; to train it there, delete {folder}" if other else ""


def stays(folders: Iterable[Path], asked: str) -> str:
    """A line about finished runs that were trained on another device than is asked for; "" where there are none."""
    found = [other for folder in folders if (folder / RESULT).is_file() and (other := elsewhere(folder, asked))]
    if not found:
        return ""
    runs = plural(len(found), "finished run was", "finished runs were")
    return f"--device {asked} holds for runs that begin: {runs} trained on {', '.join(sorted(set(found)))}"


def _numbered(device: str) -> str:
    return device if ":" in device else f"{device}:0"
