"""The transformer encoder that the parts and classifiers of this plugin share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.plugin.layers import Dropout, attention

Site = Literal["embedding", "weights", "projection", "hidden", "output"]
"""Where a transformer may drop: tokens before its layers, attention weights, behind the projection of each
attention, behind the activation of each MLP, and behind its second linear layer."""

LAYER_SITES: Final[tuple[Site, ...]] = ("weights", "projection", "hidden", "output")
ALL_SITES: Final[tuple[Site, ...]] = ("embedding", *LAYER_SITES)


def drop_at(site: Site, sites: Sequence[Site], dropout: float) -> nn.Module:
    """Return a dropout if this site is one of those that drop, else the identity."""
    return Dropout(dropout) if site in sites else nn.Identity()


class SelfAttention(nn.Module):
    """Layer norm, bias-free fused qkv, attention, projection with bias.

    Args:
        width: width of the tokens.
        heads: number of heads.
        head_width: width of each head.
        dropout: probability at "weights" and "projection", as far as they are in `sites`.
        sites: where to drop.
    """

    def __init__(
        self, width: int, heads: int, head_width: int, dropout: float, sites: Sequence[Site] = LAYER_SITES
    ) -> None:
        super().__init__()
        self.heads = heads
        # None and not 0: a recipe's dropout sets the rate of what drops, and must not make weights drop that do not
        self.dropout = Dropout(dropout).p if "weights" in sites else None
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.proj = nn.Linear(heads * head_width, width)
        self.drop = drop_at("projection", sites, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same shape."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(q, k, v, dropout_p=self.dropout or 0.0, training=self.training)
        return self.drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Sequential):
    """Layer norm, linear, GELU, dropout ("hidden"), linear back, dropout ("output")."""

    def __init__(self, width: int, hidden: int, dropout: float, sites: Sequence[Site] = LAYER_SITES) -> None:
        super().__init__()
        self.add_module("norm", nn.LayerNorm(width))
        self.add_module("fc1", nn.Linear(width, hidden))
        self.add_module("act", nn.GELU())
        self.add_module("drop1", drop_at("hidden", sites, dropout))
        self.add_module("fc2", nn.Linear(hidden, width))
        self.add_module("drop2", drop_at("output", sites, dropout))


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(
        self, width: int, heads: int, head_width: int, mlp: int, dropout: float, sites: Sequence[Site] = LAYER_SITES
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, head_width, dropout, sites)
        self.mlp = FeedForward(width, mlp, dropout, sites)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same shape."""
        x = x + self.attention(x)
        return x + self.mlp(x)


def encoder(
    *,
    width: int,
    depth: int,
    heads: int,
    head_width: int,
    mlp: int,
    dropout: float,
    sites: Sequence[Site] = LAYER_SITES,
) -> nn.Sequential:
    """`depth` pre-norm layers, without a final norm.

    Args:
        width: width of the tokens.
        depth: number of layers.
        heads: heads of each attention.
        head_width: width of each head.
        mlp: hidden width of each MLP.
        dropout: probability at each site.
        sites: where to drop; "embedding" is not a layer's, and left to the caller.

    Raises:
        ShapeError: a size below 1.
    """
    sizes = {"width": width, "depth": depth, "heads": heads, "head_width": head_width, "mlp": mlp}
    for name, size in sizes.items():
        if size < 1:
            raise ShapeError(f"vit: {name} must be at least 1, given {size}")
    return nn.Sequential(*(Layer(width, heads, head_width, mlp, dropout, sites) for _ in range(depth)))
