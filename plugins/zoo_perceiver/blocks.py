"""The Perceiver's attention, feed-forward and blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.plugin.layers import Dropout, attention

Site = Literal["weights", "projection", "hidden", "output"]
"""Where a Perceiver may drop: attention weights, behind the projection of each attention, behind the gate of each
feed-forward, and behind its second linear layer."""

SITES: Final[tuple[Site, ...]] = ("weights", "output")
"""Those of perceiver-pytorch 0.11; the Mixture Models had 0.7.5, whose sites are "projection" and "hidden"."""


def drop_at(site: Site, sites: Sequence[Site], dropout: float) -> nn.Module:
    """Return a dropout if this site is one of those that drop, else the identity."""
    return Dropout(dropout) if site in sites else nn.Identity()


class Attention(nn.Module):
    """Pre-norm attention of `x` on a context (or on itself): bias-free q and kv, projection with bias.

    Args:
        width: width of `x`.
        context: width of the context; None: self-attention.
        heads: number of heads.
        head_width: width of each head.
        dropout: probability at "weights" and "projection", as far as they are in `sites`.
        sites: where to drop.
    """

    def __init__(
        self,
        width: int,
        context: int | None,
        heads: int,
        head_width: int,
        dropout: float,
        sites: Sequence[Site] = SITES,
    ) -> None:
        super().__init__()
        self.heads = heads
        # None and not 0: a recipe's dropout sets the rate of what drops, and must not make weights drop that do not
        self.dropout = Dropout(dropout).p if "weights" in sites else None
        inner = heads * head_width
        self.norm = nn.LayerNorm(width)
        self.context_norm = None if context is None else nn.LayerNorm(context)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width if context is None else context, 2 * inner, bias=False)
        self.proj = nn.Linear(inner, width)
        self.drop = drop_at("projection", sites, dropout)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, M, width), and (B, N, context width) where there is a context, to (B, M, width)."""
        x = self.norm(x)
        source = x if self.context_norm is None or context is None else self.context_norm(context)
        q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        kv = self.to_kv(source).unflatten(-1, (2, self.heads, -1))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(q, k, v, dropout_p=self.dropout or 0.0, training=self.training)
        return self.drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """Layer norm, linear to twice `ratio` widths, gated GELU, dropout ("hidden"), linear back, dropout ("output")."""

    def __init__(self, width: int, dropout: float, ratio: int = 4, sites: Sequence[Site] = SITES) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)
        self.hidden_drop = drop_at("hidden", sites, dropout)
        self.drop = drop_at("output", sites, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same shape."""
        values, gates = self.fc1(self.norm(x)).chunk(2, dim=-1)
        return self.drop(self.fc2(self.hidden_drop(values * F.gelu(gates))))


class Block(nn.Module):
    """One cross-attention to the input, then self-attention among the latents."""

    def __init__(
        self,
        width: int,
        context: int,
        cross: tuple[int, int],
        latent: tuple[int, int],
        self_attentions: int,
        dropout: float,
        sites: Sequence[Site] = SITES,
    ) -> None:
        super().__init__()
        self.cross = Attention(width, context, *cross, dropout, sites)
        self.cross_mlp = FeedForward(width, dropout, sites=sites)
        repeats = range(self_attentions)
        self.selves = nn.ModuleList(Attention(width, None, *latent, dropout, sites) for _ in repeats)
        self.self_mlps = nn.ModuleList(FeedForward(width, dropout, sites=sites) for _ in repeats)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, M, width) latents and (B, N, context) inputs to new latents."""
        x = x + self.cross(x, context)
        x = x + self.cross_mlp(x)
        for attend, mlp in zip(self.selves, self.self_mlps, strict=True):
            x = x + attend(x)
            x = x + mlp(x)
        return x


def fourier_positions(height: int, width: int, bands: int, max_freq: float, like: Tensor) -> Tensor:
    """Sines and cosines of each pixel's place, then the place itself, axis by axis.

    Args:
        height: rows of the image.
        width: columns of the image.
        bands: frequencies per axis, evenly from 1 to max_freq / 2.
        max_freq: twice the highest frequency.
        like: gives dtype and device.

    Returns:
        (height*width, 2 * (2*bands + 1)), the coordinates running from -1 to 1.

    Source:
        "Perceiver: General Perception with Iterative Attention", section 3.2.
    """
    scales = torch.linspace(1.0, max_freq / 2, bands, device=like.device, dtype=like.dtype) * math.pi

    def axis(size: int) -> Tensor:
        place = torch.linspace(-1.0, 1.0, size, device=like.device, dtype=like.dtype)[:, None]
        angles = place * scales
        return torch.cat((angles.sin(), angles.cos(), place), -1)

    rows = axis(height)[:, None].expand(height, width, -1)
    columns = axis(width)[None].expand(height, width, -1)
    return torch.cat((rows, columns), -1).flatten(0, 1)
