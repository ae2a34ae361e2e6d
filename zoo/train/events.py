"""The events of a training run, and the listeners that receive them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from zoo.train.plan import Plan


class Tick(NamedTuple):
    """The position of a run, sent a few times a second; `loss` and `top1` are means over the epoch so far.

    `lr` is the learning rate of the next step, `seconds` the time of the run so far. Of images with several labels,
    `top1` is the share of those whose labels are all right, and `figure` says so.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float
    images_per_second: float
    total_step: int
    total_steps: int
    lr: float = 0.0
    seconds: float = 0.0
    figure: str = "top-1"


class Listener:
    """Receives the events of a run; a subclass overrides the methods that it needs.

    Row keys of `epoch`: see `zoo.train.result.epoch_row`.
    """

    def start(self, plan: Plan, parameters: int) -> None:
        """Called before the first step."""

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Called after `start` if the run is resumed, with the rows of the finished epochs."""

    def tick(self, tick: Tick) -> None:
        """Called a few times a second, between steps."""

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Called after each epoch; `best`: its weights are the best so far; never if the recipe selects the last."""

    def end(self, result: dict[str, Any]) -> None:
        """Called after the result is written; with an empty table if the run ended before that."""
