"""Convolutions that are quicker as matrix products on a CPU, done so."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WindowConv2d(nn.Conv2d):
    """A convolution that multiplies only what it sees, where its output is one pixel on a CPU.

    With padding, a 3x3 kernel over a map of one pixel multiplies eight zeros for each value, reads, casts and
    writes nine times the weights, and torch's kernel does so slowly. Cut to the pixels that are there it is one
    matrix product: the same sums without the zeros. Everywhere else it is `nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H', W'), as `nn.Conv2d`."""
        if x.device.type != "cpu" or x.dim() != 4 or isinstance(self.padding, str):
            return super().forward(x)
        spans = [
            _span(size, kernel, stride, pad)
            for size, kernel, stride, pad in zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        ]
        if None in spans:
            return super().forward(x)
        (rows, high), (columns, wide) = spans  # type: ignore[misc]
        seen = self.weight[:, :, rows : rows + high, columns : columns + wide]
        pixels = x[:, :, :high, :wide]
        return F.linear(pixels.flatten(1), seen.flatten(1), self.bias)[:, :, None, None]


class ProductConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution to few channels: one matrix product for each image, and the sum of what overlaps.

    On a CPU torch's own kernel is slow at this where the channels come first. The sums are in fp32, over products
    in the autocast's dtype. Everywhere else it is `nn.ConvTranspose2d`.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, out, H', W'), as `nn.ConvTranspose2d`."""
        if x.device.type != "cpu" or x.dim() != 4 or output_size is not None or not x.is_contiguous():
            return super().forward(x, output_size)
        padding = cast(tuple[int, int], self.padding)  # a name is for convolutions that are not transposed
        high, wide = (
            (size - 1) * stride - 2 * pad + dilation * (kernel - 1) + more + 1
            for size, stride, pad, dilation, kernel, more in zip(
                x.shape[2:], self.stride, padding, self.dilation, self.kernel_size, self.output_padding, strict=True
            )
        )
        columns = torch.bmm(self.weight.flatten(1).t().expand(len(x), -1, -1), x.flatten(2))
        pixels = F.fold(
            columns.float() if columns.dtype in (torch.bfloat16, torch.float16) else columns,
            (high, wide),
            self.kernel_size,
            self.dilation,
            padding,
            self.stride,
        )
        if self.bias is not None:
            pixels = pixels + self.bias[:, None, None]
        return pixels.to(columns.dtype)


def _span(size: int, kernel: int, stride: int, pad: int) -> tuple[int, int] | None:
    """(First row of the kernel that meets a pixel, how many do) where one output row is left; else None."""
    if pad >= kernel or not 0 <= size + 2 * pad - kernel < stride:
        return None
    return pad, min(size, kernel - pad)


def use_window_convolutions(module: nn.Module) -> nn.Module:
    """Make every plain convolution of a module a `WindowConv2d` or `ProductConvTranspose2d`, in place.

    Args:
        module: any; its parameters, their names and their order do not change.

    Returns:
        The same module.
    """
    for child in module.modules():
        if type(child) is nn.Conv2d and _is_simple(child):
            child.__class__ = WindowConv2d
        elif type(child) is nn.ConvTranspose2d and _gives_few(child):
            child.__class__ = ProductConvTranspose2d
    return module


def _is_simple(conv: nn.Conv2d) -> bool:
    return conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"


def _gives_few(conv: nn.ConvTranspose2d) -> bool:
    """Whether the products, before they are summed, are no more numbers than the input."""
    return conv.groups == 1 and conv.weight[0].numel() <= conv.in_channels
