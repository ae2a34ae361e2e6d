"""What a training run tells those who watch it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from zoo.train.plan import Plan


class Tick(NamedTuple):
    """Where a run is, told a few times a second: `loss` and `top1` are of the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float
    images_per_second: float
    total_step: int
    total_steps: int


class Listener:
    """Watches a run; every method may be left as it is.

    Row keys of `epoch`: see `zoo.train.loop`.
    """

    def start(self, plan: Plan, parameters: int) -> None:
        """The first step is about to be taken."""

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """The run goes on: the rows of the epochs that ended before."""

    def tick(self, tick: Tick) -> None:
        """Some steps were taken."""

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """An epoch ended; `best`: its weights are the selected ones so far."""

    def end(self, result: dict[str, Any]) -> None:
        """The run ended and its result is written."""
