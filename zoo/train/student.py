"""What a student shows to the loss beside its logits: the features under them, or the logits of two heads."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from zoo.catalogue.recipe import Distill
from zoo.errors import InputError
from zoo.train.optim.freeze import classifiers_of, logits_layer
from zoo.train.optim.layerwise import innermost

SIZES = (("out_features", "in_features"), ("out_channels", "in_channels"))
"""How a linear layer and a convolution name the sizes of what they give and of what they read."""

OTHERWISE = "set distill.kind to logits or hard"


class Last(NamedTuple):
    """The layer that gives the logits, and how many features it reads."""

    layer: nn.Module
    size: int


def last_layer(module: nn.Module, num_classes: int, whose: str) -> Last:
    """Find the linear layer, or the convolution, that gives a module's logits.

    Raises:
        InputError: there is none with an output for each class.
    """
    for name in (name for name in sorted(logits_layer(module)) if name.endswith("weight")):
        layer = module.get_submodule(name.rpartition(".")[0])
        for outside, inside in SIZES:
            if getattr(layer, outside, 0) == num_classes:
                return Last(layer, getattr(layer, inside))
    raise InputError(
        f"distill.kind features: {whose} does not end with a linear layer that gives its {num_classes} logits, so that "
        f"its features are not known; {OTHERWISE}"
    )


def two_heads(module: nn.Module, whose: str) -> tuple[nn.Module, nn.Module]:
    """The head of the class token and that of the distillation token, as timm names them.

    Raises:
        InputError: the module has no distillation token.
    """
    heads = classifiers_of(innermost(module)[0])
    if len(heads) == 2:
        return heads[0], heads[1]
    raise InputError(
        f"distill.kind token: {whose} has no distillation token; take a model that has one, such as vit.timm with "
        f"distilled = true or timm/deit_tiny_distilled_patch16_224, or {OTHERWISE}"
    )


def refuse_student(module: nn.Module, how: Distill, num_classes: int, name: str) -> None:
    """Refuse a student that does not show what its distillation needs.

    Raises:
        InputError: as `last_layer` and `two_heads`.
    """
    if how.kind == "features":
        last_layer(module, num_classes, name)
    elif how.kind == "token":
        two_heads(module, name)


class Features:
    """What the layer of a module that gives the logits reads, caught at each forward pass.

    Attributes:
        size: how many they are.
    """

    def __init__(self, module: nn.Module, num_classes: int, whose: str) -> None:
        """Listen to the module.

        Raises:
            InputError: as `last_layer`.
        """
        layer, self.size = last_layer(module, num_classes, whose)
        self.by_channel = isinstance(layer, nn.Conv2d)
        self.seen: Tensor | None = None
        layer.register_forward_pre_hook(self._catch)

    def _catch(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self.seen = args[0]

    def take(self) -> Tensor:
        """The features of the last pass, means over places, (B, size)."""
        assert self.seen is not None
        seen, self.seen = self.seen, None
        if self.by_channel:
            return seen.flatten(2).mean(2)
        return seen if seen.ndim == 2 else seen.flatten(1, -2).mean(1)


class Heads:
    """The logits of both heads of a module with a distillation token, caught at each forward pass.

    Source: Touvron et al., "Training data-efficient image transformers", section 4.
    """

    def __init__(self, module: nn.Module, whose: str) -> None:
        """Listen to the module.

        Raises:
            InputError: as `two_heads`.
        """
        self.seen: list[Tensor | None] = [None, None]
        for place, head in enumerate(two_heads(module, whose)):
            head.register_forward_hook(self._catcher(place))

    def _catcher(self, place: int) -> Any:
        def catch(head: nn.Module, args: tuple[Any, ...], logits: Tensor) -> None:
            self.seen[place] = logits

        return catch

    def take(self, place: int) -> Tensor:
        """The logits of the last pass, (B, K): of the class token (0), or of the distillation token (1)."""
        seen, self.seen[place] = self.seen[place], None
        assert seen is not None
        return seen
