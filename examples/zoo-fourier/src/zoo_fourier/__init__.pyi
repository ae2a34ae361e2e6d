# Written by `python -m zoo.plugin.stubs zoo_fourier`: what type checkers and editors see of the components.

from typing import Any

from zoo.plugin import Node

zoo_components: Any
zoo_registry: Any

def filter(*, depth: int = 2, expand: int = 2) -> Node:
    """`depth` global filter layers.

    Args:
        depth: number of layers.
        expand: hidden channels of the MLP over channels.

    Raises:
        ShapeError: `depth` below 1.
    """
