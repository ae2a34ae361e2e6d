"""Weights beside those that are trained: their running mean, and the slow ones of lookahead.

Both are torch's AveragedModel, buffers included: a mean of weights needs running statistics to suit.
Buffers that no mean can be taken of (whole numbers, masks of minus infinity) are the trained model's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zoo.catalogue.recipe import Lookahead, Recipe
from zoo.train.sharded import by_kind

Tensors = tuple[Tensor, ...] | list[Tensor]


class Averaging:
    """All averages of one run; without any, every method does nothing.

    Attributes:
        ema: the running mean, after each step (recipe.ema).
        slow: what the trained weights go back to every few steps (recipe.lookahead).
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        """Copy the module where the recipe averages."""
        self.module, self.lookahead, self.alpha = module, recipe.lookahead, 1.0
        self.longest = self.decay = recipe.ema
        self.ema = self.slow = None
        self.endless = [n for n, b in module.named_buffers() if not b.isfinite().all()]
        if recipe.ema:
            self.ema = AveragedModel(module, multi_avg_fn=by_kind(self._trail), use_buffers=True)
        if recipe.lookahead:
            self.slow = AveragedModel(module, multi_avg_fn=by_kind(self._follow), use_buffers=True)

    def begin(self) -> None:
        """Before the first step: the slow weights are where the fast ones are."""
        if self.slow is not None:
            self.slow.update_parameters(self.module)

    def update(self, step: int, total: int) -> None:
        """After step `step` (from 0) of `total`."""
        if self.slow is not None and self.lookahead is not None and (step + 1) % self.lookahead.every == 0:
            self.alpha = alpha_at(self.lookahead, step + 1, total)
            self._update(self.slow)
            _copy(self.slow.module, self.module)
        if self.ema is not None:
            self.decay = decay_at(self.longest, step)
            self._update(self.ema)

    def chosen(self) -> nn.Module:
        """The module to evaluate and keep: the mean, else the slow weights, else the trained ones."""
        if self.ema is not None:
            return self.ema.module
        return self.module if self.slow is None else self.slow.module

    def copies(self) -> list[nn.Module]:
        """All modules that are averages."""
        return [average.module for average in (self.ema, self.slow) if average is not None]

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        found = {"ema": self.ema, "slow": self.slow}
        return {name: dict(model.state_dict()) for name, model in found.items() if model is not None}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.slow is not None:
            self.slow.load_state_dict(state["slow"])

    def _update(self, average: AveragedModel) -> None:
        average.update_parameters(self.module)
        for name in self.endless:
            average.module.get_buffer(name).copy_(self.module.get_buffer(name))

    def _follow(self, slow: Tensors, fast: Tensors, count: Tensor | int) -> None:
        """torch's `multi_avg_fn`, called for the tensors of one type: alpha of the way."""
        del count
        if slow[0].is_floating_point():
            torch._foreach_lerp_(slow, fast, self.alpha)
        else:
            torch._foreach_copy_(slow, fast)

    def _trail(self, mean: Tensors, now: Tensors, count: Tensor | int) -> None:
        """torch's `multi_avg_fn`, called for the tensors of one type: its running mean, with this step's decay."""
        if mean[0].is_floating_point():
            get_ema_multi_avg_fn(self.decay)(mean, now, count)
        else:  # torch's would cut 2.9999998 down to 2
            torch._foreach_copy_(mean, now)


def decay_at(longest: float, done: int) -> float:
    """The running mean's decay after `done` steps: no more than lets it reach over a ninth of them.

    With a constant one a short run's mean is still made of its first weights; a long run ends with `longest`.

    Source:
        TensorFlow's ExponentialMovingAverage with `num_updates`: min(decay, (1 + n) / (10 + n)).
    """
    return min(longest, (1 + done) / (10 + done))


def alpha_at(rule: Lookahead, done: int, total: int) -> float:
    """The share of the way to the fast weights that the slow ones go after `done` of `total` steps.

    Source:
        Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (a constant); the fall from
        1 by a power of progress is Jordan's, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".
    """
    return 1.0 - (1.0 - rule.alpha) * (done / total) ** rule.power


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> None:
    for of_both in (nn.Module.parameters, nn.Module.buffers):
        for to, of in zip(of_both(target), of_both(source), strict=True):
            to.copy_(of)
