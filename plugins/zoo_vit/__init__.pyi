# Written by `python -m zoo.plugin.stubs zoo_vit`: what type checkers and editors see of the components.

from collections.abc import Sequence
from typing import Any, Literal

from zoo.plugin import Node

zoo_components: Any

def classifier(
    *,
    patch: int = 2,
    embed: int = 1024,
    depth: int = 2,
    heads: int = 4,
    head_width: int = 64,
    mlp: int = 2048,
    dropout: float = 0.1,
    dropout_at: Sequence[Literal["embedding", "weights", "projection", "hidden", "output"]] = ...,
    pool: Literal["class", "mean"] = "class",
    init_std: float = 1.0,
) -> Node:
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

def image(
    *,
    depth: int = 1,
    heads: int = 1,
    head_width: int = 64,
    mlp: int = 2048,
    dropout: float = 0.1,
    dropout_at: Sequence[Literal["embedding", "weights", "projection", "hidden", "output"]] = ...,
    patch: int | None = None,
    embed: int | None = None,
    position: bool = False,
    read: Literal["image", "patches"] = "image",
    norm: bool = True,
) -> Node:
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

def timm(
    *,
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
) -> Node:
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
