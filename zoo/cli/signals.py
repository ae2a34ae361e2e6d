"""Ctrl-C and SIGTERM ask a run to stop, a second one ends the process at once; SIGUSR1 asks for a checkpoint."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal came before there was anything to save; carries its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopRequests:
    """What signals asked for; calling it gives the stopping signal's number, -1 (save), or 0."""

    def __init__(self) -> None:
        self.asked = 0
        self.save = False
        self.graceful = False  # set once there is something that can stop between two steps

    def __call__(self) -> int:
        """The number of the signal that asks to stop, -1 once after SIGUSR1, or 0."""
        if self.save and not self.asked:
            self.save = False
            return -1
        return self.asked

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = number
        if not self.graceful:
            raise Interrupted(number)

    def __enter__(self) -> StopRequests:
        """Take over both signals."""
        handlers = {signal.SIGINT: self._handle, signal.SIGTERM: self._handle}
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = self._save
        self.before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *error: Any) -> None:
        """Give both signals back."""
        for number, handler in self.before.items():
            if handler is not None:  # None: it was not set from Python, and cannot be given back
                signal.signal(number, handler)
