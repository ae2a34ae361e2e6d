"""Optimizers by name, parameter groups by rule, and the learning rate as a pure function of the step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.catalogue.recipe import Group, Recipe
from zoo.errors import SpecError
from zoo.train.optim.layerwise import layer_scales
from zoo.train.optim.muon import Muon
from zoo.train.optim.several import Several
from zoo.train.processes.world import is_divided, like

KNOWN = ("adam", "adamw", "sgd", "nesterov", "muon", "muon-sphere")
KINDS = ("vectors", "matrices", "first", "last")

MUON_LEAVES = tuple(Group(match=kind, optimizer="adamw") for kind in ("vectors", "first", "last"))
"""What `muon` leaves to AdamW where no rule of the recipe says otherwise: Jordan's advice."""


def lr_at(
    recipe: Recipe, step: int, total: int, steps_per_epoch: int, group: Mapping[str, Any] | None = None
) -> float:
    """The learning rate of step `step` (from 0) of `total`: nothing to save, nothing to drift.

    Warm-up rises linearly over `warmup_epochs`; the schedule takes the rest. "onecycle" rises over
    the first 30% (or the warm-up, if set) by a cosine and falls to `final_lr`, as in Smith and
    Topin (2018) in the two-phase form of torch's OneCycleLR.

    Args:
        group: the optimizer's group, where a rule made it: its share of the lr, and when it ends.
    """
    share, epochs = (1.0, None) if group is None else (group.get("lr_share", 1.0), group.get("lr_epochs"))
    if epochs is not None:
        total = min(total, max(1, round(epochs * steps_per_epoch)))
        if step >= total:
            return 0.0
    return float(share * _scheduled(recipe, step, total, steps_per_epoch))


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


# ---- parameter groups -----------------------------------------------------------------------


def parameter_groups(module: nn.Module, recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """The groups of each optimizer that the recipe names: by rule, by weight decay, and by layer.

    With `decay = "matrices"`, vectors and scalars (norms, biases) and what a submodule names in a
    method `no_weight_decay()` (position embeddings, tokens; timm's convention) have none, unless a
    rule sets it for them.

    Raises:
        SpecError: a rule's pattern that fits no parameter, or a parameter that its optimizer cannot take.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    spared, ends = set(_spared(module)), _ends(module)
    rules = (*recipe.groups, *(MUON_LEAVES if recipe.optimizer == "muon" else ()), Group(match="*"))
    _refuse_idle([name for name, _ in trained], recipe.groups)
    scales = layer_scales(module, recipe.layer_decay)
    found: dict[tuple[int, float, float], list[Tensor]] = {}
    for name, parameter in trained:
        fits = (n for n, r in enumerate(rules) if _fits(r.match, name, parameter, spared, ends))
        number = next(fits)
        rule = rules[number]
        if (rule.optimizer or recipe.optimizer).startswith("muon") and not _is_matrix(parameter):
            raise SpecError(
                f"recipe.groups: {name} is no matrix, which is all that {recipe.optimizer} trains; add a rule "
                'for it: { match = "vectors", optimizer = "adamw", lr = ... }'
            )
        decay = recipe.weight_decay if rule.weight_decay is None else rule.weight_decay
        bare = parameter.ndim < 2 or name in spared
        if recipe.decay == "matrices" and rule.weight_decay is None and bare:
            decay = 0.0
        found.setdefault((number, decay, scales.get(name, 1.0)), []).append(parameter)
    groups: dict[str, list[dict[str, Any]]] = {}
    for (number, decay, scale), parameters in sorted(
        found.items(), key=lambda item: (item[0][0], -item[0][1], -item[0][2])
    ):
        rule = rules[number]
        group: dict[str, Any] = {"params": parameters, "weight_decay": decay} | _own(rule, recipe, number)
        if scale != 1.0:
            group["lr_share"] = scale * group.get("lr_share", 1.0)
        groups.setdefault(rule.optimizer or recipe.optimizer, []).append(group)
    return groups


def _own(rule: Group, recipe: Recipe, number: int) -> dict[str, Any]:
    """What a group has of its own: nothing where the rule sets nothing, as in recipes without rules."""
    own: dict[str, Any] = {}
    if rule.lr is not None:
        own["lr_share"] = rule.lr / recipe.lr
    if rule.epochs is not None:
        own["lr_epochs"] = rule.epochs
    if rule.momentum is not None:
        name = rule.optimizer or recipe.optimizer
        if name.startswith("adam"):
            raise SpecError(f"recipe.groups[{number}].momentum: {name} has none (its betas are the recipe's)")
        own["momentum"] = rule.momentum
    return own


def _fits(match: str, name: str, parameter: Tensor, spared: set[str], ends: dict[str, set[str]]) -> bool:
    if match in ends:
        return name in ends[match]
    if match in KINDS:
        return (_is_matrix(parameter) and name not in spared) == (match == "matrices")
    return fnmatchcase(name, match)


def _is_matrix(parameter: Tensor) -> bool:
    """Whether it has rows and columns, as the kernels of a convolution do: (out, in * height * width)."""
    return parameter.ndim >= 2 and len(parameter) > 1 and parameter.numel() > len(parameter)


def _ends(module: nn.Module) -> dict[str, set[str]]:
    """The parameters of the first and the last layer, in the order in which the module has them."""
    layers = [(n, m) for n, m in module.named_modules() if getattr(m, "weight", None) is not None]
    wide = [(n, m) for n, m in layers if isinstance(m.weight, Tensor) and m.weight.ndim >= 2]

    def own(which: int) -> set[str]:
        if not wide:
            return set()
        prefix, layer = wide[which]
        return {f"{prefix}.{n}" if prefix else n for n, _ in layer.named_parameters(recurse=False)}

    return {"first": own(0), "last": own(-1)}


def _refuse_idle(names: list[str], rules: tuple[Group, ...]) -> None:
    for number, rule in enumerate(rules):
        if rule.match not in KINDS and not any(fnmatchcase(name, rule.match) for name in names):
            raise SpecError(
                f"recipe.groups[{number}].match: {rule.match!r} fits no trained parameter; "
                f"allowed: {', '.join(KINDS)}, or a pattern of names as {names[0] if names else 'head.*'!r}"
            )


def _spared(module: nn.Module) -> Iterator[str]:
    for prefix, child in module.named_modules():
        names = getattr(child, "no_weight_decay", None)
        if callable(names):
            yield from (f"{prefix}.{name}" if prefix else name for name in names())


# ---- optimizers -----------------------------------------------------------------------------


def make_optimizer(module: nn.Module, recipe: Recipe, device: torch.device) -> Optimizer:
    """The recipe's optimizers over the module's parameters, as one; fused where torch has it.

    Raises:
        SpecError: a name that neither torch nor timm knows, or a rule that does not suit the module.
    """
    groups = parameter_groups(module, recipe)
    parts = [_make(name, own, recipe, device) for name, own in groups.items()]
    return parts[0] if len(parts) == 1 else Several(parts)


def _make(name: str, groups: list[dict[str, Any]], recipe: Recipe, device: torch.device) -> Optimizer:
    divided = any(is_divided(p) for group in groups for p in group["params"])
    fused = device.type in ("cpu", "cuda", "mps") and not divided
    common: dict[str, Any] = {"lr": recipe.lr, "fused": fused}
    adam: dict[str, Any] = {"betas": recipe.betas, "eps": recipe.eps}
    if name == "adam":
        return torch.optim.Adam(groups, **common, **adam)
    if name == "adamw":
        return torch.optim.AdamW(groups, **common, **adam)
    if name in ("sgd", "nesterov"):
        return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=name == "nesterov", **common)
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
    """Any class of torch.optim that steps from gradients alone; it takes what it knows of the recipe."""
    kinds = {n: k for n, k in vars(torch.optim).items() if inspect.isclass(k) and issubclass(k, Optimizer)}
    usable = sorted(kinds.keys() - {"Optimizer", "LBFGS", "SparseAdam"})  # a closure; sparse gradients
    if name not in usable:
        raise _unknown(f"torch:{name}", f"; of torch: {', '.join(usable)}")
    offered = {"lr": recipe.lr, "momentum": recipe.momentum, "betas": recipe.betas, "eps": recipe.eps}
    try:
        return kinds[name](groups, **_taken(kinds[name], offered))
    except ValueError as error:
        raise SpecError(f"recipe.optimizer: torch:{name} cannot take these parameters: {error}") from None


def _taken(kind: Any, offered: dict[str, Any]) -> dict[str, Any]:
    """Of what is offered, what an optimizer's class takes in this form: one number, or as many."""

    def form(value: Any) -> int:
        return len(value) if isinstance(value, tuple) else 0

    known = inspect.signature(kind).parameters
    return {k: v for k, v in offered.items() if k in known and form(known[k].default) == form(v)}


def _from_timm(name: str, groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    """Any of timm's; betas and eps are the optimizer's own unless the recipe has others than a recipe's defaults."""
    import timm.optim

    if name not in timm.optim.list_optimizers():
        raise _unknown(f"timm:{name}", "; timm.optim.list_optimizers() has timm's")
    usual = Recipe()
    own = {k: v for k in ("betas", "eps") if (v := getattr(recipe, k)) != getattr(usual, k)}
    optimizer: Optimizer = timm.optim.create_optimizer_v2(
        groups,
        opt=name,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        **_taken(timm.optim.get_optimizer_class(name, bind_defaults=False), own),
    )
    return optimizer


def match_layout(optimizer: Optimizer) -> None:
    """Give restored moments the memory layout of their parameters, as they had when they were made."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = like(parameter, value)
