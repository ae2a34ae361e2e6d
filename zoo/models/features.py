"""The features of a model: what it makes of an image before its last layer tells the classes apart, or at any layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InputError, UnknownNameError

PRE_LOGITS = "pre_logits"
"""The name, as in timm, of the features that the last layer takes."""


@dataclass(frozen=True)
class Feature:
    """One vector for each image, taken from a model.

    Attributes:
        name: "pre_logits", or the name of a layer. width: of the vector.
        read: prepared floats (B, C, H, W) to floats (B, width); what comes after the layer is not computed.
    """

    name: str
    width: int
    read: Callable[[Tensor], Tensor] = field(repr=False)


class _ReachedError(Exception):
    """Ends a forward pass at the layer whose input or output is wanted."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def feature_of(module: nn.Module, image: Tensor, num_classes: int, layer: str | None = None) -> Feature:
    """The features of a model before its classes, or at a layer.

    A map (B, C, H, W) is averaged over its places, tokens (B, N, D) over the tokens. The features before the classes
    are those of timm's `forward_head(..., pre_logits=True)` where a module has it, else what its last linear layer
    takes. A layer that computes more than once in a pass gives what it gave first.

    Args:
        module: in eval mode. image: one prepared image (1, C, H, W), on the module's device, that is tried out.
        num_classes: logits of the module. layer: a module's name as in `named_modules`; None: before the classes.
    Raises:
        UnknownNameError: no such layer; suggests the nearest. InputError: it has no features of this kind.
    """
    before = _before_classes(module, image, num_classes) if layer is None else (layer, _output_of(module, layer))
    name, values = before
    channels_last = str(getattr(module, "output_fmt", "NCHW")).endswith("NHWC")  # of timm's Swin and the like

    def read(images: Tensor) -> Tensor:
        return _pooled(values(images), name, channels_last).float()

    with torch.inference_mode():
        width = read(image).shape[1]
    return Feature(name, width, read)


def _before_classes(module: nn.Module, image: Tensor, num_classes: int) -> tuple[str, Callable[[Tensor], Any]]:
    features, head = getattr(module, "forward_features", None), getattr(module, "forward_head", None)
    if (
        callable(features)
        and callable(head)
        and PRE_LOGITS in inspect.signature(head).parameters
        and _knows_its_classifier(module)
    ):
        return PRE_LOGITS, lambda images: head(features(images), pre_logits=True)
    last = last_layer(module, num_classes)
    if last is None:
        raise InputError("the model has no linear layer before its logits; name the layer whose output is wanted")
    if len(names := _layers_of_classes(module, num_classes)) > 1 and not _gives_the_logits(module, last, image):
        raise InputError(
            f"the logits of this model come from several layers ({', '.join(names[:4])}), each with features of its "
            "own; name the layer whose output is wanted"
        )
    return PRE_LOGITS, lambda images: _run_to(module, last, images, "input")


def _knows_its_classifier(module: nn.Module) -> bool:
    """Whether a module that answers timm's conventions has features; a tree with a convolution at its end has none."""
    try:
        getattr(module, "get_classifier", tuple)()
    except InputError:
        return False
    return True


def last_layer(module: nn.Module, num_classes: int) -> str | None:
    """The name of the last layer with an output for each class: a linear one, or a convolution; None if there is none.

    Of layers with as many outputs the last one counts, in the order of `named_modules`.
    """
    names = _layers_of_classes(module, num_classes)
    return names[-1] if names else None


def _layers_of_classes(module: nn.Module, num_classes: int) -> list[str]:
    """The names of all layers with an output for each class."""
    return [
        name
        for name, layer in module.named_modules()
        if num_classes in (getattr(layer, "out_features", 0), getattr(layer, "out_channels", 0))
    ]


def _gives_the_logits(module: nn.Module, layer: str, image: Tensor) -> bool:
    """Whether what a layer gives are the model's logits."""
    with torch.inference_mode():
        logits, output = module(image), _run_to(module, layer, image, "output")
    return output.shape == logits.shape and torch.allclose(output, logits, atol=1e-5)


def _output_of(module: nn.Module, layer: str) -> Callable[[Tensor], Any]:
    known = [name for name, _ in module.named_modules() if name]
    if layer not in known:
        raise UnknownNameError("layer", layer, known)
    return lambda images: _run_to(module, layer, images, "output")


def _run_to(module: nn.Module, layer: str, images: Tensor, side: str) -> Any:
    """The input or the output of a layer; the pass ends there.

    Raises:
        InputError: the layer does not compute.
    """

    def before(_: nn.Module, args: tuple[Any, ...]) -> None:
        raise _ReachedError(args[0] if args else None)

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        raise _ReachedError(output)

    chosen = module.get_submodule(layer)
    handle = chosen.register_forward_pre_hook(before) if side == "input" else chosen.register_forward_hook(after)
    try:
        module(images)
    except _ReachedError as reached:
        return reached.value
    finally:
        handle.remove()
    raise InputError(f"the layer {layer} does not compute in a forward pass of the model; name another one")


def _pooled(values: Any, name: str, channels_last: bool) -> Tensor:
    """(B, D): a map averaged over its places, tokens over the tokens.

    Raises:
        InputError: it is neither, nor (B, D) itself.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim not in (2, 3, 4):
        what = f"a tensor of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"the layer {name} gives {what}, not floats (B, D), (B, N, D) or (B, C, H, W); name another one"
        )
    if values.ndim == 4:
        return values.mean((1, 2)) if channels_last else values.mean((2, 3))
    return values.mean(1) if values.ndim == 3 else values
