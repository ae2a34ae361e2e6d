"""timm's VisionTransformer, as a classifier of images or of a stem's feature maps."""

from __future__ import annotations

from typing import Literal

from timm.layers import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from zoo.errors import InputError, ShapeError
from zoo.plugin.layers import attention, patch_grid, use_cheap_dropout


class FastAttention(Attention):
    """timm's attention with our choice of kernel; the parameters are the same."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, width) to the same shape; with a mask, timm's own path."""
        if attn_mask is not None or is_causal or self.gate is not None:
            return super().forward(x, attn_mask, is_causal)
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(self.q_norm(q), self.k_norm(k), v, dropout_p=self.attn_drop.p, training=self.training)
        return self.proj_drop(self.proj(self.norm(mixed.transpose(1, 2).flatten(2))))


def timm_vit(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    patch: int = 4,
    embed: int = 192,
    depth: int = 6,
    heads: int = 3,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    pool: Literal["token", "avg"] = "token",
    registers: int = 0,
    distilled: bool = False,
) -> nn.Module:
    """timm's VisionTransformer with learned positions.

    Args:
        patch: side of a patch, in pixels.
        embed: width of the tokens, a multiple of `heads`.
        depth: transformer layers.
        heads: heads of each attention.
        mlp_ratio: hidden width of the MLPs, in widths.
        dropout: on embeddings, projections and MLPs.
        drop_path: chance of skipping the last layer; earlier layers have linearly less.
        pool: classify the class token, or the mean of the patches.
        registers: extra tokens without a place.
        distilled: a second token, whose head learns from a teacher (`distill.kind = "token"` of a recipe); the logits
            are the mean of both heads', as in DeiT. Needs `pool = "token"` and no registers.

    Raises:
        ShapeError: the patch does not divide the image, or the heads do not divide the width.
        InputError: a distilled one with another pool, or with registers.
    """
    patch_grid(height, width, patch, "vit.timm")
    if heads < 1 or embed % heads:
        raise ShapeError(f"vit.timm: embed {embed} is not a multiple of heads {heads}")
    if distilled and (pool != "token" or registers):
        raise InputError(f"vit.timm: distilled needs pool token and 0 registers, given {pool} and {registers}")
    model = (VisionTransformerDistilled if distilled else VisionTransformer)(
        img_size=(height, width),
        patch_size=patch,
        in_chans=in_channels,
        num_classes=num_classes,
        embed_dim=embed,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        pos_drop_rate=dropout,
        proj_drop_rate=dropout,
        drop_path_rate=drop_path,
        global_pool=pool,
        class_token=pool == "token",
        reg_tokens=registers,
        attn_layer=FastAttention,
    )
    return use_cheap_dropout(model)
