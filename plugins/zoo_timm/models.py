"""timm's models by name."""

from __future__ import annotations

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import nn

from zoo.errors import InputError, UnknownNameError
from zoo.plugin.layers import use_cheap_dropout

HUB = "hf-hub:"
"""Begins the name of weights in a repository of timm's layout."""


def names() -> list[str]:
    """Return the names of all of timm's models."""
    return list(timm.list_models())


def model(
    *, in_channels: int, height: int, width: int, num_classes: int, name: str, dropout: float = 0, drop_path: float = 0
) -> nn.Module:
    """Build one of timm's models for this image size and class count.

    Args:
        name: timm's name, with or without a tag ("vit_tiny_patch16_224.augreg_in21k").
        dropout: before the classes.
        drop_path: stochastic depth, where the model has it.

    Raises:
        UnknownNameError: timm has no such model.
        InputError: the model refuses these sizes or arguments.
    """
    if name.startswith(HUB):
        raise InputError(f"timm/{name} names weights and no model: `zoo train timm/MODEL --weights timm/{name}`")
    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, names(), "`zoo list timm/*` shows them all")
    extra: dict[str, object] = {}
    if dropout:
        extra["drop_rate"] = dropout
    if drop_path:
        extra["drop_path_rate"] = drop_path
    config = _configuration(name)
    if config is not None and config.fixed_input_size:
        extra["img_size"] = (height, width)
    try:
        built = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **extra)
    except (AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"timm/{name} at {height}x{width} with {in_channels} channels: {reason}") from error
    return use_cheap_dropout(built)


def _configuration(name: str) -> PretrainedCfg | None:
    try:
        return get_pretrained_cfg(name)
    except RuntimeError as error:  # timm's answer to a tag that it does not have
        plain, _, tag = name.partition(".")
        has = ", ".join(timm.list_pretrained(f"{plain}.*")[:4]) or f"{plain} alone"
        raise InputError(f"timm's {plain} has no tag {tag!r}; it has {has}") from error
