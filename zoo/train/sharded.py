"""Tensors that are divided among processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def is_divided(tensor: Any) -> bool:
    """Whether a parameter is divided among processes: a DTensor, whose module is slow to import."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The whole of a divided tensor, for which every process must ask; any other as it is."""
    if not is_divided(tensor):
        return tensor
    gathered: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return gathered


def by_kind(average: Callable[..., None]) -> Callable[..., None]:
    """torch's `multi_avg_fn`, for divided parameters and whole buffers in one list as well."""

    def averaged(slow: Sequence[Tensor], fast: Sequence[Tensor], count: Any) -> None:
        if not is_divided(slow[0]):  # parameters come first
            return average(slow, fast, count)
        for kind in (True, False):
            own = [pair for pair in zip(slow, fast, strict=True) if is_divided(pair[0]) == kind]
            if own:
                average(*map(list, zip(*own, strict=True)), count)
        return None

    return averaged


def like(own: Tensor, value: Tensor) -> Tensor:
    """A copy of `value` in the memory layout of `own`; this process's part, where `own` is divided."""
    if not is_divided(own):
        return torch.empty_like(own, dtype=value.dtype).copy_(value)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(own, DTensor)
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
