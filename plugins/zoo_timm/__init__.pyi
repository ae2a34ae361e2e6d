# Written by `python -m zoo.plugin.stubs zoo_timm`: what type checkers and editors see of the components.

from typing import Any

from zoo.plugin import Node

zoo_components: Any

def model(*, name: str, dropout: float = 0, drop_path: float = 0) -> Node:
    """Build one of timm's models for this image size and class count.

    Args:
        name: timm's name, with or without a tag ("vit_tiny_patch16_224.augreg_in21k").
        dropout: before the classes.
        drop_path: stochastic depth, where the model has it.

    Raises:
        UnknownNameError: timm has no such model.
        InputError: the model refuses these sizes or arguments.
    """
