"""Optimizers by name: ours, torch's and timm's."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.catalogue.recipe import Recipe
from zoo.errors import SpecError
from zoo.train.optim.groups import parameter_groups
from zoo.train.optim.muon import Muon
from zoo.train.optim.several import Several
from zoo.train.optim.without_compiler import without_compiler
from zoo.train.sharded import is_divided, like

KNOWN = ("adam", "adamw", "sgd", "nesterov", "muon", "muon-sphere")


def make_optimizer(module: nn.Module, recipe: Recipe, device: torch.device) -> Optimizer:
    """The recipe's optimizers over the module's parameters, as one; fused if torch supports it.

    Raises:
        SpecError: an unknown optimizer, or a rule that does not suit the module.
    """
    groups = parameter_groups(module, recipe)
    parts = [_make(name, its_groups, recipe, device) for name, its_groups in groups.items()]
    return parts[0] if len(parts) == 1 else Several(parts)


def _make(name: str, groups: list[dict[str, Any]], recipe: Recipe, device: torch.device) -> Optimizer:
    divided = any(is_divided(p) for group in groups for p in group["params"])
    fused = device.type in ("cpu", "cuda", "mps") and not divided
    common: dict[str, Any] = {"lr": recipe.lr, "fused": fused}
    adam: dict[str, Any] = {"betas": recipe.betas, "eps": recipe.eps}
    if name == "adam":
        return without_compiler(torch.optim.Adam)(groups, **common, **adam)
    if name == "adamw":
        return without_compiler(torch.optim.AdamW)(groups, **common, **adam)
    if name in ("sgd", "nesterov"):
        nesterov = name == "nesterov"
        if nesterov and recipe.momentum == 0:
            raise SpecError("recipe.momentum is 0, and nesterov looks ahead by it; set recipe.momentum, or take sgd")
        return without_compiler(torch.optim.SGD)(groups, momentum=recipe.momentum, nesterov=nesterov, **common)
    if name in ("muon", "muon-sphere"):
        return Muon(groups, lr=recipe.lr, momentum=recipe.momentum, sphere=name == "muon-sphere")
    library, _, theirs = name.partition(":")
    if library == "torch":
        return _from_torch(theirs, groups, recipe)
    if library == "timm":
        return _from_timm(theirs, groups, recipe)
    raise _unknown(name, "")


def _unknown(name: str, hint: str) -> SpecError:
    allowed = ", ".join((*KNOWN, "torch:NAME", "timm:NAME"))
    return SpecError(f"recipe.optimizer: no optimizer named {name!r}; allowed: {allowed}{hint}")


def _from_torch(name: str, groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    """An optimizer of torch.optim that needs gradients only, with those settings of the recipe that it accepts."""
    kinds = {n: k for n, k in vars(torch.optim).items() if inspect.isclass(k) and issubclass(k, Optimizer)}
    usable = sorted(kinds.keys() - {"Optimizer", "LBFGS", "SparseAdam"})  # they need a closure, or sparse gradients
    if name not in usable:
        raise _unknown(f"torch:{name}", f"; torch has: {', '.join(usable)}")
    if "weight_decay" not in inspect.signature(kinds[name]).parameters and any(g["weight_decay"] for g in groups):
        raise SpecError(f"recipe.optimizer: torch:{name} has no weight decay; set recipe.weight_decay to 0")
    offered = {"lr": recipe.lr, "momentum": recipe.momentum, "betas": recipe.betas, "eps": recipe.eps}
    try:
        return without_compiler(kinds[name])(groups, **_accepted(kinds[name], offered))
    except ValueError as error:
        raise SpecError(f"recipe.optimizer: torch:{name} cannot take these parameters: {error}") from None


def _accepted(kind: Any, offered: dict[str, Any]) -> dict[str, Any]:
    """The offered settings that an optimizer's class accepts in this form (a number, or that many numbers)."""

    def form(value: Any) -> int:
        return len(value) if isinstance(value, tuple) else 0

    known = inspect.signature(kind).parameters
    return {k: v for k, v in offered.items() if k in known and form(known[k].default) == form(v)}


def _from_timm(name: str, groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    """An optimizer of timm; betas and eps are its own defaults unless the recipe changes them."""
    import timm.optim

    if name not in timm.optim.list_optimizers():
        raise _unknown(f"timm:{name}", "; timm.optim.list_optimizers() lists timm's")
    if timm.optim.get_optimizer_info(name).second_order:
        raise SpecError(f"recipe.optimizer: timm:{name} needs gradients of gradients, which a step does not compute")
    defaults = Recipe()
    changed = {k: v for k in ("betas", "eps") if (v := getattr(recipe, k)) != getattr(defaults, k)}
    optimizer: Optimizer = timm.optim.create_optimizer_v2(
        groups,
        opt=name,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        **_accepted(timm.optim.get_optimizer_class(name, bind_defaults=False), changed),
    )
    return optimizer


def match_layout(optimizer: Optimizer) -> None:
    """Give restored moments the memory layout of their parameters, which they had originally."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = like(parameter, value)
