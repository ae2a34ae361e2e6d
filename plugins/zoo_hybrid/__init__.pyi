# Written by `python -m zoo.plugin.stubs zoo_hybrid`: what type checkers and editors see of the components.

from collections.abc import Sequence
from typing import Any, Literal

from zoo.plugin import Node

zoo_components: Any

def alternate(*of: Node, repeat: int = 1, residual: bool = False) -> Node:
    """Alternating mixture: each part takes the output of the one before it.

    Args:
        repeat: how many blocks of these parts follow one another.
        residual: add each part's input to its output.

    Raises:
        ShapeError: no part, or `repeat` below 1.

    Source:
        Mixture Models, the alternating mixture.
    """

def classifier(*, body: Node | None = None, stem: Node | None = None, head: Node | None = None) -> Node:
    """Stem, then body, then head, each but the head may be left out.

    Args:
        body: a part or combinator.
        stem: brings the image to the body's shape; none: the image itself.
        head: map to logits; none: a linear layer on the flattened map, as in the source.

    Raises:
        PluginError: the stem has no `out_shape`.

    Source:
        Mixture Models (without stem, with the flatten-linear head).
    """

def ensemble(
    *,
    members: Sequence[Node],
    mean: Sequence[Sequence[float]] | None = None,
    std: Sequence[Sequence[float]] | None = None,
    temperature: Sequence[float] | None = None,
    order: Sequence[Sequence[int]] | None = None,
    several_labels: bool = False,
) -> Node:
    """What stands for the logits of the mean of the members' probabilities: its softmax (or sigmoid) is the mean.

    Args:
        members: classifiers of the same images and classes.
        mean: for each member, one number a channel (or one for all) that it subtracts from an image; none: 0.
        std: for each member, one number a channel (or one for all) that it divides an image by; none: 1.
        temperature: for each member, what its logits are divided by; none: 1.
        order: for each member, which of its logits stands for the first class, the second, ...; none: as they come.
        several_labels: an image may have several labels, so that each class has a probability of its own, by the
            sigmoid of its logit.

    Raises:
        InputError: a list has another length than `members`.

    Source:
        Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles", NeurIPS 2017, section 2.4.
    """

def flatten() -> Node:
    """Linear layer on the flattened map."""

def joint(
    *of: Node,
    repeat: int = 1,
    norm: Literal["none", "branch", "shared"] = "none",
    fuse: Literal["sum", "mean", "weights", "gate", "concat"] = "sum",
    residual: bool = False,
) -> Node:
    """Joint mixture: all parts take the same input, and their outputs are fused.

    Args:
        repeat: how many such blocks follow one another.
        norm: batch norm on the branches' outputs: none; one for each branch of each block; or one
            shared by all branches and blocks.
        fuse: "sum", "mean", "weights" (one learned weight a branch), "gate" (softmax over branches
            per image and channel), "concat" (1x1 convolution over all branches' channels).
        residual: add each block's input to its output.

    Raises:
        ShapeError: no part, or `repeat` below 1.

    Source:
        Mixture Models, the joint mixture (sum; the Perceiver's with one shared norm).
    """

def pool(*, pool: Literal["mean", "max"] = "mean", norm: bool = True, dropout: float = 0.0) -> Node:
    """Global pooling, layer norm and a linear layer: few parameters, any size.

    Args:
        pool: mean or maximum over the map.
        norm: layer norm after pooling.
        dropout: before the linear layer.
    """
