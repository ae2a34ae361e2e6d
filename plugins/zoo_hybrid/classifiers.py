"""Stem, body, head: how parts become a classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.errors import PluginError
from zoo.plugin.layers import Dropout, StagedClassifier

Builder = Callable[..., nn.Module]


def classifier(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    body: Builder | None = None,
    stem: Builder | None = None,
    head: Builder | None = None,
) -> nn.Module:
    """Stem, then body, then head, each but the head may be left out.

    Args:
        body: a part or combinator.
        stem: brings the image to the body's shape; none: the image itself.
        head: map to logits; none: a linear layer on the flattened map, as in the source.

    Raises:
        PluginError: the stem has no `out_shape`.

    Source:
        Mixture Models (without stem, with the flatten-linear head).
    """
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    shape = (in_channels, height, width)
    if stem is not None:
        module = stem(in_channels=in_channels, height=height, width=width)
        shape = _shape_after(module)
        steps["stem"] = module
    channels, rows, columns = shape
    if body is not None:
        steps["body"] = body(channels=channels, height=rows, width=columns)
    make_head = head or flatten_head
    steps["head"] = make_head(in_channels=channels, height=rows, width=columns, num_classes=num_classes)
    return StagedClassifier(steps)


def _shape_after(stem: nn.Module) -> tuple[int, int, int]:
    shape = getattr(stem, "out_shape", None)
    if shape is None:
        raise PluginError(f"hybrid.classifier: the stem {type(stem).__name__} has no `out_shape`")
    channels, rows, columns = shape
    return int(channels), int(rows), int(columns)


def flatten_head(*, in_channels: int, height: int, width: int, num_classes: int) -> nn.Module:
    """Linear layer on the flattened map."""
    return FlattenHead(in_channels * height * width, num_classes)


class FlattenHead(nn.Module):
    """(B, C, H, W), flattened channel by channel, to logits."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, num_classes)."""
        return self.linear(self.pre_logits(x))

    def pre_logits(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the features (B, C*H*W) that are classified."""
        return x.flatten(1)


class PoolHead(nn.Module):
    """Mean (or maximum) over the map, layer norm, dropout, linear."""

    def __init__(self, channels: int, num_classes: int, pool: str, norm: bool, dropout: float) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.drop = Dropout(dropout)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, num_classes)."""
        return self.linear(self.pre_logits(x))

    def pre_logits(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the features (B, C) that are classified."""
        pooled = torch.amax(x, (2, 3)) if self.pool == "max" else x.mean((2, 3))
        return self.drop(self.norm(pooled))


def pool_head(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    pool: Literal["mean", "max"] = "mean",
    norm: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """Global pooling, layer norm and a linear layer: few parameters, any size.

    Args:
        pool: mean or maximum over the map.
        norm: layer norm after pooling.
        dropout: before the linear layer.
    """
    del height, width
    return PoolHead(in_channels, num_classes, pool, norm, dropout)
