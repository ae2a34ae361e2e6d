# Written by `python -m zoo.plugin.stubs zoo_torchvision`: what type checkers and editors see of the components.

from typing import Any

from zoo.plugin import Node

zoo_components: Any

def model(*, name: str) -> Node:
    """Build one of torchvision's classifiers for this image size and class count.

    Args:
        name: torchvision's name ("resnet18"), with or without that of weights ("resnet18.IMAGENET1K_V1"),
            which change nothing about the model.

    Raises:
        UnknownNameError: torchvision has no such classifier.
        ShapeError: not three channels, or an image that the model cannot take.
        InputError: the model refuses the sizes.
    """
