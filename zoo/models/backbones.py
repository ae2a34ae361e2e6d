"""Models as backbones: what timm's `pretrained_cfg` says of them, and their feature maps alone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from zoo.errors import InputError


def described(module: nn.Module, *, in_channels: int, height: int, width: int, num_classes: int) -> nn.Module:
    """The module, with timm's `pretrained_cfg` where it answers timm's conventions and has none.

    How images are normalised is not known to a module; whoever knows it says so by `with_preprocessing`.
    """
    if callable(getattr(module, "reset_classifier", None)) and not getattr(module, "pretrained_cfg", None):
        module.pretrained_cfg = {  # type: ignore[assignment]
            "input_size": (in_channels, height, width),
            "fixed_input_size": True,
            "num_classes": num_classes,
            "classifier": _classifier(module),
            "first_conv": None,
            "pool_size": None,
            "mean": (0.5,) * in_channels,
            "std": (0.5,) * in_channels,
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "interpolation": "bilinear",
        }
    return module


def _classifier(module: nn.Module) -> str:
    """The name of the layer that gives the logits; "" for a head without a linear layer."""
    try:
        last = module.get_classifier()  # type: ignore[operator]
    except InputError:
        return ""
    return next((name for name, part in module.named_modules() if part is last), "")


def with_preprocessing(module: nn.Module, known: Mapping[str, Any]) -> None:
    """Say in the module's `pretrained_cfg` how its images are prepared; nothing where it has none.

    Args:
        known: `mean`, `std`, `crop_pct`, `crop_mode`, `interpolation`, `input_size`, `num_classes`, or some of them.
    """
    if isinstance(given := getattr(module, "pretrained_cfg", None), Mapping) and given:
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
        module.pretrained_cfg = {**given, **values}  # type: ignore[assignment]


class FeatureMaps(nn.Module):
    """A model without its head, that gives maps of several sizes: as timm's `create_model(..., features_only=True)`.

    Attributes:
        model: the model, whose last layer is gone. feature_info: `channels()`, `reduction()` and `module_name()` of the
            maps, as timm's.
    """

    def __init__(self, model: nn.Module, name: str, out_indices: Sequence[int] | None = None) -> None:
        """Take the maps of a model.

        Args:
            name: of the model, for messages. out_indices: which of its maps, by their places; None: all.
        Raises:
            InputError: the model has no maps, or no such one.
        """
        from timm.models import FeatureInfo  # takes a second, and few need it

        super().__init__()
        infos = getattr(model, "feature_info", None)
        if not infos or not callable(getattr(model, "forward_intermediates", None)):
            raise InputError(
                f"{name} has no feature maps: it reads an image as tokens, or is no model of ours or of timm's; "
                "`zoo.embed` gives one vector for each image by any model"
            )
        count = len(infos)
        places = tuple(range(count)) if out_indices is None else tuple(out_indices)
        if not places or any(not -count <= place < count for place in places):
            raise InputError(f"out_indices={places}: {name} has the maps 0 to {count - 1}")
        self.out_indices = tuple(place % count for place in places)
        self.feature_info = FeatureInfo([dict(info) for info in infos], self.out_indices)
        with contextlib.suppress(InputError):  # a head without a linear layer: it is not computed anyway
            model.reset_classifier(0)  # type: ignore[operator]
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) to the maps, each (B, C', H', W')."""
        maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
            images, indices=list(self.out_indices), intermediates_only=True
        )
        return maps
