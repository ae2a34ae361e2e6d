"""The ViT as a part: an image in, an image of the same shape out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.plugin.layers import image_reader, patch_grid, patchify, token_width
from zoo_vit.transformer import LAYER_SITES, Site, drop_at, encoder

MAX_GRID = 31
"""Patches per side: the source's rule (image side / 16) gives 16 to 31 where it suits an image."""


class ViTImage(nn.Module):
    """Patches, transformer, and back to the image.

    Args:
        patch: side of a patch, in pixels.
        embed: patch pixels to tokens.
        layers: tokens to tokens.
        read: tokens to image.
        tokens: number of tokens, for a position embedding; 0 leaves it out.
        drop: on the tokens before the layers; None: nothing.
    """

    def __init__(
        self,
        patch: int,
        embed: nn.Linear,
        layers: nn.Module,
        read: nn.Module,
        tokens: int = 0,
        drop: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.embed = embed
        self.position = nn.Parameter(torch.randn(1, tokens, embed.out_features).mul_(0.02)) if tokens else None
        self.drop = nn.Identity() if drop is None else drop
        self.layers = layers
        self.read = read

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that take no weight decay."""
        return {"position"}

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        tokens = self.embed(patchify(x, self.patch))
        if self.position is not None:
            tokens = tokens + self.position
        return self.read(self.layers(self.drop(tokens)))


def paper_patch(height: int, width: int) -> int:
    """Return the source's patch side: image side / 16, at least 1, rounded down to a divisor.

    Raises:
        ShapeError: no such side leaves at most 31 patches per side.
    """
    side = min(height, width)
    most = max(1, side // 16)
    patch = max(d for d in range(1, most + 1) if height % d == 0 and width % d == 0)
    if max(height, width) // patch > MAX_GRID:
        raise ShapeError(
            f"vit.image: no patch side near {most} divides {height}x{width}; "
            f"give `patch`, or an image size such as {divisor_near(side)}"
        )
    return patch


def divisor_near(side: int) -> int:
    """Return the largest multiple of 16 that is not above `side` (16 at least)."""
    return max(16, side // 16 * 16)


def vit_image(
    *,
    channels: int,
    height: int,
    width: int,
    depth: int = 1,
    heads: int = 1,
    head_width: int = 64,
    mlp: int = 2048,
    dropout: float = 0.1,
    dropout_at: Sequence[Site] = LAYER_SITES,
    patch: int | None = None,
    embed: int | None = None,
    position: bool = False,
    read: Literal["image", "patches"] = "image",
    norm: bool = True,
) -> nn.Module:
    """Transformer over patches, read back as an image.

    Args:
        depth: transformer layers.
        heads: heads of each attention.
        head_width: width of each head.
        mlp: hidden width of each MLP.
        dropout: probability at each of `dropout_at`.
        dropout_at: where to drop: "embedding" (tokens before the layers), "weights" (of attention),
            "projection" (behind attention's), "hidden" and "output" (in and behind each MLP). The
            source's mixtures drop at all of them but "weights".
        patch: side of a patch; None: image side / 16.
        embed: width of the tokens; None: height*width for `read = "image"`, 256 for "patches".
        position: learn a position embedding (the source's mixtures have none).
        read: "image": each token's features are one channel's pixels, then a transposed
            convolution (the source's way); "patches": each token gives its own patch's pixels.
        norm: end with a batch norm.

    Raises:
        ShapeError: the patch does not divide the image, or `embed` does not suit `read`.

    Source:
        Mixture Models, "ViT part" and "tokens to image".
    """
    side = patch or paper_patch(height, width)
    rows, columns = patch_grid(height, width, side, "vit.image")
    size = token_width(read, embed, height, width, "vit.image")
    shape = (channels, height, width)
    reader = image_reader(read, tokens=rows * columns, features=size, shape=shape, patch=side, norm=norm)
    layers = encoder(
        width=size, depth=depth, heads=heads, head_width=head_width, mlp=mlp, dropout=dropout, sites=dropout_at
    )
    tokens = rows * columns if position else 0
    drop = drop_at("embedding", dropout_at, dropout)
    return ViTImage(side, nn.Linear(channels * side * side, size), layers, reader, tokens, drop)
