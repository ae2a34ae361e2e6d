"""Signals: Ctrl-C and SIGTERM stop a run, a second one ends the process at once; SIGUSR1 writes a checkpoint."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal arrived before there was anything to save; holds its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopRequests:
    """Records the signals that arrived; calling it returns the stopping signal's number, -1 (save), or 0."""

    def __init__(self) -> None:
        self.stopping = 0  # the number of the signal that asked to stop
        self.save = False
        self.patience = 0.0  # seconds in which a second signal counts as the launcher's copy of the first
        self.since = 0.0
        self.raised = False
        self.graceful = False  # whether a run can stop between two steps; else a signal raises at once

    def __call__(self) -> int:
        """The number of the stopping signal, -1 once after SIGUSR1, or 0."""
        if self.save and not self.stopping:
            self.save = False
            return -1
        return self.stopping

    def answer_between_steps(self) -> None:
        """From here on, let the run stop between two steps instead of raising."""
        self.graceful = True

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            if time.monotonic() - self.since >= self.patience:
                os._exit(128 + number)
            return
        self.stopping, self.since = number, time.monotonic()
        if not self.graceful:
            self.raised = True
            raise Interrupted(number)

    def __enter__(self) -> StopRequests:
        """Install the handlers."""
        handlers = {signal.SIGINT: self._handle, signal.SIGTERM: self._handle}
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = self._save
        self.before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Restore the former handlers.

        Raises:
            Interrupted: the handler raised it inside a library, which turned it into an error of its own.
        """
        for number, handler in self.before.items():
            if handler is not None:  # None: it was not installed from Python, and cannot be restored
                signal.signal(number, handler)
        if self.raised and isinstance(error, Exception):
            raise Interrupted(self.stopping) from error
