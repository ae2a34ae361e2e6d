"""The plain ViT classifier: class token, learned positions, pre-norm layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.plugin.layers import Backbone, patch_grid, patchify
from zoo_vit.transformer import ALL_SITES, Site, drop_at, encoder


class ViT(Backbone):
    """Patches and a class token through a transformer; one token (or their mean) is classified."""

    def __init__(
        self,
        patch: int,
        embed: nn.Linear,
        tokens: int,
        layers: nn.Module,
        num_classes: int,
        drop: nn.Module,
        pool: str,
        std: float,
    ) -> None:
        super().__init__()
        width = embed.out_features
        self.patch, self.pool = patch, pool
        self.embed = embed
        self.class_token = nn.Parameter(torch.randn(1, 1, width).mul_(std)) if pool == "class" else None
        self.position = nn.Parameter(torch.randn(1, tokens + (pool == "class"), width).mul_(std))
        self.drop = drop
        self.layers = layers
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that take no weight decay."""
        return {"class_token", "position"}

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to tokens (B, N, D), the class token first where there is one."""
        tokens = self.embed(patchify(x, self.patch))
        if self.class_token is not None:
            first = self.class_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat((first, tokens), 1)
        return self.layers(self.drop(tokens + self.position))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, N, D) to (B, num_classes); with `pre_logits` to the features (B, D)."""
        features = self.norm(x.mean(1) if self.pool == "mean" else x[:, 0])
        return features if pre_logits else self.head(features)


def vit_classifier(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    patch: int = 2,
    embed: int = 1024,
    depth: int = 2,
    heads: int = 4,
    head_width: int = 64,
    mlp: int = 2048,
    dropout: float = 0.1,
    dropout_at: Sequence[Site] = ALL_SITES,
    pool: Literal["class", "mean"] = "class",
    init_std: float = 1.0,
) -> nn.Module:
    """ViT classifier; the defaults are the source's baseline, but for `dropout_at`.

    Args:
        patch: side of a patch, in pixels.
        embed: width of the tokens.
        depth: transformer layers.
        heads: heads of each attention.
        head_width: width of each head.
        mlp: hidden width of each MLP.
        dropout: probability at each of `dropout_at`.
        dropout_at: where to drop: "embedding" (tokens before the layers), "weights" (of attention),
            "projection" (behind attention's), "hidden" and "output" (in and behind each MLP). The
            source drops at all of them but "weights".
        pool: classify the class token, or the mean of all tokens (then there is no class token).
        init_std: spread of the initial class token and positions (1 in the source, 0.02 in timm).

    Raises:
        ShapeError: the patch does not divide the image.

    Source:
        Mixture Models, the ViT baseline.
    """
    rows, columns = patch_grid(height, width, patch, "vit.classifier")
    layers = encoder(
        width=embed, depth=depth, heads=heads, head_width=head_width, mlp=mlp, dropout=dropout, sites=dropout_at
    )
    linear = nn.Linear(in_channels * patch * patch, embed)
    drop = drop_at("embedding", dropout_at, dropout)
    return ViT(patch, linear, rows * columns, layers, num_classes, drop, pool, init_std)
