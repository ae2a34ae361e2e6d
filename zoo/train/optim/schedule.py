"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.catalogue.recipe import Recipe


def lr_at(recipe: Recipe, step: int, total: int, steps_per_epoch: int, group: Mapping[str, Any] | None = None) -> float:
    """The learning rate of step `step` (from 0) of `total`, without any state.

    Warm-up rises linearly over `warmup_epochs`; the schedule takes the rest. "onecycle" has the two phases of
    Smith and Topin (2018): from 0.04 of the peak it rises by a cosine over the first 30% of the steps (or the warm-up,
    if set), and falls by a cosine to `final_lr` at the last step. torch's OneCycleLR has the same phases, but
    its peak is one step earlier (at step 0.3 * total - 1), so that the two differ in a short run: with 14 steps by up
    to 18% of the peak.

    Args:
        group: the parameter group, which may have its own factor of the lr and its own last epoch.
    """
    share, epochs = (1.0, None) if group is None else (group.get("lr_share", 1.0), group.get("lr_epochs"))
    if epochs is not None:
        total = min(total, max(1, round(epochs * steps_per_epoch)))
        if step >= total:
            return 0.0
    return float(share * _scheduled(recipe, step, total, steps_per_epoch))


def set_rates(
    groups: Sequence[dict[str, Any]], recipe: Recipe, step: int, total: int, steps_per_epoch: int, *, rest: bool = False
) -> float:
    """Give each parameter group its learning rate at a step; returns that of a group without settings of its own.

    Args:
        groups: an optimizer's `param_groups`.
        rest: whether parameters whose group's last epoch is over need no gradients from now on. The backward pass then
            ends before a first layer that is trained no more, and weights are the same: a rate of 0 changes none (but
            "muon-sphere" rounded its matrices' norms at each step).
    """
    for group in groups:
        group["lr"] = lr_at(recipe, step, total, steps_per_epoch, group)
    if rest and any(_goes_on(group) for group in groups):
        for group in groups:
            if not _goes_on(group):
                for parameter in group["params"]:
                    parameter.requires_grad_(False)
    return lr_at(recipe, step, total, steps_per_epoch)


def _goes_on(group: Mapping[str, Any]) -> bool:
    return group.get("lr_epochs") is None or group["lr"] > 0


def _scheduled(recipe: Recipe, step: int, total: int, steps_per_epoch: int) -> float:
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    last = recipe.final_lr
    if recipe.schedule == "onecycle":
        rise = max(1, warmup or round(0.3 * total))
        if step < rise:
            return recipe.lr * (0.04 + 0.96 * _half_cosine(step / rise))
        return recipe.lr * (1 - (1 - last) * _half_cosine((step - rise) / max(1, total - 1 - rise)))
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if recipe.schedule == "cosine":
        return recipe.lr * (1 - (1 - last) * _half_cosine(done))
    if recipe.schedule == "linear":
        return recipe.lr * (1 - (1 - last) * min(1.0, done))
    return recipe.lr


def _half_cosine(x: float) -> float:
    """From 0 at x = 0 to 1 at x = 1, flat at both ends."""
    return 0.5 - 0.5 * math.cos(math.pi * min(1.0, max(0.0, x)))
