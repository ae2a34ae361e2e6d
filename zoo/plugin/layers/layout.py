"""Conversions between feature maps (B, C, H, W) and tokens (B, N, D)."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.errors import ShapeError


def map_to_tokens(x: Tensor) -> Tensor:
    """Read each pixel as a token.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, H*W, C), a view; contiguous where `x` is channels-last.
    """
    return x.flatten(2).transpose(1, 2)


def tokens_to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """Read each token as a pixel: the inverse of `map_to_tokens`.

    Args:
        tokens: (B, height*width, C).
        height: rows of the map.
        width: columns of the map.

    Returns:
        (B, C, height, width), a view; channels-last where `tokens` is contiguous.

    Raises:
        ShapeError: the number of tokens is not height*width.
    """
    if tokens.shape[1] != height * width:
        raise ShapeError(
            f"{tokens.shape[1]} tokens do not form a map of {height}x{width}, which needs {height * width}"
        )
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def patch_grid(height: int, width: int, patch: int, what: str = "patches") -> tuple[int, int]:
    """Rows and columns of patches of side `patch`.

    Args:
        height: rows of the image.
        width: columns of the image.
        patch: side of a patch, in pixels.
        what: the name of the patches, for the message.

    Returns:
        (rows, columns).

    Raises:
        ShapeError: the side does not divide the image.
    """
    if patch < 1 or height % patch or width % patch:
        raise ShapeError(
            f"{what}: patch side {patch} does not divide {height}x{width}; "
            f"choose a divisor of both, or another image size"
        )
    return height // patch, width // patch


def divisor_at_most(size: int, most: int) -> int:
    """Return the largest divisor of `size` that is at most `most` (and at least 1)."""
    return max(d for d in range(1, max(most, 1) + 1) if size % d == 0)


def patchify(x: Tensor, patch: int) -> Tensor:
    """Cut an image into square patches, row by row.

    Args:
        x: (B, C, H, W), H and W multiples of `patch`.
        patch: side of a patch, in pixels.

    Returns:
        (B, H/patch * W/patch, patch*patch*C), each patch flattened as (row, column, channel).
    """
    if patch == 1:
        return map_to_tokens(x)
    b, c, h, w = x.shape
    grid = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // patch) * (w // patch), patch * patch * c)


def unpatchify(tokens: Tensor, patch: int, height: int, width: int) -> Tensor:
    """Lay patches out as an image: the inverse of `patchify`.

    Args:
        tokens: (B, height/patch * width/patch, patch*patch*C).
        patch: side of a patch, in pixels.
        height: rows of the image.
        width: columns of the image.

    Returns:
        (B, C, height, width).
    """
    if patch == 1:
        return tokens_to_map(tokens, height, width)
    b, _, features = tokens.shape
    c, rows, columns = features // (patch * patch), height // patch, width // patch
    grid = tokens.reshape(b, rows, columns, patch, patch, c)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(b, c, height, width)


def tokens_to_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """Read each token's features as one channel of an image.

    Args:
        tokens: (B, N, height*width), any float dtype.
        height: rows of the image.
        width: columns of the image.

    Returns:
        (B, N, height, width), a view of the same storage.

    Raises:
        ShapeError: the token width is not height*width.

    Source:
        Mixture Models, the step from the ViT part back to an image.
    """
    if tokens.shape[-1] != height * width:
        raise ShapeError(
            f"tokens of width {tokens.shape[-1]} do not form images of {height}x{width}; "
            f"the width must be {height * width}"
        )
    return tokens.unflatten(2, (height, width))


class TokensToImage(nn.Module):
    """Tokens read as channels of an image, then a 3x3 transposed convolution to few channels.

    Args:
        tokens: number of tokens N.
        channels: channels C of the result.
        height: rows of the image; tokens are height*width wide.
        width: columns of the image.
        norm: end with a batch norm (the "normalisation" of the source's ablation).

    Source:
        Mixture Models, "tokens to image".
    """

    def __init__(self, tokens: int, channels: int, height: int, width: int, norm: bool = True) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.conv = nn.ConvTranspose2d(tokens, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, height*width) to (B, C, height, width)."""
        return self.norm(self.conv(tokens_to_image(tokens, self.height, self.width)))


class TokensToPatches(nn.Module):
    """Each token projected to the pixels of its own patch.

    Args:
        features: width D of the tokens.
        channels: channels C of the result.
        height: rows of the image.
        width: columns of the image.
        patch: side of a patch, in pixels.
        norm: end with a batch norm.
    """

    def __init__(self, features: int, channels: int, height: int, width: int, patch: int, norm: bool = True) -> None:
        super().__init__()
        self.patch, self.height, self.width = patch, height, width
        self.linear = nn.Linear(features, patch * patch * channels)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, C, height, width)."""
        return self.norm(unpatchify(self.linear(tokens), self.patch, self.height, self.width))


def token_width(read: str, embed: int | None, height: int, width: int, who: str) -> int:
    """The width of tokens that `image_reader` reads back as an image of this size.

    Args:
        read: "image" or "patches", see `image_reader`.
        embed: the width asked for; None: height*width for "image", 256 for "patches".
        height: rows of the image.
        width: columns of the image.
        who: the component, for the message.

    Raises:
        ShapeError: another width than height*width was asked for, and `read` is "image".
    """
    size = embed or (height * width if read == "image" else 256)
    if read == "image" and size != height * width:
        raise ShapeError(
            f'{who}: read = "image" needs embed = height*width = {height * width}, given {size}; '
            f'leave embed out, or use read = "patches"'
        )
    return size


def image_reader(
    read: str, *, tokens: int, features: int, shape: tuple[int, int, int], patch: int, norm: bool = True
) -> nn.Module:
    """What reads tokens back as an image.

    Args:
        read: "image": `TokensToImage`; "patches": `TokensToPatches`.
        tokens: number of tokens.
        features: their width.
        shape: (C, H, W) of the image.
        patch: side of a patch, in pixels.
        norm: end with a batch norm.
    """
    channels, height, width = shape
    if read == "image":
        return TokensToImage(tokens, channels, height, width, norm)
    return TokensToPatches(features, channels, height, width, patch, norm)
