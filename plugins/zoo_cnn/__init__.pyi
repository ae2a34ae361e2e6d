# Written by `python -m zoo.plugin.stubs zoo_cnn`: what type checkers and editors see of the components.

from collections.abc import Sequence
from typing import Any, Literal

from zoo.plugin import Node

zoo_components: Any

def baseline(
    *,
    widths: Sequence[int] = (6, 12, 24),
    dense: Sequence[int] = (120, 84),
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> Node:
    """5x5 convolutions with ReLU and 2x2 max pooling, then dense layers.

    Args:
        widths: channels of the convolutions.
        dense: widths of the dense layers before the last.
        batch_norm: after each convolution, before its ReLU.
        dropout: after each convolution's ReLU and after flattening.

    Raises:
        ShapeError: the image is smaller than the pools need.

    Source:
        From CNN to other models, the baseline CNN and its variants.
    """

def depthwise(*, depth: int = 1, kernel: int = 7, ratio: int = 4) -> Node:
    """Inverted-bottleneck layers with depthwise convolutions: a light part for wide maps.

    Args:
        depth: number of layers.
        kernel: side of the depthwise kernel, odd.
        ratio: how much wider the inside is.

    Raises:
        ShapeError: the kernel's side is even.
    """

def residual(*, widths: Sequence[int] = (32, 32, 128, 128)) -> Node:
    """Residual layers at full resolution, through `widths` channels and back to `channels`.

    Args:
        widths: channels after each layer but the last.

    Source:
        Mixture Models, the residual CNN (five layers: 3, 32, 32, 128, 128, 3).
    """

def resnet9(*, widths: Sequence[int] = (64, 128, 256, 512), dropout: float = 0.0, scale: float = 0.125) -> Node:
    """A convolution; three with pooling, the first and last with a residual pair; pooled maximum.

    Args:
        widths: channels of the four stages.
        dropout: before the classes.
        scale: constant on the logits, which keeps early steps small at large learning rates.

    Raises:
        ShapeError: the image is smaller than 8x8, or there are not four widths.

    Source:
        David Page, "How to Train Your ResNet" (the DAWNBench network).
    """

def scaled_head(*, pool: int = 2, scale: float | None = None) -> Node:
    """Maximum pooling, linear without bias, logits times a small constant: large steps stay stable.

    Args:
        pool: side of the squares; the map's own side where that is smaller.
        scale: the constant; none: 1 / root of the number of features, which gives logits of variance 1.

    Raises:
        InputError: `pool` is not positive.
    """

def stages(*, widths: Sequence[int] = (64, 256, 256), keep: float = 0.6) -> Node:
    """Stages of two convolutions that begin as the identity, each with half the pixels of the one before.

    Args:
        widths: channels after each stage.
        keep: share of the running statistics of batch norm that a step leaves as they were.

    Raises:
        ShapeError: the map is too small to be halved so often. InputError: `keep` is not in 0..1.
    """

def stem(
    *, widths: Sequence[int] = (64, 64), strides: Sequence[int] = (1, 2), act: Literal["relu", "gelu"] = "relu"
) -> Node:
    """3x3 convolutions with batch norm: fewer pixels, more channels.

    Args:
        widths: channels after each convolution.
        strides: stride of each convolution; as many as `widths`.
        act: activation after each.

    Raises:
        ShapeError: `widths` and `strides` differ in length, or the strides exceed the image.
    """

def vgg16(*, dense: int = 512, dropout: float = 0.0) -> Node:
    """Configuration D with batch norm, one dense layer with batch norm, and the classes.

    Args:
        dense: width of the dense layer.
        dropout: before each of the two dense layers.

    Raises:
        ShapeError: the image is smaller than 32x32.

    Source:
        From CNN to other models, VGG16; the CIFAR adaptation is Liu & Deng's.
    """

def whiten(*, kernel: int = 2, eps: float = 0.0005, then: Node | None = None) -> Node:
    """A frozen convolution that whitens patches of the training images, GELU, and another stem after it.

    Args:
        kernel: side of the patches.
        eps: added to the variances, which keeps noise from being blown up.
        then: a stem on what comes out; none: nothing.

    Raises:
        ShapeError: the image is smaller than a patch.
    """

def wide(*, depth: int = 16, widen: int = 4, dropout: float = 0) -> Node:
    """Wide residual network: three stages of pre-activation blocks at strides 1, 2, 2.

    Args:
        depth: layers, 6n + 4.
        widen: factor on the widths 16, 32, 64.
        dropout: between the two convolutions of each block.

    Raises:
        ShapeError: `depth` is not 6n + 4, or the image is smaller than 4x4.

    Source:
        "Wide Residual Networks", table 1.
    """
