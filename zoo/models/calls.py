"""How a module is called: as it is, or by torch to record or to transform what it computes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual


def is_on_cpu(x: Tensor) -> bool:
    """Whether numbers on a CPU are given; what stands for them while torch.fx traces a module has no place."""
    return isinstance(x, Tensor) and x.device.type == "cpu"


def is_recorded() -> bool:
    """Whether torch records what is computed, to compile, export or save it."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed(*tensors: Tensor) -> bool:
    """Whether torch.func, or forward-mode differentiation, computes with tensors."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or any(unpack_dual(t).tangent is not None for t in tensors)
