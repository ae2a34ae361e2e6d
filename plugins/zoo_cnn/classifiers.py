"""Convolutional classifiers: the sources' baselines, and two that are strong at 32x32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.plugin.layers import Dropout, StagedClassifier
from zoo_cnn.blocks import ConvNorm
from zoo_cnn.speedrun import ScaledLinear

VGG16: Final = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of configuration D, stage by stage ("Very Deep Convolutional Networks", table 1)."""


def _pooled(who: str, height: int, width: int, times: int) -> tuple[int, int]:
    least = 2**times
    if height < least or width < least:
        raise ShapeError(f"{who}: {height}x{width} is too small, at least {least}x{least} is needed")
    return height // least, width // least


def baseline(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    widths: Sequence[int] = (6, 12, 24),
    dense: Sequence[int] = (120, 84),
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """5x5 convolutions with ReLU and 2x2 max pooling, then dense layers.

    Args:
        widths: channels of the convolutions.
        dense: widths of the dense layers before the last.
        batch_norm: after each convolution, before its ReLU.
        dropout: after each convolution's ReLU and after flattening.

    Raises:
        ShapeError: the image is smaller than the pools need.

    Source:
        From CNN to other models, the baseline CNN and its variants.
    """
    rows, columns = _pooled("cnn.baseline", height, width, len(widths))
    features = nn.Sequential()
    for before, after in zip([in_channels, *widths], widths, strict=False):
        layers: list[nn.Module] = [nn.Conv2d(before, after, 5, padding=2)]
        layers += [nn.BatchNorm2d(after)] if batch_norm else []
        layers += [nn.ReLU()]
        layers += [Dropout(dropout)] if dropout else []
        features.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
    head = nn.Sequential(nn.Flatten(), *([Dropout(dropout)] if dropout else []))
    sizes = [widths[-1] * rows * columns, *dense]
    for before, after in zip(sizes, dense, strict=False):
        head.extend([nn.Linear(before, after), nn.ReLU()])
    head.append(nn.Linear(sizes[-1], num_classes))
    return StagedClassifier(features, head)


def vgg16(
    *, in_channels: int, height: int, width: int, num_classes: int, dense: int = 512, dropout: float = 0.0
) -> nn.Module:
    """Configuration D with batch norm, one dense layer with batch norm, and the classes.

    Args:
        dense: width of the dense layer.
        dropout: before each of the two dense layers.

    Raises:
        ShapeError: the image is smaller than 32x32.

    Source:
        From CNN to other models, VGG16; the CIFAR adaptation is Liu & Deng's.
    """
    rows, columns = _pooled("cnn.vgg16", height, width, len(VGG16))
    stages, before = nn.Sequential(), in_channels
    for stage in VGG16:
        layers: list[nn.Module] = []
        for after in stage:
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
    head = nn.Sequential(
        nn.Flatten(),
        Dropout(dropout),
        nn.Linear(before * rows * columns, dense),
        nn.BatchNorm1d(dense),
        nn.ReLU(),
        Dropout(dropout),
        nn.Linear(dense, num_classes),
    )
    return StagedClassifier(stages, head)


class Shortcut(nn.Module):
    """x + layers(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x + self.layers(x)


def resnet9(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    widths: Sequence[int] = (64, 128, 256, 512),
    dropout: float = 0.0,
    scale: float = 0.125,
) -> nn.Module:
    """A convolution; three with pooling, the first and last with a residual pair; pooled maximum.

    Args:
        widths: channels of the four stages.
        dropout: before the classes.
        scale: constant on the logits, which keeps early steps small at large learning rates.

    Raises:
        ShapeError: the image is smaller than 8x8, or there are not four widths.

    Source:
        David Page, "How to Train Your ResNet" (the DAWNBench network).
    """
    if len(widths) != 4:
        raise ShapeError(f"cnn.resnet9: widths needs four numbers, given {len(widths)}")
    _pooled("cnn.resnet9", height, width, 3)
    first, second, third, last = widths

    def down(before: int, after: int) -> list[nn.Module]:
        return [ConvNorm(before, after), nn.MaxPool2d(2)]

    def pair(c: int) -> Shortcut:
        return Shortcut(ConvNorm(c, c), ConvNorm(c, c))

    features = nn.Sequential(
        ConvNorm(in_channels, first),
        *down(first, second),
        pair(second),
        *down(second, third),
        *down(third, last),
        pair(last),
        nn.AdaptiveMaxPool2d(1),
    )
    head = nn.Sequential(nn.Flatten(), Dropout(dropout), ScaledLinear(last, num_classes, scale=scale))
    return StagedClassifier(features, head)


class PreActivation(nn.Module):
    """Batch norm, ReLU, 3x3, batch norm, ReLU, dropout, 3x3, added to the (projected) input."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.drop = Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        same = before == after and stride == 1
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H/stride, W/stride)."""
        y = torch.relu(self.norm1(x))
        short = x if self.shortcut is None else self.shortcut(y)
        return short + self.conv2(self.drop(torch.relu(self.norm2(self.conv1(y)))))


def wide_resnet(
    *, in_channels: int, height: int, width: int, num_classes: int, depth: int = 16, widen: int = 4, dropout: float = 0
) -> nn.Module:
    """Wide residual network: three stages of pre-activation blocks at strides 1, 2, 2.

    Args:
        depth: layers, 6n + 4.
        widen: factor on the widths 16, 32, 64.
        dropout: between the two convolutions of each block.

    Raises:
        ShapeError: `depth` is not 6n + 4, or the image is smaller than 4x4.

    Source:
        "Wide Residual Networks", table 1.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ShapeError(f"cnn.wide: depth must be 6n + 4 (10, 16, 22, 28, ...), given {depth}")
    _pooled("cnn.wide", height, width, 2)
    blocks, before = nn.Sequential(), 16
    for stage, after in enumerate((16 * widen, 32 * widen, 64 * widen)):
        for i in range((depth - 4) // 6):
            stride = 2 if stage and not i else 1
            blocks.append(PreActivation(before, after, stride, dropout))
            before = after
    stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
    head = nn.Sequential(
        nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)
    )
    return StagedClassifier(stem, blocks, head)
