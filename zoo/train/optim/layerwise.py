"""The layers of a model from the images to the logits, for layer-wise learning rates.

Layer 0 is nearest to the images, and the last one is the head. If a model has timm's `group_matcher`, timm
defines its layers; torchvision's models and our trees are read part by part, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

STACK_SHARE = 0.8
"""A part with a sequence of blocks is read block by block if they have this share of its parameters."""


def layers(module: nn.Module) -> dict[str, int]:
    """The layer number of each parameter, by the parameter's name."""
    inner, prefix = innermost(module)
    if callable(getattr(inner, "group_matcher", None)):
        from timm.models import group_parameters

        numbers = group_parameters(inner, inner.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
        last = max(numbers.values(), default=0)
        return {prefix + name: numbers.get(name, last) for name, _ in inner.named_parameters()}
    units = _units(inner)
    names = {name for name, _ in inner.named_parameters()}
    return {prefix + name: number for number, unit in enumerate(units) for name in unit if name in names}


def layer_scales(module: nn.Module, decay: float) -> dict[str, float]:
    """The factor of the lr for each parameter: `decay` to the power of its distance from the head in layers.

    Returns:
        The factor by the parameter's name; empty if `decay` is 1.
    Source:
        Bao et al., "BEiT" (layer-wise lr decay); for timm's models the same shares as timm's own
        `param_groups_layer_decay`.
    """
    if decay == 1.0:
        return {}
    numbers = layers(module)
    last = max(numbers.values(), default=0)
    return {name: decay ** (last - number) for name, number in numbers.items()}


# ---- part by part -------------------------------------------------------------------------------


def _units(module: nn.Module) -> list[list[str]]:
    """Names of parameters, layer by layer; norms and single parameters go with the layer before them."""
    units: list[list[str]] = []
    loose: list[str] = []
    for names, is_wide in _parts(module, "", root=True, stacked=False):
        if is_wide:
            units.append(loose + names if not units else names)
        else:
            (units[-1] if units else loose).extend(names)
    return units or [loose]


def _parts(module: nn.Module, prefix: str, *, root: bool, stacked: bool) -> Iterator[tuple[list[str], bool]]:
    direct = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    if direct:
        yield direct, False
    children = _with_parameters(module)
    for name, child in children:
        path = f"{prefix}{name}."
        is_head = root and child is children[-1][1]
        if not is_head and _is_divided(child, root, stacked):
            inside = stacked or isinstance(child, nn.Sequential | nn.ModuleList)
            yield from _parts(child, path, root=False, stacked=inside)
        else:
            wide = any(p.ndim > 1 for p in child.parameters())
            yield [path + n for n, _ in child.named_parameters()], wide


def _is_divided(part: nn.Module, top: bool, stacked: bool) -> bool:
    """Whether a part is several layers: a sequence of blocks, or a module with little else."""
    members = _with_parameters(part)
    blocks = [child for _, child in members if _with_parameters(child)]
    if isinstance(part, nn.Sequential | nn.ModuleList):
        return top or bool(blocks)
    if stacked:  # a block is one layer
        return False
    size = sum(p.numel() for p in part.parameters())
    stacks = [c for _, c in members if isinstance(c, nn.Sequential | nn.ModuleList)]
    if len(stacks) != 1:  # parallel branches are one layer
        return False
    composite = sum(bool(_with_parameters(child)) for _, child in _with_parameters(stacks[0]))
    return composite > 1 and sum(p.numel() for p in stacks[0].parameters()) >= STACK_SHARE * size


def _with_parameters(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, child) for n, child in module.named_children() if next(child.parameters(), None) is not None]


def innermost(module: nn.Module) -> tuple[nn.Module, str]:
    """The module, or the only module that it wraps, and the prefix of that module's names."""
    prefix = ""
    while not callable(getattr(module, "group_matcher", None)):
        children = _with_parameters(module)
        if len(children) != 1 or next(module.parameters(recurse=False), None) is not None:
            break
        prefix, module = f"{prefix}{children[0][0]}.", children[0][1]
    return module, prefix
