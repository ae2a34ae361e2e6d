"""Plugin `cnn`: convolutional parts, stems and classifiers."""

from __future__ import annotations

from zoo.plugin import Component, named, offers

zoo_components = offers(
    Component(
        name="residual",
        kind="part",
        factory="zoo_cnn.blocks:residual_cnn",
        summary="residual 3x3 layers at full resolution, back to the same channels",
    ),
    Component(
        name="depthwise",
        kind="part",
        factory="zoo_cnn.blocks:depthwise_cnn",
        summary="inverted bottlenecks with depthwise convolutions",
    ),
    Component(
        name="stem",
        kind="stem",
        factory="zoo_cnn.blocks:conv_stem",
        summary="3x3 convolutions with batch norm: fewer pixels, more channels",
    ),
    Component(
        name="whiten",
        kind="stem",
        factory="zoo_cnn.speedrun:whiten",
        summary="patches whitened by the training images' own statistics, frozen; then another stem",
    ),
    Component(
        name="stages",
        kind="stem",
        factory="zoo_cnn.speedrun:stages",
        summary="pairs of 3x3 convolutions that begin as the identity, each pair with half the pixels",
    ),
    Component(
        name="scaled-head",
        kind="head",
        factory="zoo_cnn.speedrun:scaled_head",
        summary="maxima of squares, linear without bias, logits times a small constant",
    ),
    Component(
        name="baseline",
        kind="classifier",
        factory="zoo_cnn.classifiers:baseline",
        summary="three 5x5 convolutions with pooling, three dense layers",
    ),
    Component(
        name="vgg16",
        kind="classifier",
        factory="zoo_cnn.classifiers:vgg16",
        summary="VGG-16 with batch norm, adapted to 32x32",
    ),
    Component(
        name="resnet9",
        kind="classifier",
        factory="zoo_cnn.classifiers:resnet9",
        summary="nine-layer residual network made for 32x32",
    ),
    Component(
        name="wide",
        kind="classifier",
        factory="zoo_cnn.classifiers:wide_resnet",
        summary="wide residual network with pre-activation",
    ),
)

__getattr__, __dir__ = named(__name__, "cnn", zoo_components)
