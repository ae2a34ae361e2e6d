"""Ctrl-C and SIGTERM ask a run to stop, a second one ends the process at once; SIGUSR1 asks for a checkpoint."""

from __future__ import annotations

import os
import signal
import time
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
        self.patience = 0.0  # seconds in which the same request may come twice: from a group and its launcher
        self.since = 0.0
        self.raised = False
        self.graceful = False  # whether there is something that can stop between two steps

    def __call__(self) -> int:
        """The number of the signal that asks to stop, -1 once after SIGUSR1, or 0."""
        if self.save and not self.asked:
            self.save = False
            return -1
        return self.asked

    def answer_between_steps(self) -> None:
        """From here on there is something that can stop between two steps, and be saved."""
        self.graceful = True

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if time.monotonic() - self.since >= self.patience:
                os._exit(128 + number)
            return
        self.asked, self.since = number, time.monotonic()
        if not self.graceful:
            self.raised = True
            raise Interrupted(number)

    def __enter__(self) -> StopRequests:
        """Take over both signals."""
        handlers = {signal.SIGINT: self._handle, signal.SIGTERM: self._handle}
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = self._save
        self.before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Give both signals back.

        Raises:
            Interrupted: a library that was being imported lost what the handler raised, and broke by it.
        """
        for number, handler in self.before.items():
            if handler is not None:  # None: it was not set from Python, and cannot be given back
                signal.signal(number, handler)
        if self.raised and isinstance(error, Exception):
            raise Interrupted(self.asked) from error
