"""Freezing: which parameters are not trained, and which layer gives the logits."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from zoo.errors import InputError, SpecError
from zoo.train.optim.layerwise import innermost, layers


def freeze(module: nn.Module, what: str | tuple[str, ...]) -> nn.Module:
    """Exclude parameters from training, in place, and freeze the running statistics of norms among them.

    A norm with such statistics is put into eval mode if none of its parameters is trained (if it has no
    parameters: if nothing in the module around it is trained).

    Args:
        what: the key `freeze` of a recipe.
    Returns:
        The same module.
    Raises:
        SpecError: a pattern matches nothing, or nothing is left to train.
    """
    if what == "none" or what == ():
        return module
    frozen = _chosen(module, what)
    parameters = dict(module.named_parameters())
    if not frozen < parameters.keys():
        raise SpecError(f"recipe.freeze = {what!r} leaves nothing to train; freeze fewer parameters")
    for name in frozen:
        parameters[name].requires_grad_(False)
    for name, part in module.named_modules():
        if isinstance(part, _NormBase) and part.track_running_stats and not is_trained(module, name):
            part.eval()
    return module


def _chosen(module: nn.Module, what: str | tuple[str, ...]) -> set[str]:
    names = [name for name, _ in module.named_parameters()]
    if what == "all-but-last":
        return set(names) - logits_layer(module)
    if what == "backbone":
        numbers = layers(module)
        last = max(numbers.values(), default=0)
        return {name for name in names if numbers.get(name, last) < last}
    for pattern in what:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SpecError(f"recipe.freeze: {pattern!r} matches no parameter; names look like {names[0]!r}")
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in what)}


def logits_layer(module: nn.Module) -> set[str]:
    """The parameters of the output layer: timm's classifier (or classifiers), else the last matrix layer."""
    parts = classifiers_of(innermost(module)[0])
    if not any(True for part in parts for _ in part.parameters()):
        wide = [m for m in module.modules() if isinstance(w := getattr(m, "weight", None), Tensor) and w.ndim > 1]
        parts = wide[-1:]
    chosen = {id(p) for part in parts for p in part.parameters()}
    return {name for name, p in module.named_parameters() if id(p) in chosen}


def classifiers_of(module: nn.Module) -> list[nn.Module]:
    """What gives the logits of a module that answers timm's conventions; empty where it does not know."""
    try:
        heads: object = getattr(module, "get_classifier", tuple)()
    except InputError:  # the head of a tree may end with a convolution
        return []
    return [head for head in (heads if isinstance(heads, tuple | list) else (heads,)) if isinstance(head, nn.Module)]


def is_trained(module: nn.Module, name: str) -> bool:
    """Whether anything is trained of a part, or, where it has no parameters, of the nearest one around it."""
    while True:
        parameters = list(module.get_submodule(name).parameters())
        if parameters or not name:
            return any(p.requires_grad for p in parameters)
        name = name.rpartition(".")[0]
