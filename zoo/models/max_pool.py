"""Max pooling by whole rows, where channels come first: torch's own kernel is slow at it on a CPU."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zoo.models.calls import is_on_cpu, is_recorded, is_transformed


class RowMaxPool2d(nn.MaxPool2d):
    """A max pool that takes the largest of whole rows first, then of their columns.

    The numbers are torch's, to the bit. Where a gradient is needed, this is done for squares of 2x2 alone, whose
    gradient goes to the first of equal pixels, as torch's (its zeros may be negative). Everywhere else it is
    `nn.MaxPool2d`: on a GPU, where channels come last, where the network is compiled or exported, and under torch.func
    and forward-mode differentiation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), float, to (B, C, H', W'), as `nn.MaxPool2d`."""
        here = is_on_cpu(x) and x.dim() == 4 and x.is_contiguous() and x.is_floating_point()
        if not here or x.numel() == 0 or is_recorded() or is_transformed(x):
            return super().forward(x)
        sides = [_pair(side) for side in (self.kernel_size, self.stride, self.padding)]
        if not (x.requires_grad and torch.is_grad_enabled()):
            fits = all(size + 2 * pad >= kernel for size, kernel, _, pad in zip(x.shape[2:], *sides, strict=True))
            return _of_rows(x, *sides) if fits else super().forward(x)
        halved = sides == [(2, 2), (2, 2), (0, 0)] and x.shape[2] % 2 == x.shape[3] % 2 == 0
        return _Halved.apply(x) if halved else super().forward(x)


def _of_rows(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    if any(padding):
        high, wide = padding
        x = F.pad(x, (wide, wide, high, high), value=-math.inf)
    for dim in (2, 3):  # rows first: what is compared lies side by side
        wanted, step = kernel[dim - 2], stride[dim - 2]
        count = (x.shape[dim] - wanted) // step + 1
        index: list[slice] = [slice(None)] * dim
        parts = [x[(*index, slice(first, first + step * (count - 1) + 1, step))] for first in range(wanted)]
        x = reduce(torch.maximum, parts)
    return x.contiguous()


class _Halved(torch.autograd.Function):
    """The largest of each 2x2 pixels of a map of even sides; the gradient is for the first of equal ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _of_rows(x, (2, 2), (2, 2), (0, 0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        above, below = x[:, :, ::2], x[:, :, 1::2]
        largest = torch.maximum(above, below)
        in_above = torch.ge(above, below, out=torch.empty_like(largest))  # 1 or 0, of each column
        left, right = (largest[..., side::2].contiguous() for side in (0, 1))
        first_left, first_right = (in_above[..., side::2].contiguous() for side in (0, 1))
        # Of equal columns the right one has the first pixel where its largest is above and the left one's below.
        later = torch.eq(left, right, out=torch.empty_like(left)).mul_(first_right)
        later.addcmul_(later, first_left, value=-1)
        is_left = torch.ge(left, right, out=left).sub_(later)
        columns = torch.empty_like(largest)
        torch.mul(grad, is_left, out=columns[..., ::2])
        torch.sub(grad, columns[..., ::2], out=columns[..., 1::2])
        found = torch.empty_like(x)
        torch.mul(columns, in_above, out=found[:, :, ::2])
        torch.sub(columns, found[:, :, ::2], out=found[:, :, 1::2])
        return found


def _pair(side: Any) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else tuple(side)


def use_row_pools(module: nn.Module) -> nn.Module:
    """Make every plain max pool of a module a `RowMaxPool2d`, in place; returns the same module."""
    for child in module.modules():
        if (
            type(child) is nn.MaxPool2d
            and child.dilation in (1, (1, 1))
            and not (child.ceil_mode or child.return_indices)
        ):
            child.__class__ = RowMaxPool2d
    return module
