"""How a training is ended early: by Ctrl-C in a notebook, by a listener, or by whatever the caller asks.

A run stops between two steps, so that its checkpoint is exact. Only in an interactive session, or where the caller asks
for it, Ctrl-C is caught; in a script it stays Python's KeyboardInterrupt, which ends the training where it is: the
checkpoints that were written before stay.
"""

from __future__ import annotations

import builtins
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from zoo.train.events import Listener, Tick
from zoo.train.run_options import OnInterrupt

if TYPE_CHECKING:
    from zoo.train.plan import Plan


class Interrupt:
    """Asked before each step whether to stop: a signal's number, -1 to write only a checkpoint, or 0.

    Args:
        asked: asked as well; what it answers is passed on.
    """

    def __init__(self, asked: Callable[[], int] | None = None) -> None:
        self.asked = asked
        self.stopping = 0
        self.hears = False  # whether Ctrl-C is meant to stop the run, and not to raise
        self.graceful = False  # whether a run can stop between two steps; else Ctrl-C raises at once

    def __call__(self) -> int:
        """The number of the signal that stops the run, -1 (save) or 0."""
        return self.stopping or (self.asked() if self.asked is not None else 0)

    def answer_between_steps(self) -> None:
        """From here on, let the run stop between two steps instead of raising."""
        self.graceful = True
        ready = getattr(self.asked, "answer_between_steps", None)
        if ready is not None:
            ready()

    def stopped(self, number: int) -> None:
        """Remember the signal that stopped the run: of several processes, another one may have received it."""
        self.stopping = number
        tell = getattr(self.asked, "stopped", None)
        if tell is not None:
            tell(number)

    def done(self) -> None:
        """From here on, let Ctrl-C raise again: there are no more steps."""
        self.graceful = False
        done = getattr(self.asked, "done", None)
        if done is not None:
            done()

    def interrupted(self) -> None:
        """Ask to stop, as Ctrl-C does.

        Raises:
            KeyboardInterrupt: there is nothing to save yet, or it was asked before.
        """
        if not self.graceful or self.stopping:
            raise KeyboardInterrupt
        self.stopping = int(signal.SIGINT)

    def hearing(self, listener: Listener) -> Listener:
        """The listener; where Ctrl-C stops the run, a KeyboardInterrupt in the listener does so too."""
        return _Heard(listener, self) if self.hears else listener


@contextmanager
def catching(interrupt: Interrupt, how: OnInterrupt) -> Iterator[None]:
    """Let Ctrl-C stop the run between two steps, and restore its former handler; a second Ctrl-C raises at once."""
    interrupt.hears = how == "stop" or (how == "auto" and is_interactive())
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not interrupt.hears or not default or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        interrupt.interrupted()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def is_interactive() -> bool:
    """Whether somebody types into this process: Python's prompt, IPython, a notebook."""
    return hasattr(sys, "ps1") or hasattr(builtins, "get_ipython")


class _Heard(Listener):
    """Passes events on; a KeyboardInterrupt in between becomes a request to stop."""

    def __init__(self, listener: Listener, interrupt: Interrupt) -> None:
        self.listener, self.interrupt = listener, interrupt

    @contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.interrupt.interrupted()

    def start(self, plan: Plan, parameters: int) -> None:
        """Pass it on."""
        with self._heard():
            self.listener.start(plan, parameters)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Pass it on."""
        with self._heard():
            self.listener.resumed(rows)

    def tick(self, tick: Tick) -> None:
        """Pass it on."""
        with self._heard():
            self.listener.tick(tick)

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Pass it on."""
        with self._heard():
            self.listener.epoch(row, best)

    def end(self, result: dict[str, Any]) -> None:
        """Pass it on."""
        self.listener.end(result)
