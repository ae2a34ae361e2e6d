"""Parameter groups: the optimizer, learning rate and weight decay of each parameter."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from zoo.catalogue.recipe import Group, Recipe
from zoo.errors import SpecError
from zoo.train.optim.layerwise import layer_scales

KINDS = ("vectors", "matrices", "first", "last")

MUON_LEAVES = tuple(Group(match=kind, optimizer="adamw") for kind in ("vectors", "first", "last"))
"""The parameters that `muon` leaves to AdamW unless a rule of the recipe says otherwise, as Jordan advises."""


def parameter_groups(module: nn.Module, recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """The parameter groups of each optimizer in the recipe, divided by rule, weight decay and layer.

    With `decay = "matrices"`, there is no weight decay for vectors and scalars (norms, biases) and for the
    parameters that a submodule names in a method `no_weight_decay()` (position embeddings, tokens; timm's
    convention), unless a rule sets it for them.

    Raises:
        SpecError: the pattern of a rule matches no parameter, or an optimizer cannot train a parameter.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    spared, ends = set(_spared(module)), _ends(module)
    rules = (*recipe.groups, *(MUON_LEAVES if recipe.optimizer == "muon" else ()), Group(match="*"))
    _refuse_idle([name for name, _ in trained], recipe.groups)
    scales = layer_scales(module, recipe.layer_decay)
    by_settings: dict[tuple[int, float, float], list[Tensor]] = {}
    for name, parameter in trained:
        fits = (n for n, r in enumerate(rules) if _fits(r.match, name, parameter, spared, ends))
        number = next(fits)
        rule = rules[number]
        if (rule.optimizer or recipe.optimizer).startswith("muon") and not _is_matrix(parameter):
            raise SpecError(
                f"recipe.groups: {name} is not a matrix, and {recipe.optimizer} trains matrices only; add a rule "
                'for it: { match = "vectors", optimizer = "adamw", lr = ... }'
            )
        decay = recipe.weight_decay if rule.weight_decay is None else rule.weight_decay
        bare = parameter.ndim < 2 or name in spared
        if recipe.decay == "matrices" and rule.weight_decay is None and bare:
            decay = 0.0
        by_settings.setdefault((number, decay, scales.get(name, 1.0)), []).append(parameter)
    groups: dict[str, list[dict[str, Any]]] = {}
    for (number, decay, scale), parameters in sorted(
        by_settings.items(), key=lambda item: (item[0][0], -item[0][1], -item[0][2])
    ):
        rule = rules[number]
        group: dict[str, Any] = {"params": parameters, "weight_decay": decay} | _settings(rule, recipe, number)
        if scale != 1.0:
            group["lr_share"] = scale * group.get("lr_share", 1.0)
        groups.setdefault(rule.optimizer or recipe.optimizer, []).append(group)
    return groups


def _settings(rule: Group, recipe: Recipe, number: int) -> dict[str, Any]:
    """The settings that the rule of a group sets; empty if it sets none."""
    settings: dict[str, Any] = {}
    if rule.lr is not None:
        settings["lr_share"] = rule.lr / recipe.lr
    if rule.epochs is not None:
        settings["lr_epochs"] = rule.epochs
    if rule.momentum is not None:
        name = rule.optimizer or recipe.optimizer
        if name.startswith("adam"):
            raise SpecError(
                f"recipe.groups[{number}].momentum: {name} has no momentum; leave it out (recipe.betas sets its betas)"
            )
        settings["momentum"] = rule.momentum
    return settings


def _fits(match: str, name: str, parameter: Tensor, spared: set[str], ends: dict[str, set[str]]) -> bool:
    if match in ends:
        return name in ends[match]
    if match in KINDS:
        return (_is_matrix(parameter) and name not in spared) == (match == "matrices")
    return fnmatchcase(name, match)


def _is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter has rows and columns; a convolution kernel counts as (out, in * height * width)."""
    return parameter.ndim >= 2 and len(parameter) > 1 and parameter.numel() > len(parameter)


def _ends(module: nn.Module) -> dict[str, set[str]]:
    """The parameters of the first and the last layer, in the order of the module."""
    layers = [(n, m) for n, m in module.named_modules() if getattr(m, "weight", None) is not None]
    wide = [(n, m) for n, m in layers if isinstance(m.weight, Tensor) and m.weight.ndim >= 2]

    def parameters_of(which: int) -> set[str]:
        if not wide:
            return set()
        prefix, layer = wide[which]
        return {f"{prefix}.{n}" if prefix else n for n, _ in layer.named_parameters(recurse=False)}

    return {"first": parameters_of(0), "last": parameters_of(-1)}


def _refuse_idle(names: list[str], rules: tuple[Group, ...]) -> None:
    for number, rule in enumerate(rules):
        if rule.match not in KINDS and not any(fnmatchcase(name, rule.match) for name in names):
            raise SpecError(
                f"recipe.groups[{number}].match: {rule.match!r} matches no trained parameter; "
                f"allowed: {', '.join(KINDS)}, or a pattern of names such as {names[0] if names else 'head.*'!r}"
            )


def _spared(module: nn.Module) -> Iterator[str]:
    for prefix, child in module.named_modules():
        names = getattr(child, "no_weight_decay", None)
        if callable(names):
            yield from (f"{prefix}.{name}" if prefix else name for name in names())
