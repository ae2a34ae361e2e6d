"""torchvision's classifiers by name."""

from __future__ import annotations

import inspect

import torch
import torchvision
from torch import nn

from zoo.errors import InputError, ShapeError, UnknownNameError
from zoo.plugin.layers import use_cheap_dropout


def names() -> list[str]:
    """Return the names of all of torchvision's image classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def model(*, in_channels: int, height: int, width: int, num_classes: int, name: str) -> nn.Module:
    """Build one of torchvision's classifiers for this image size and class count.

    Args:
        name: torchvision's name ("resnet18"), with or without that of weights ("resnet18.IMAGENET1K_V1"),
            which change nothing about the model.

    Raises:
        UnknownNameError: torchvision has no such classifier.
        ShapeError: not three channels, or an image that the model cannot take.
        InputError: the model refuses the sizes.
    """
    known = names()
    name = name.partition(".")[0]
    if name not in known:
        raise UnknownNameError("torchvision model", name, known, "`zoo list 'torchvision/*'` shows them all")
    if in_channels != 3:
        raise ShapeError(f"torchvision/{name} takes 3 channels, given {in_channels}")
    extra = _sizes(name, height, width)
    if name in ("googlenet", "inception_v3"):
        extra |= {"init_weights": True}
    target = torch.get_default_device()
    # torchvision's RegNets read numbers out of tensors while they are made: meta has none
    place = torch.device("cpu") if target.type == "meta" and name.startswith("regnet") else target
    try:
        with place:
            built = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
    except (AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"torchvision/{name} at {height}x{width}: {reason}") from error
    return use_cheap_dropout(_one_output(built)).to(target)


def _sizes(name: str, height: int, width: int) -> dict[str, object]:
    """The size arguments of the models that are built for one size."""
    builder = torchvision.models.get_model_builder(name)
    fixed = name.startswith("vit_") or "input_size" in inspect.signature(builder).parameters
    if not fixed and name != "maxvit_t":
        return {}
    if height != width:
        raise ShapeError(f"torchvision/{name} takes square images, given {height}x{width}")
    if name != "maxvit_t":
        return {"image_size": height}
    if height % 32 or height < 64:
        raise ShapeError(f"torchvision/{name} takes sides that are multiples of 32, given {height}")
    return {"input_size": (height, width)}


def _one_output(built: nn.Module) -> nn.Module:
    """Leave out the auxiliary classifiers of GoogLeNet and Inception: a model gives one tensor."""
    if hasattr(built, "aux_logits"):
        vars(built)["aux_logits"] = False
        for name in ("AuxLogits", "aux1", "aux2"):
            if hasattr(built, name):
                setattr(built, name, None)
    return built
