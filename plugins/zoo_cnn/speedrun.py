"""A whitened first layer, stages that begin as the identity, and a scaled head: to learn in seconds.

Source for all of this file:
    Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), sections 2 and 3, and its successors in the
    repository KellerJordan/cifar10-airbench; the whitening layer is Page's and tysam-code's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import InputError, ShapeError

Builder = Callable[..., nn.Module]


class Whiten(nn.Module):
    """Patches in the basis in which those of the training images are uncorrelated and of variance 1, and GELU.

    Each eigenvector of the patches' second moments stands twice, with either sign, since GELU lets only one
    side pass. The kernel is frozen, the bias is trained. Until `fit_to_images` was called, the kernel is random.
    """

    def __init__(self, in_channels: int, kernel: int, eps: float) -> None:
        super().__init__()
        self.kernel, self.eps = kernel, eps
        self.conv = nn.Conv2d(in_channels, 2 * in_channels * kernel**2, kernel)
        self.conv.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2 * C * kernel**2, H - kernel + 1, W - kernel + 1)."""
        return F.gelu(self.conv(x))

    @torch.no_grad()
    def fit_to_images(self, images: Tensor) -> None:
        """Set the kernel; the trainer calls this once before the first step.

        Args:
            images: float32 (N, C, H, W), as the model takes them.
        """
        images = images.cpu() if images.device.type == "mps" else images  # which has no float64
        size = self.conv.weight[0].numel()
        moments = torch.zeros(size, size, dtype=torch.float64, device=images.device)
        count = 0
        for part in images.split(256):
            patches = F.unfold(part, self.kernel).transpose(0, 1).flatten(1).double()
            moments += patches @ patches.T
            count += patches.shape[1]
        # A GPU is waited for once, and one small decomposition is faster on the host.
        values, vectors = torch.linalg.eigh(moments.cpu() / count)
        rows = _turned(vectors.T) / (values.clamp(min=0)[:, None] + self.eps).sqrt()
        self.conv.weight.copy_(torch.cat((rows, -rows)).view(self.conv.weight.shape))


def _turned(rows: Tensor) -> Tensor:
    """Each row or its negative, so that its largest element is positive: libraries differ in the sign."""
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign()


def whiten(
    *, in_channels: int, height: int, width: int, kernel: int = 2, eps: float = 5e-4, then: Builder | None = None
) -> nn.Module:
    """A frozen convolution that whitens patches of the training images, GELU, and another stem after it.

    Args:
        kernel: side of the patches.
        eps: added to the variances, which keeps noise from being blown up.
        then: a stem on what comes out; none: nothing.

    Raises:
        ShapeError: the image is smaller than a patch.
    """
    if kernel < 1 or kernel > min(height, width):
        raise ShapeError(f"cnn.whiten: no patch of side {kernel} fits into {height}x{width}")
    steps: OrderedDict[str, nn.Module] = OrderedDict(whiten=Whiten(in_channels, kernel, eps))
    if then is not None:
        rows, columns = height - kernel + 1, width - kernel + 1
        steps["then"] = then(in_channels=2 * in_channels * kernel**2, height=rows, width=columns)
    return nn.Sequential(steps)


class IdentityConv(nn.Conv2d):
    """A 3x3 convolution without bias whose first filters begin as the identity on their channel."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1, bias=False)

    def reset_parameters(self) -> None:
        """As torch's; then the first `before` filters pass their channel on."""
        super().reset_parameters()
        nn.init.dirac_(self.weight.data[: self.in_channels])


class BiasNorm(nn.BatchNorm2d):
    """Batch norm whose scale stays 1; `keep` is the share of the old running statistics in the new."""

    def __init__(self, channels: int, keep: float) -> None:
        super().__init__(channels, momentum=1 - keep)
        self.weight.requires_grad_(False)


class Stage(nn.Sequential):
    """Convolution, 2x2 maximum, norm, GELU, convolution, norm, GELU: half the pixels, other channels."""

    def __init__(self, before: int, after: int, keep: float) -> None:
        super().__init__()
        self.add_module("conv1", IdentityConv(before, after))
        self.add_module("pool", nn.MaxPool2d(2))
        self.add_module("norm1", BiasNorm(after, keep))
        self.add_module("act1", nn.GELU())
        self.add_module("conv2", IdentityConv(after, after))
        self.add_module("norm2", BiasNorm(after, keep))
        self.add_module("act2", nn.GELU())


def stages(
    *, in_channels: int, height: int, width: int, widths: Sequence[int] = (64, 256, 256), keep: float = 0.6
) -> nn.Module:
    """Stages of two convolutions that begin as the identity, each with half the pixels of the one before.

    Args:
        widths: channels after each stage.
        keep: share of the running statistics of batch norm that a step leaves as they were.

    Raises:
        ShapeError: the map is too small to be halved so often. InputError: `keep` is not in 0..1.
    """
    if not 0 <= keep < 1:
        raise InputError(f"cnn.stages: keep must be at least 0 and below 1, given {keep}")
    least = 2 ** len(widths)
    if min(height, width) < least:
        raise ShapeError(
            f"cnn.stages: a map of {height}x{width} is too small for {len(widths)} stages, "
            f"at least {least}x{least} is needed; give fewer widths"
        )
    pairs = zip([in_channels, *widths], widths, strict=False)
    return nn.Sequential(*(Stage(before, after, keep) for before, after in pairs))


class ScaledLinear(nn.Linear):
    """A linear layer, times a constant.

    Args:
        features: that it takes.
        outputs: that it gives.
        bias: whether it has one.
        scale: the constant.
        unit: whether the weights begin with variance 1, uniform, rather than as torch's.
    """

    def __init__(self, features: int, outputs: int, bias: bool = True, *, scale: float, unit: bool = False) -> None:
        super().__init__(features, outputs, bias)
        self.scale, self.options = scale, {"scale": scale, "unit": unit}
        if unit:
            nn.init.uniform_(self.weight, -math.sqrt(3), math.sqrt(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) to (B, outputs)."""
        return super().forward(x) * self.scale


class MaxSquares(nn.Module):
    """Maxima of squares of the map, or of the whole of a map that is smaller than one."""

    def __init__(self, sides: tuple[int, int]) -> None:
        super().__init__()
        self.sides = sides

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H', W'), with one pixel at least."""
        return F.max_pool2d(x, [min(side, have) for side, have in zip(self.sides, x.shape[2:], strict=True)])

    def extra_repr(self) -> str:
        """The sides of a square, for people."""
        return f"{self.sides[0]}x{self.sides[1]}"


class ScaledHead(nn.Module):
    """Maxima of squares of the map, a linear layer without bias, with weights of variance 1, times a constant."""

    def __init__(self, features: int, num_classes: int, pool: tuple[int, int], scale: float) -> None:
        super().__init__()
        self.pool = MaxSquares(pool)
        self.linear = ScaledLinear(features, num_classes, bias=False, scale=scale, unit=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, num_classes)."""
        return self.linear(self.pre_logits(x))

    def pre_logits(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the features that are classified."""
        return self.pool(x).flatten(1)


def scaled_head(
    *, in_channels: int, height: int, width: int, num_classes: int, pool: int = 2, scale: float | None = None
) -> nn.Module:
    """Maximum pooling, linear without bias, logits times a small constant: large steps stay stable.

    Args:
        pool: side of the squares; the map's own side where that is smaller.
        scale: the constant; none: 1 / root of the number of features, which gives logits of variance 1.

    Raises:
        InputError: `pool` is not positive.
    """
    if pool < 1:
        raise InputError(f"cnn.scaled-head: pool must be at least 1, given {pool}")
    sides = min(pool, height), min(pool, width)
    features = in_channels * (height // sides[0]) * (width // sides[1])
    return ScaledHead(features, num_classes, sides, features**-0.5 if scale is None else scale)
