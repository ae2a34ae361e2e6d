"""Convolutional parts and stems: map in, map out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.errors import ShapeError


class ResidualLayer(nn.Module):
    """relu(shortcut(x) + bn(conv3x3(x))), the shortcut being 1x1 where the channel count changes.

    Source:
        Mixture Models, the residual CNN.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H, W)."""
        return torch.relu(self.norm(self.conv(x)) + self.shortcut(x))


def residual_cnn(*, channels: int, height: int, width: int, widths: Sequence[int] = (32, 32, 128, 128)) -> nn.Module:
    """Residual layers at full resolution, through `widths` channels and back to `channels`.

    Args:
        widths: channels after each layer but the last.

    Source:
        Mixture Models, the residual CNN (five layers: 3, 32, 32, 128, 128, 3).
    """
    del height, width  # full resolution throughout: any size does
    steps = [channels, *widths, channels]
    return nn.Sequential(*(ResidualLayer(a, b) for a, b in itertools.pairwise(steps)))


class ConvNorm(nn.Sequential):
    """3x3 convolution without bias, batch norm, activation."""

    def __init__(self, before: int, after: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(before, after, 3, stride, padding=1, bias=False))
        self.add_module("norm", nn.BatchNorm2d(after))
        self.add_module("act", act())


def conv_stem(
    *,
    in_channels: int,
    height: int,
    width: int,
    widths: Sequence[int] = (64, 64),
    strides: Sequence[int] = (1, 2),
    act: Literal["relu", "gelu"] = "relu",
) -> nn.Module:
    """3x3 convolutions with batch norm: fewer pixels, more channels.

    Args:
        widths: channels after each convolution.
        strides: stride of each convolution; as many as `widths`.
        act: activation after each.

    Raises:
        ShapeError: `widths` and `strides` differ in length, or the strides exceed the image.
    """
    if len(widths) != len(strides):
        raise ShapeError(f"cnn.stem: {len(widths)} widths but {len(strides)} strides; give one stride each")
    total = 1
    for stride in strides:
        total *= stride
    if total > min(height, width):
        raise ShapeError(f"cnn.stem: strides reduce {height}x{width} by {total}, to nothing")
    kind = {"relu": nn.ReLU, "gelu": nn.GELU}[act]
    steps = [in_channels, *widths]
    return nn.Sequential(*(ConvNorm(a, b, s, kind) for a, b, s in zip(steps, widths, strides, strict=False)))


class ConvNeXtLayer(nn.Module):
    """Depthwise 7x7, layer norm, 1x1 to four times the width, GELU, 1x1 back, added to the input.

    Source:
        "A ConvNet for the 2020s", figure 4 (batch norm in place of layer norm, for speed on maps).
    """

    def __init__(self, channels: int, kernel: int, ratio: int) -> None:
        super().__init__()
        same = kernel // 2
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=same, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.expand = nn.Conv2d(channels, ratio * channels, 1)
        self.reduce = nn.Conv2d(ratio * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x + self.reduce(nn.functional.gelu(self.expand(self.norm(self.depthwise(x)))))


def depthwise_cnn(
    *, channels: int, height: int, width: int, depth: int = 1, kernel: int = 7, ratio: int = 4
) -> nn.Module:
    """Inverted-bottleneck layers with depthwise convolutions: a light part for wide maps.

    Args:
        depth: number of layers.
        kernel: side of the depthwise kernel, odd.
        ratio: how much wider the inside is.

    Raises:
        ShapeError: the kernel's side is even.
    """
    del height, width
    if kernel % 2 == 0:
        raise ShapeError(f"cnn.depthwise: kernel must be odd to keep the shape, given {kernel}")
    if depth < 1:
        raise ShapeError(f"cnn.depthwise: depth must be at least 1, given {depth}")
    return nn.Sequential(*(ConvNeXtLayer(channels, kernel, ratio) for _ in range(depth)))
