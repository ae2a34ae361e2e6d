"""Selects the epoch whose weights are kept, and decides on early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.catalogue.recipe import SELECTED_BY, Recipe
from zoo.evaluate.one_pass import Figures
from zoo.train.position import Position


class Selection:
    """The best epoch so far, by the recipe's rule `select`.

    Attributes:
        weights: the selected weights, on the CPU; empty before the first epoch.
        file: the file name of these weights in the folder of checkpoints; None: not written yet.
        shown: whether the run's weights file is known to hold these weights. After an interruption it may hold later
            ones: those of an epoch that no checkpoint knows, and that may not come again.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.rule, self.patience = recipe.select, recipe.patience
        self.weights: dict[str, Tensor] = {}
        self.file: str | None = None
        self.shown = False

    def is_better(self, at: Position, metrics: Figures) -> bool:
        """Whether the epoch that just ended is the best so far; if so, `at` is updated."""
        score = float(at.epoch if self.rule == "last" else getattr(metrics, SELECTED_BY[self.rule]))
        score = -math.inf if math.isnan(score) else -score if self.rule == "loss" else score
        if at.best_epoch and score <= at.best_score:
            at.stale += 1
            return False
        at.best_score, at.best_epoch, at.stale = score, at.epoch, 0
        return True

    def keep(self, weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of these weights as the selected ones."""
        self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
        self.file, self.shown = None, False

    def is_over(self, at: Position) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return 0 < self.patience <= at.stale

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the selection from the state of a checkpoint."""
        self.weights, self.file, self.shown = state.get("best_weights", {}), state["best"], False
