"""The transformer encoder that the parts and classifiers of this plugin share."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.plugin.layers import Dropout, attention


class SelfAttention(nn.Module):
    """Layer norm, bias-free fused qkv, attention, projection with bias.

    Args:
        width: width of the tokens.
        heads: number of heads.
        head_width: width of each head.
        dropout: on the attention weights and after the projection.
    """

    def __init__(self, width: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.proj = nn.Linear(heads * head_width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same shape."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(q, k, v, dropout_p=self.dropout, training=self.training)
        return self.drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Sequential):
    """Layer norm, linear, GELU, dropout, linear back, dropout."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.add_module("norm", nn.LayerNorm(width))
        self.add_module("fc1", nn.Linear(width, hidden))
        self.add_module("act", nn.GELU())
        self.add_module("drop1", Dropout(dropout))
        self.add_module("fc2", nn.Linear(hidden, width))
        self.add_module("drop2", Dropout(dropout))


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, width: int, heads: int, head_width: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, head_width, dropout)
        self.mlp = FeedForward(width, mlp, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same shape."""
        x = x + self.attention(x)
        return x + self.mlp(x)


def encoder(
    *, width: int, depth: int, heads: int, head_width: int, mlp: int, dropout: float
) -> nn.Sequential:
    """`depth` pre-norm layers, without a final norm.

    Args:
        width: width of the tokens.
        depth: number of layers.
        heads: heads of each attention.
        head_width: width of each head.
        mlp: hidden width of each MLP.
        dropout: everywhere a source drops: attention weights, projections, MLPs.

    Raises:
        ShapeError: a size below 1.
    """
    sizes = {"width": width, "depth": depth, "heads": heads, "head_width": head_width, "mlp": mlp}
    for name, size in sizes.items():
        if size < 1:
            raise ShapeError(f"vit: {name} must be at least 1, given {size}")
    return nn.Sequential(*(Layer(width, heads, head_width, mlp, dropout) for _ in range(depth)))
