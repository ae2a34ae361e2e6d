"""The Perceiver: latents that read an image, as a classifier and as a part."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.plugin.layers import Backbone, map_to_tokens, tokens_to_map
from zoo_perceiver.blocks import SITES, Attention, Block, FeedForward, Site, fourier_positions


class Perceiver(nn.Module):
    """Latents through `depth` blocks that attend to the pixels of an image.

    Args:
        channels: channels of the image.
        depth: number of blocks (cross-attention and its self-attentions), untied.
        latents: number of latents.
        latent_width: their width.
        cross_heads: heads of each cross-attention.
        cross_head_width: their width.
        latent_heads: heads of each self-attention.
        latent_head_width: their width.
        self_attentions: self-attentions in each block.
        bands: Fourier frequencies per axis.
        max_freq: twice the highest of them.
        dropout: probability at each of `dropout_at`.
        dropout_at: where to drop: "weights" (of attention), "projection" (behind attention's), "hidden"
            (behind the gate of each feed-forward), "output" (behind each feed-forward).

    Source:
        "Perceiver: General Perception with Iterative Attention"; sizes as in the package
        perceiver-pytorch, whose outputs this equals; in training with `dropout_at` "weights" and
        "output" those of its 0.11, with "projection" and "hidden" those of its 0.7.5, which the
        Mixture Models had.
    """

    def __init__(
        self,
        channels: int,
        *,
        depth: int,
        latents: int,
        latent_width: int,
        cross_heads: int,
        cross_head_width: int,
        latent_heads: int,
        latent_head_width: int,
        self_attentions: int,
        bands: int,
        max_freq: float,
        dropout: float,
        dropout_at: Sequence[Site] = SITES,
    ) -> None:
        super().__init__()
        sizes = {"depth": depth, "latents": latents, "latent_width": latent_width, "bands": bands}
        for name, size in (sizes | {"cross_heads": cross_heads, "latent_heads": latent_heads}).items():
            if size < 1:
                raise ShapeError(f"perceiver: {name} must be at least 1, given {size}")
        self.bands, self.max_freq = bands, max_freq
        context = channels + 2 * (2 * bands + 1)
        self.latents = nn.Parameter(torch.randn(latents, latent_width))
        cross, latent = (cross_heads, cross_head_width), (latent_heads, latent_head_width)
        self.blocks = nn.ModuleList(
            Block(latent_width, context, cross, latent, self_attentions, dropout, dropout_at) for _ in range(depth)
        )

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that take no weight decay."""
        return {"latents"}

    def pixels(self, x: Tensor) -> Tensor:
        """Read pixels as tokens with their places: (B, C, H, W) to (B, H*W, C + position)."""
        positions = fourier_positions(x.shape[2], x.shape[3], self.bands, self.max_freq, x)
        return torch.cat((map_to_tokens(x), positions.expand(x.shape[0], -1, -1)), -1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, N, context) tokens to (B, latents, latent_width)."""
        x = self.latents.expand(pixels.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, pixels)
        return x


class MeanRead(nn.Module):
    """Mean of the latents, layer norm, linear."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, outputs)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, M, width) to (B, outputs)."""
        return self.linear(self.pre_logits(latents))

    def pre_logits(self, latents: Tensor) -> Tensor:
        """(B, M, width) to the features (B, width) that the linear layer takes."""
        return self.norm(latents.mean(1))


class PerceiverClassifier(Backbone):
    """Perceiver and the mean of its latents, classified."""

    def __init__(self, perceiver: Perceiver, num_classes: int) -> None:
        super().__init__()
        self.perceiver = perceiver
        self.head = MeanRead(perceiver.latents.shape[1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the latents (B, M, width)."""
        return self.perceiver(self.perceiver.pixels(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The latents to (B, num_classes); with `pre_logits` to the features (B, width)."""
        return self.head.pre_logits(x) if pre_logits else self.head(x)


class PerceiverImage(nn.Module):
    """Perceiver whose mean latent gives every pixel of an image at once (the source's way)."""

    def __init__(self, perceiver: Perceiver, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.perceiver = perceiver
        self.read = MeanRead(perceiver.latents.shape[1], shape[0] * shape[1] * shape[2])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.read(self.perceiver(self.perceiver.pixels(x))).unflatten(1, self.shape)


class PerceiverQuery(nn.Module):
    """Perceiver whose latents are read by each pixel through a cross-attention of its own.

    Source:
        "Perceiver IO", section 3.2 (queries built from positions and inputs).
    """

    def __init__(
        self,
        perceiver: Perceiver,
        channels: int,
        heads: int,
        head_width: int,
        dropout: float,
        sites: Sequence[Site] = SITES,
    ) -> None:
        super().__init__()
        width = perceiver.latents.shape[1]
        self.perceiver = perceiver
        self.query = nn.Linear(channels + 2 * (2 * perceiver.bands + 1), width)
        self.cross = Attention(width, width, heads, head_width, dropout, sites)
        self.mlp = FeedForward(width, dropout, sites=sites)
        self.read = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        pixels = self.perceiver.pixels(x)
        latents = self.perceiver(pixels)
        query = self.query(pixels)
        query = query + self.cross(query, latents)
        query = query + self.mlp(query)
        return tokens_to_map(self.read(query), x.shape[2], x.shape[3])


def _perceiver(channels: int, given: Mapping[str, Any]) -> Perceiver:
    """A perceiver of those arguments of a factory that are its own, by name."""
    parameters = inspect.signature(Perceiver).parameters.values()
    return Perceiver(channels, **{p.name: given[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY})


def classifier(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    depth: int = 4,
    latents: int = 32,
    latent_width: int = 32,
    cross_heads: int = 2,
    cross_head_width: int = 16,
    latent_heads: int = 8,
    latent_head_width: int = 16,
    self_attentions: int = 2,
    bands: int = 6,
    max_freq: float = 10.0,
    dropout: float = 0.2,
    dropout_at: Sequence[Site] = SITES,
) -> nn.Module:
    """Perceiver classifier for images of any size; `Perceiver` describes the arguments.

    Source:
        Mixture Models, "Perceiver part".
    """
    perceiver = _perceiver(in_channels, locals())
    return PerceiverClassifier(perceiver, num_classes)


def image(
    *,
    channels: int,
    height: int,
    width: int,
    depth: int = 4,
    latents: int = 32,
    latent_width: int = 32,
    cross_heads: int = 2,
    cross_head_width: int = 16,
    latent_heads: int = 8,
    latent_head_width: int = 16,
    self_attentions: int = 2,
    bands: int = 6,
    max_freq: float = 10.0,
    dropout: float = 0.2,
    dropout_at: Sequence[Site] = SITES,
    read: Literal["mean", "query"] = "mean",
) -> nn.Module:
    """Perceiver as a part; `Perceiver` describes the arguments that are not below.

    Args:
        read: "mean": one linear layer from the mean latent to all pixels (the source's way);
            "query": each pixel attends to the latents (Perceiver IO), with far fewer parameters.

    Source:
        Mixture Models, "Perceiver part".
    """
    perceiver = _perceiver(channels, locals())
    if read == "query":
        return PerceiverQuery(perceiver, channels, latent_heads, latent_head_width, dropout, dropout_at)
    return PerceiverImage(perceiver, (channels, height, width))
