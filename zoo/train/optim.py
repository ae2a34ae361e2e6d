"""Optimizers by name, parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from zoo.errors import SpecError
from zoo.spec import Recipe

KNOWN = ("adam", "adamw", "sgd", "nesterov", "muon")


def lr_at(recipe: Recipe, step: int, total: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step` (from 0) of `total`: nothing to save, nothing to drift.

    Warm-up rises linearly over `warmup_epochs`; the schedule takes the rest. "onecycle" rises over
    the first 30% (or the warm-up, if set) by a cosine and falls to `final_lr`, as in Smith and
    Topin (2018) in the two-phase form of torch's OneCycleLR.
    """
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


def parameter_groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters by weight decay.

    With `decay = "matrices"`, vectors and scalars (norms, biases) and what a submodule names in a
    method `no_weight_decay()` (position embeddings, tokens; timm's convention) have none.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if recipe.decay == "all" or recipe.weight_decay == 0:
        return [{"params": [p for _, p in trained], "weight_decay": recipe.weight_decay}]
    spared = set(_spared(module))
    without = [p for name, p in trained if p.ndim < 2 or name in spared]
    with_decay = [p for name, p in trained if not (p.ndim < 2 or name in spared)]
    groups = [(with_decay, recipe.weight_decay), (without, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def _spared(module: nn.Module) -> Iterator[str]:
    for prefix, child in module.named_modules():
        names = getattr(child, "no_weight_decay", None)
        if callable(names):
            yield from (f"{prefix}.{name}" if prefix else name for name in names())


def make_optimizer(module: nn.Module, recipe: Recipe, device: torch.device) -> Optimizer:
    """The recipe's optimizer over the module's parameters; fused where torch has it.

    Raises:
        SpecError: a name that neither torch nor timm knows.
    """
    groups = parameter_groups(module, recipe)
    fused = device.type in ("cpu", "cuda", "mps")
    common: dict[str, Any] = {"lr": recipe.lr, "fused": fused}
    adam: dict[str, Any] = {"betas": recipe.betas, "eps": recipe.eps}
    name = recipe.optimizer
    if name == "adam":
        return torch.optim.Adam(groups, **common, **adam)
    if name == "adamw":
        return torch.optim.AdamW(groups, **common, **adam)
    if name in ("sgd", "nesterov"):
        return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=name == "nesterov", **common)
    return _from_timm(groups, recipe)


def _from_timm(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    import timm.optim

    name = recipe.optimizer.removeprefix("timm:")
    known = timm.optim.list_optimizers()
    if name not in known or (name == recipe.optimizer and name != "muon"):
        allowed = ", ".join((*KNOWN, "timm:NAME"))
        raise SpecError(f"recipe.optimizer: no optimizer named {recipe.optimizer!r}; allowed: {allowed}")
    optimizer: Optimizer = timm.optim.create_optimizer_v2(
        groups, opt=name, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
    )
    return optimizer
