# Written by `python -m zoo.plugin.stubs zoo_mixer`: what type checkers and editors see of the components.

from typing import Any, Literal

from zoo.plugin import Node

zoo_components: Any

def classifier(
    *,
    patch: int = 8,
    embed: int = 512,
    depth: int = 8,
    token_mlp: int = 256,
    channel_mlp: int = 2048,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> Node:
    """timm's MlpMixer; the defaults are the overview's form at 32x32.

    Args:
        patch: side of a patch, in pixels.
        embed: width of the tokens.
        depth: number of Mixer layers.
        token_mlp: hidden width of the token-mixing MLPs.
        channel_mlp: hidden width of the channel-mixing MLPs.
        dropout: in every MLP, after each of its layers.
        drop_path: chance of skipping a branch for an image.

    Raises:
        ShapeError: the patch does not divide the image.

    Source:
        "MLP-Mixer: An all-MLP Architecture for Vision", table 1.
    """

def image(
    *,
    patch: int = 4,
    embed: int | None = None,
    depth: int = 1,
    token_mlp: int = 256,
    channel_mlp: int = 1024,
    dropout: float = 0.0,
    read: Literal["image", "patches"] = "patches",
    norm: bool = True,
) -> Node:
    """Mixer layers over patches, read back as an image: a part.

    Args:
        patch: side of a patch, in pixels.
        embed: width of the tokens; None: 256, or height*width for `read = "image"`.
        depth: number of Mixer layers.
        token_mlp: hidden width of the token-mixing MLPs.
        channel_mlp: hidden width of the channel-mixing MLPs.
        dropout: in every MLP.
        read: "patches": each token gives its own patch's pixels; "image": each token's features
            are one channel's pixels, as in the Mixture Models' ViT.
        norm: end with a batch norm.

    Raises:
        ShapeError: the patch does not divide the map, or `embed` does not suit `read`.
    """
