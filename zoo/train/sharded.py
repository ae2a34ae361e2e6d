"""Helpers for tensors that are divided among processes (DTensors)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def is_divided(tensor: Any) -> bool:
    """Whether a parameter is divided among processes, without importing DTensor, which is slow."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The whole of a divided tensor, which every process must call together; any other tensor unchanged."""
    if not is_divided(tensor):
        return tensor
    gathered: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return gathered


def by_kind(average: Callable[..., None]) -> Callable[..., None]:
    """Make an averaging function (`multi_avg_fn`) work on lists that mix divided parameters and whole buffers."""

    def averaged(slow: Sequence[Tensor], fast: Sequence[Tensor], count: Any) -> None:
        if not is_divided(slow[0]):  # parameters come first
            return average(slow, fast, count)
        for kind in (True, False):
            pairs = [pair for pair in zip(slow, fast, strict=True) if is_divided(pair[0]) == kind]
            if pairs:
                average(*map(list, zip(*pairs, strict=True)), count)
        return None

    return averaged


def like(model: Tensor, value: Tensor) -> Tensor:
    """A copy of `value` in the memory layout of `model`; if `model` is divided, this process's part of it."""
    if not is_divided(model):
        return torch.empty_like(model, dtype=value.dtype).copy_(value)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(model, DTensor)
    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements, src_data_rank=None)
