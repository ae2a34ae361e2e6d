# Written by `python -m zoo.plugin.stubs zoo_perceiver`: what type checkers and editors see of the components.

from collections.abc import Sequence
from typing import Any, Literal

from zoo.plugin import Node

zoo_components: Any

def classifier(
    *,
    depth: int = 4,
    latents: int = 32,
    latent_width: int = 32,
    cross_heads: int = 2,
    cross_head_width: int = 16,
    latent_heads: int = 8,
    latent_head_width: int = 16,
    self_attentions: int = 2,
    bands: int = 6,
    max_freq: float = 10.0,
    dropout: float = 0.2,
    dropout_at: Sequence[Literal["weights", "projection", "hidden", "output"]] = ("weights", "output"),
) -> Node:
    """Perceiver classifier for images of any size; `Perceiver` describes the arguments.

    Source:
        Mixture Models, "Perceiver part".
    """

def image(
    *,
    depth: int = 4,
    latents: int = 32,
    latent_width: int = 32,
    cross_heads: int = 2,
    cross_head_width: int = 16,
    latent_heads: int = 8,
    latent_head_width: int = 16,
    self_attentions: int = 2,
    bands: int = 6,
    max_freq: float = 10.0,
    dropout: float = 0.2,
    dropout_at: Sequence[Literal["weights", "projection", "hidden", "output"]] = ("weights", "output"),
    read: Literal["mean", "query"] = "mean",
) -> Node:
    """Perceiver as a part; `Perceiver` describes the arguments that are not below.

    Args:
        read: "mean": one linear layer from the mean latent to all pixels (the source's way);
            "query": each pixel attends to the latents (Perceiver IO), with far fewer parameters.

    Source:
        Mixture Models, "Perceiver part".
    """
