"""Ctrl-C, SIGTERM, a closed terminal or a closed pipe stop a run; SIGUSR1 writes a checkpoint.

A second Ctrl-C or SIGTERM ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import Any

from zoo.base.streams import WatchedStream


class Interrupted(KeyboardInterrupt):
    """A signal arrived before there was anything to save; holds its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


HANGUP: int | None = getattr(signal, "SIGHUP", None)
PIPE = int(getattr(signal, "SIGPIPE", 13))


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

    def between_steps(self) -> int:
        """As calling it; and from the first time on, the run stops between two steps: it has begun to ask."""
        self.answer_between_steps()
        return self()

    def answer_between_steps(self) -> None:
        """From here on, let the run stop between two steps instead of raising."""
        self.graceful = True

    def stopped(self, number: int) -> None:
        """Remember the signal that stopped the run: of several processes, another one may have received it."""
        self.stopping = number

    def done(self) -> None:
        """From here on, let a signal raise again: there are no more steps."""
        self.graceful = False

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save = True

    def _reader_left(self) -> None:
        """Stop because the program or terminal that reads a stream is gone.

        Raises:
            BrokenPipeError: the run cannot stop between two steps yet.
        """
        if not self.graceful:
            raise BrokenPipeError
        if not self.stopping:
            self.stopping, self.since = PIPE, time.monotonic()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopping == PIPE:  # a closed terminal is noticed in both ways
            self.stopping = number
        elif self.stopping and number == HANGUP:
            return  # a shell repeats what the system has already sent
        elif self.stopping:
            if time.monotonic() - self.since >= self.patience:
                os._exit(128 + number)
        else:
            self._stop(number)

    def _stop(self, number: int) -> None:
        self.stopping, self.since = number, time.monotonic()
        if not self.graceful:
            self.raised = True
            raise Interrupted(number)

    def __enter__(self) -> StopRequests:
        """Install the handlers, and watch stdout and stderr."""
        handlers = {signal.SIGINT: self._handle, signal.SIGTERM: self._handle}
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = self._save
        if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:  # nohup: ignored
            handlers[signal.Signals(HANGUP)] = self._handle
        self.before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self.streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (WatchedStream(s, self._reader_left) if s else s for s in self.streams)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Restore the former handlers and streams.

        Raises:
            Interrupted: the handler raised it inside a library, which turned it into an error of its own; or the
                reader of a stream left before the run could stop between two steps.
        """
        sys.stdout, sys.stderr = self.streams
        for number, handler in self.before.items():
            if handler is not None:  # None: it was not installed from Python, and cannot be restored
                signal.signal(number, handler)
        if self.raised and isinstance(error, Exception):
            raise Interrupted(self.stopping) from error
        if isinstance(error, BrokenPipeError):
            raise Interrupted(PIPE) from error
