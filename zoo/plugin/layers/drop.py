"""Dropout that costs an eighth of the random numbers on a CPU."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from zoo.errors import InputError

STEPS: Final = 256
"""On a CPU, probabilities are rounded to this many steps: one random byte per element."""

_INT64: Final = torch.iinfo(torch.int64)


def cheap_dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability round(256 p)/256; scale the others to keep the mean.

    One random 64-bit integer serves eight elements, each byte being compared with the threshold:
    on a CPU, random numbers cost more than everything else in dropout.

    Args:
        x: any shape, float.
        p: probability, 0..1.

    Returns:
        The same shape and dtype.
    """
    dropped = round(p * STEPS)
    if dropped == 0:
        return x
    if dropped == STEPS:
        return x * 0.0
    words = torch.randint(_INT64.min, _INT64.max, ((x.numel() + 7) // 8,), dtype=torch.int64, device=x.device)
    noise = words.view(torch.uint8)[: x.numel()]
    # 0 below the threshold and 1 from it on, as bytes: a comparison's booleans are slow to make and slow to cast.
    kept = noise.clamp_(dropped - 1, dropped).sub_(dropped - 1)
    return x * _laid_out_as(x, kept).to(x.dtype).mul_(STEPS / (STEPS - dropped))


def _laid_out_as(x: Tensor, flat: Tensor) -> Tensor:
    """(N,) in the shape of x, and in its order in memory: a product of two layouts is several times slower."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        batch, channels, height, width = x.shape
        return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return flat.view(x.shape)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`cheap_dropout` on a CPU, torch's on other devices; the identity outside of training.

    Args:
        x: any shape, float.
        p: probability, 0..1.
        training: whether dropout is on.

    Returns:
        The same shape and dtype; `x` itself where nothing is dropped.
    """
    if not training or p == 0.0:
        return x
    return cheap_dropout(x, p) if x.device.type == "cpu" else F.dropout(x, p)


class Dropout(nn.Module):
    """`dropout` as a module.

    Args:
        p: probability that an element is dropped while training.

    Raises:
        InputError: p is outside of 0..1.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise InputError(f"dropout p must be between 0 and 1, given {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop while training: any shape, the same shape out."""
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"


def set_dropout(module: nn.Module, p: float) -> nn.Module:
    """Set every dropout of a module to the same probability, in place, without changing parameters.

    Args:
        module: any; its dropouts (torch's, which timm uses, and ours) are changed, and the attribute `dropout` of
            other modules, such as attention. Stochastic depth, which drops whole branches, is not changed.
        p: probability, 0..1.

    Returns:
        The same module.
    Raises:
        InputError: p is more than 0, and the module has no dropout.
    """
    has_dropout = p == 0.0
    for part in module.modules():
        if isinstance(part, Dropout | _DropoutNd):
            part.p, has_dropout = p, True
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout, has_dropout = p, True  # type: ignore[assignment]  # a float, seen above
    if not has_dropout:
        raise InputError(f"recipe.dropout = {p}: this model has no dropout layer; leave recipe.dropout out")
    return module


def use_cheap_dropout(model: nn.Module) -> nn.Module:
    """Replace each `nn.Dropout` inside a library's model by ours, in place.

    Args:
        model: any module; its state dict does not change.

    Returns:
        The same module.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
    return model
