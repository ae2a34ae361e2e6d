"""The MLP-Mixer on timm's classes."""

from __future__ import annotations

from typing import Literal

from timm.models.mlp_mixer import MixerBlock, MlpMixer
from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.plugin.layers import image_reader, patch_grid, patchify, token_width, use_cheap_dropout


def _ratios(width: int, depth: int, token_mlp: int, channel_mlp: int) -> tuple[float, float]:
    """Hidden widths as timm's ratios; timm rounds down, so aim at the middle of the step."""
    sizes = {"width": width, "depth": depth, "token_mlp": token_mlp, "channel_mlp": channel_mlp}
    for name, size in sizes.items():
        if size < 1:
            raise ShapeError(f"mixer: {name} must be at least 1, given {size}")
    return (token_mlp + 0.5) / width, (channel_mlp + 0.5) / width


def classifier(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    patch: int = 8,
    embed: int = 512,
    depth: int = 8,
    token_mlp: int = 256,
    channel_mlp: int = 2048,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
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
    patch_grid(height, width, patch, "mixer.classifier")
    model = MlpMixer(
        num_classes=num_classes,
        img_size=(height, width),
        in_chans=in_channels,
        patch_size=patch,
        num_blocks=depth,
        embed_dim=embed,
        mlp_ratio=_ratios(embed, depth, token_mlp, channel_mlp),
        proj_drop_rate=dropout,
        drop_path_rate=drop_path,
    )
    return use_cheap_dropout(model)


class MixerImage(nn.Module):
    """Patches, Mixer layers, and back to the image."""

    def __init__(self, patch: int, embed: nn.Linear, layers: nn.Module, read: nn.Module) -> None:
        super().__init__()
        self.patch = patch
        self.embed = embed
        self.layers = layers
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.read(self.layers(self.embed(patchify(x, self.patch))))


def image(
    *,
    channels: int,
    height: int,
    width: int,
    patch: int = 4,
    embed: int | None = None,
    depth: int = 1,
    token_mlp: int = 256,
    channel_mlp: int = 1024,
    dropout: float = 0.0,
    read: Literal["image", "patches"] = "patches",
    norm: bool = True,
) -> nn.Module:
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
    rows, columns = patch_grid(height, width, patch, "mixer.image")
    size = token_width(read, embed, height, width, "mixer.image")
    ratios = _ratios(size, depth, token_mlp, channel_mlp)
    layers = nn.Sequential(*(MixerBlock(size, rows * columns, ratios, drop=dropout) for _ in range(depth)))
    shape = (channels, height, width)
    reader = image_reader(read, tokens=rows * columns, features=size, shape=shape, patch=patch, norm=norm)
    return MixerImage(patch, nn.Linear(channels * patch * patch, size), use_cheap_dropout(layers), reader)
