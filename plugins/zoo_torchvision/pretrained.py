"""torchvision's pretrained weights, by its own enumerations of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.models import WeightsEnum, get_model, get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from zoo.errors import InputError, UnknownNameError
from zoo.plugin import Pretrained, Transform
from zoo_torchvision.models import names

PORTED = ("googlenet", "inception_v3")
"""torchvision changes what its transforms have normalised inside of these: their weights know -1..1."""


def pretrained(*, name: str, **unused: object) -> Pretrained:
    """The weights of one of torchvision's classifiers.

    Args:
        name: torchvision's name, alone (its default weights) or with theirs ("resnet50.IMAGENET1K_V2").
        unused: other arguments of the model, which are no matter of its weights.

    Raises:
        UnknownNameError: torchvision has no such model. InputError: none such weights.
    """
    del unused
    model, _, chosen = name.partition(".")
    if model not in names():
        raise UnknownNameError("torchvision model", model, names())
    known = get_model_weights(model)
    if chosen and chosen not in known.__members__:
        raise InputError(f"torchvision/{model} has no weights {chosen!r}; it has {', '.join(known.__members__)}")
    weights: WeightsEnum = known[chosen or "DEFAULT"]
    how, classes = weights.transforms(), tuple(weights.meta.get("categories") or ())
    ported = model in PORTED
    return Pretrained(
        origin=f"torchvision/{model}.{weights.name}",
        load=lambda **sizes: _load(model, weights, **sizes),
        transform=transform_of(how),
        mean=(0.5, 0.5, 0.5) if ported else tuple(how.mean),
        std=(0.5, 0.5, 0.5) if ported else tuple(how.std),
        where=weights.url,
        num_classes=len(classes),
        classes=classes,
        other_names=lambda: _other_names(classes),
    )


def _other_names(classes: tuple[str, ...]) -> list[list[str]]:
    """Of ImageNet's classes, WordNet's numbers and descriptions: timm has them, in the same order."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.label_names(), info.label_descriptions()] if len(classes) == info.num_classes() else []


def transform_of(how: Any) -> Transform:
    """What `weights.transforms()` does to an image, as data."""
    side = how.crop_size[0]
    return Transform(
        size=(side, side), resize=how.resize_size[0], interpolation=how.interpolation.value, rounding="torchvision"
    )


def _load(model: str, weights: WeightsEnum, *, in_channels: int, height: int, width: int) -> dict[str, Tensor]:
    """With the head that the weights have; a ViT's position embeddings are resampled by torchvision."""
    del in_channels, width
    built = get_model(model, weights=weights)
    state = dict(built.state_dict())
    if model.startswith("vit_") and height != built.image_size:
        state = dict(interpolate_embeddings(height, built.patch_size, state))
    return state
