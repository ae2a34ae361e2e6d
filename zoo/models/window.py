"""Convolutions that are quicker as matrix products on a CPU, done so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.calls import is_on_cpu, is_recorded, is_transformed
from zoo.models.precision import has_amx

Pair = tuple[int, int]

PIXELS_OF_SINGLE: Final = 16
"""A kernel of one pixel is a product where no more pixels than these come out."""

CHANNELS_FOR_PIXEL: Final = 64
"""Larger kernels are a product where at least so many channels come out for each pixel."""

CHANNELS_FOR_PIXEL_AMX: Final = 28
"""The same for products in bf16 on a processor with AMX."""


class WindowConv2d(nn.Conv2d):
    """A convolution that is a matrix product on a CPU where few pixels come out of it.

    With padding, a 3x3 kernel over a map of one pixel multiplies eight zeros for each value, reads, casts and
    writes nine times the weights, and torch's kernel does so slowly. Cut to the pixels that are there it is one
    matrix product: the same sums without the zeros. Where a few pixels come out, and many channels, the pixels that
    each of them sees are laid out as rows, and multiplied by the weights as they lie (`_is_product`): torch's
    gradient of the weights took up to five times as long there. What is laid out or cut is kept for the backward
    pass: numbers of the small maps for each place of the kernel. Everywhere else it is `nn.Conv2d`: on a GPU, where
    the network is compiled or traced, and under torch.func and forward-mode differentiation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H', W'), as `nn.Conv2d`."""
        if not is_on_cpu(x) or x.dim() != 4 or isinstance(self.padding, str) or is_transformed(x, self.weight):
            return super().forward(x)
        sides = tuple(zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True))
        spans = [_span(*side) for side in sides]
        if None in spans:
            high, wide = ((size + 2 * pad - kernel) // stride + 1 for size, kernel, stride, pad in sides)
            return self._product(x, high, wide) if self._is_product(x, high, wide) else super().forward(x)
        (rows, high), (columns, wide) = spans  # type: ignore[misc]
        if (high, wide) == self.kernel_size:
            seen = self.weight.flatten(1)
        elif is_recorded():
            seen = self.weight[:, :, rows : rows + high, columns : columns + wide].flatten(1)
        elif x.shape[0] == 1 and not self._learns(x) and _number_type(x).itemsize >= 4:
            return super().forward(x)  # one image costs no more than the cut
        else:
            seen = _Cut.apply(self.weight, rows, high, columns, wide)
        return F.linear(x[:, :, :high, :wide].flatten(1), seen, self.bias)[:, :, None, None]

    def _is_product(self, x: Tensor, high: int, wide: int) -> bool:
        """Whether (high, wide) pixels come out of this convolution sooner by a product of all that each of them sees.

        The limits were chosen by the times of kernels of 1x1 and 3x3 over maps of 2 to 8 pixels a side, of 64 to 1024
        channels in batches of 64, on an Intel Xeon: by AMX, by AVX-512, and with torch held to AVX2.
        """
        if x.numel() == 0 or high < 1 or wide < 1 or not x.is_floating_point() or is_recorded():
            return False
        learns = self._learns(x)
        may = learns or torch.is_inference_mode_enabled()  # a view made without gradients could not be changed later
        quick = may and _number_type(x) == torch.bfloat16 and has_amx()
        if self.kernel_size == (1, 1):
            return high * wide <= PIXELS_OF_SINGLE and (learns or quick) and self.padding == (0, 0)
        if _number_type(x).itemsize < 4:
            return quick and self.out_channels >= CHANNELS_FOR_PIXEL_AMX * high * wide
        return learns and self.out_channels >= CHANNELS_FOR_PIXEL * high * wide

    def _learns(self, x: Tensor) -> bool:
        return torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)

    def _product(self, x: Tensor, high: int, wide: int) -> Tensor:
        batch, last = len(x), _is_channels_last(x)
        x = x.to(_number_type(x))
        stride = cast(Pair, self.stride)
        if self.kernel_size == (1, 1):
            pixels = x[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1).flatten(0, 2)
        else:
            pixels = _Seen.apply(x, self.kernel_size, stride, cast(Pair, self.padding), (high, wide))
        out = F.linear(pixels, self.weight.flatten(1), self.bias).view(batch, high, wide, -1).permute(0, 3, 1, 2)
        return out if last else out.contiguous()


class _Cut(torch.autograd.Function):
    """The part of a kernel (out, in, H, W) that meets pixels, as (out, in x h x w); its gradient is written once."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, row: int, high: int, column: int, wide: int) -> Tensor:
        ctx.settings = (weight.shape, row, high, column, wide)
        if high == 1:
            return weight[:, :, row, column : column + wide].flatten(1).contiguous()
        places = _places(weight, row, high, column, wide)
        return weight.flatten(2).flatten(0, 1).index_select(1, places).view(len(weight), -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        shape, row, high, column, wide = ctx.settings
        found = grad.new_zeros(shape)
        if high == 1:
            found[:, :, row, column : column + wide] = grad.reshape(*shape[:2], wide)
        else:  # many short pieces: by their places they are copied up to five times as fast
            places = _places(found, row, high, column, wide)
            found.flatten(2).flatten(0, 1).index_copy_(1, places, grad.reshape(-1, high * wide))
        return found, None, None, None, None


def _places(weight: Tensor, row: int, high: int, column: int, wide: int) -> Tensor:
    """Which pixels of a kernel (out, in, H, W) are met, counted row by row: int64 (high x wide,)."""
    size = weight.shape[2:]
    every = torch.arange(size.numel(), device=weight.device).view(size)  # not on the default device
    return every[row : row + high, column : column + wide].flatten()


class _Seen(torch.autograd.Function):
    """What each pixel that comes out of a convolution sees: (B, C, H, W) to (B x H' x W', C x kernel), a row for each.

    The columns are in the order of a convolution's weights. Gradients of one pixel are summed in fp32 at least.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, out: Pair) -> Tensor:
        batch, channels, *size = x.shape
        ctx.settings = (x.shape, x.dtype, kernel, stride, padding, out)
        ctx.last = _is_channels_last(x)
        padded = x.new_zeros(batch, size[0] + 2 * padding[0], size[1] + 2 * padding[1], channels)
        _inside(padded, size, padding).copy_(x.permute(0, 2, 3, 1))
        seen = x.new_empty(batch, *out, channels, kernel[0] * kernel[1])
        for number, pixels in enumerate(_shifted(padded, kernel, stride, out)):
            seen[..., number] = pixels
        return seen.view(batch * out[0] * out[1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (batch, channels, *size), dtype, kernel, stride, padding, out = ctx.settings
        grad = grad.reshape(batch, *out, channels, kernel[0] * kernel[1])
        summed = torch.promote_types(dtype, torch.float32)
        padded = grad.new_zeros(batch, size[0] + 2 * padding[0], size[1] + 2 * padding[1], channels, dtype=summed)
        for number, pixels in enumerate(_shifted(padded, kernel, stride, out)):
            pixels += grad[..., number]
        layout = torch.channels_last if ctx.last else torch.contiguous_format
        found = _inside(padded, size, padding).permute(0, 3, 1, 2).to(dtype)
        return found.contiguous(memory_format=layout), None, None, None, None


def _inside(padded: Tensor, size: list[int], padding: Pair) -> Tensor:
    """(B, H, W, C) without its padding."""
    (rows, columns), (high, wide) = padding, size
    return padded[:, rows : rows + high, columns : columns + wide]


def _shifted(padded: Tensor, kernel: Pair, stride: Pair, out: Pair) -> Iterator[Tensor]:
    """For each place of a kernel, the pixels (B, H', W', C) that it meets: views, in the order of the weights."""
    spans = [(step * (count - 1) + 1, step) for step, count in zip(stride, out, strict=True)]
    (high, down), (wide, right) = spans
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            yield padded[:, row : row + high : down, column : column + wide : right]


def _is_channels_last(x: Tensor) -> bool:
    """Of maps with one channel or one pixel, which are both, torch says that channels come first."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _number_type(x: Tensor) -> torch.dtype:
    """The type that a product of `x` is computed in: the autocast's, where one is on."""
    is_cast = x.dtype.itemsize <= 4 and torch.is_autocast_enabled("cpu")
    return torch.get_autocast_dtype("cpu") if is_cast else x.dtype


class ProductConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution to few channels: one matrix product for each image, and the sum of what overlaps.

    On a CPU torch's own kernel is slow at this where the channels come first. The sums are in fp32, over products
    in the autocast's dtype. Everywhere else it is `nn.ConvTranspose2d`.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, out, H', W'), as `nn.ConvTranspose2d`."""
        if not is_on_cpu(x) or x.dim() != 4 or output_size is not None or not x.is_contiguous():
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
