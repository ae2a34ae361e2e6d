"""What calls are given: checked as the command line checks its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zoo.errors import InputError


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
