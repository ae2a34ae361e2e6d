"""The position of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Position:
    """The counters and clocks of a run: all of its state that is neither a tensor nor derived.

    Attributes:
        left_out: skipped steps of this epoch. stale: epochs since the best one.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    images: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_epoch: int = 0
    best_score: float = -math.inf
    stale: int = 0
    left_out: int = 0
