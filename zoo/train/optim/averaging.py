"""Averages of the trained weights: an exponential moving average, and the slow weights of lookahead.

Both are torch's AveragedModel, including buffers, because averaged weights need matching running statistics.
Buffers that cannot be averaged (integers, masks of minus infinity) are copied from the trained model.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zoo.catalogue.recipe import Lookahead, Recipe
from zoo.train.sharded import by_kind

Tensors = tuple[Tensor, ...] | list[Tensor]


class Averaging:
    """All averages of one run; if the recipe has none, every method does nothing.

    Attributes:
        ema: the moving average, updated after each step (recipe.ema).
        slow: the slow weights, to which the trained weights return every few steps (recipe.lookahead).
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        """Copy the module once for each average of the recipe."""
        self.module, self.lookahead, self.alpha = module, recipe.lookahead, 1.0
        self.longest = self.decay = recipe.ema
        self.ema = self.slow = None
        self.endless = [n for n, b in module.named_buffers() if not b.isfinite().all()]
        if recipe.ema:
            self.ema = AveragedModel(module, multi_avg_fn=by_kind(self._trail), use_buffers=True)
        if recipe.lookahead:
            self.slow = AveragedModel(module, multi_avg_fn=by_kind(self._follow), use_buffers=True)

    def begin(self) -> None:
        """Set the slow weights to the trained ones, before the first step."""
        if self.slow is not None:
            self.slow.update_parameters(self.module)

    def update(self, step: int, total: int) -> None:
        """Update the averages after step `step` (from 0) of `total`."""
        if self.slow is not None and self.lookahead is not None and (step + 1) % self.lookahead.every == 0:
            self.alpha = alpha_at(self.lookahead, step + 1, total)
            self._update(self.slow)
            _copy(self.slow.module, self.module)
        if self.ema is not None:
            self.decay = decay_at(self.longest, step)
            self._update(self.ema)

    def chosen(self) -> nn.Module:
        """The module to evaluate and save: the moving average, else the slow weights, else the trained ones."""
        if self.ema is not None:
            return self.ema.module
        return self.module if self.slow is None else self.slow.module

    def copies(self) -> list[nn.Module]:
        """The modules of all averages."""
        return [average.module for average in (self.ema, self.slow) if average is not None]

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint must contain."""
        averages = {"ema": self.ema, "slow": self.slow}
        return {name: dict(model.state_dict()) for name, model in averages.items() if model is not None}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.slow is not None:
            self.slow.load_state_dict(state["slow"])

    @torch.no_grad()
    def _update(self, average: AveragedModel) -> None:
        """As `AveragedModel.update_parameters`, which copies its count to the device and so waits for a GPU."""
        merge = average.multi_avg_fn
        if average.n_averaged == 0 or merge is None:
            average.update_parameters(self.module)
        else:
            kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
            for mean, now in zip(_tensors(average.module), _tensors(self.module), strict=True):
                means, nows = kinds.setdefault(mean.dtype, ([], []))
                means.append(mean.detach())
                nows.append(now.detach())
            for means, nows in kinds.values():
                merge(means, nows, average.n_averaged)
            average.n_averaged += 1
        for name in self.endless:
            average.module.get_buffer(name).copy_(self.module.get_buffer(name))

    def _follow(self, slow: Tensors, fast: Tensors, count: Tensor | int) -> None:
        """A `multi_avg_fn` for tensors of one type: move the slow weights towards the fast ones by alpha."""
        del count
        if slow[0].is_floating_point():
            torch._foreach_lerp_(slow, fast, self.alpha)
        else:
            torch._foreach_copy_(slow, fast)

    def _trail(self, mean: Tensors, now: Tensors, count: Tensor | int) -> None:
        """A `multi_avg_fn` for tensors of one type: torch's moving average with the decay of this step."""
        if mean[0].is_floating_point():
            get_ema_multi_avg_fn(self.decay)(mean, now, count)
        else:  # torch's average would truncate 2.9999998 to 2
            torch._foreach_copy_(mean, now)


def decay_at(longest: float, done: int) -> float:
    """The decay of the moving average after `done` steps: small at first, and at most `longest`.

    With a constant decay, the average of a short run would still contain its initial weights.

    Source:
        TensorFlow's ExponentialMovingAverage with `num_updates`: min(decay, (1 + n) / (10 + n)).
    """
    return min(longest, (1 + done) / (10 + done))


def alpha_at(rule: Lookahead, done: int, total: int) -> float:
    """The fraction of the way by which the slow weights move to the fast ones after `done` of `total` steps.

    Source:
        Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (a constant); the fall from
        1 by a power of progress is Jordan's, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".
    """
    return 1.0 - (1.0 - rule.alpha) * (done / total) ** rule.power


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Its parameters and buffers."""
    return chain(module.parameters(), module.buffers())


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> None:
    for to, value in zip(_tensors(target), _tensors(source), strict=True):
        to.copy_(value)
