"""Gradient checkpointing: blocks keep their input only, and are computed a second time for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from zoo.errors import SpecError
from zoo.models.compose import copies_its_input


def segments(module: nn.Module) -> list[nn.Module]:
    """The blocks of a model: what stands in a list of blocks (nn.Sequential, nn.ModuleList), the deepest ones.

    A block has parameters and modules of its own, and no list of blocks inside of it.
    """
    found: list[nn.Module] = []
    for child in module.children():
        inside = segments(child)
        listed = isinstance(module, nn.Sequential | nn.ModuleList)
        is_block = listed and any(True for _ in child.children()) and any(True for _ in child.parameters())
        found += inside or ([child] if is_block else [])
    return found


def recomputed(module: nn.Module, wanted: bool = True) -> nn.Module:
    """Let the blocks of a module keep less memory in training: what they computed is computed again when it is needed.

    Gradients are the same to the bit: random numbers are drawn again from the same state, and running statistics of
    batch norms are updated once. In evaluation nothing changes. The names in the state stay.

    Args:
        module: changed in place, and returned. wanted: False leaves it as it is.
    Raises:
        SpecError: it has no list of blocks.
    Source:
        Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016.
    """
    found = list(dict.fromkeys(segments(module))) if wanted else []
    if wanted and not found:
        raise SpecError(
            "recipe.checkpointing: this model has no list of blocks (nn.Sequential or nn.ModuleList) to compute again; "
            "leave it out, or split each batch with recipe.accumulate"
        )
    for block in found:
        block.__class__ = _kind(type(block))
    return module


def _kind(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of a block whose forward pass is computed again."""

    def forward(self: nn.Module, *args: Any, **options: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return kind.forward(self, *args, **options)
        may_write = copies_its_input(self) or any(getattr(m, "inplace", False) for m in self.modules())

        def run(*inputs: Any, **more: Any) -> Any:
            # What a block writes to its input must not be there when it is computed again.
            kept = [x.clone() if may_write and isinstance(x, torch.Tensor) else x for x in inputs]
            return kind.forward(self, *kept, **more)

        return checkpoint(run, *args, use_reentrant=False, context_fn=lambda: _contexts(self), **options)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Of the first computation, and of the second."""
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norms normalise as before, and leave their running statistics as they are."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    before = [(n.momentum, None if n.num_batches_tracked is None else n.num_batches_tracked.clone()) for n in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
