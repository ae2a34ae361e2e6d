"""Refuse smaller images in the first epochs where they cannot be: see `progressive-size`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.base.text import first_line
from zoo.catalogue.recipe import Recipe
from zoo.data.augment.progressive import sizes_of_epochs
from zoo.errors import InputError
from zoo.runs.record import Sizes

Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def refuse_smaller_images(outline: nn.Module, recipe: Recipe, sizes: Sizes, name: str) -> None:
    """Refuse a recipe whose first epochs have smaller images than the model can take.

    Args:
        outline: the model without memory (on the device "meta").
        name: of the model.
    Raises:
        InputError: the model has one size, or the run learns to fill in squares of it.
    """
    whole = (sizes.height, sizes.width)
    for size in sizes_of_epochs(recipe.augment, whole):
        if recipe.objective == "masked":
            raise InputError('recipe.objective "masked" cannot be combined with progressive-size; leave the step out')
        try:
            _forward(outline, sizes.in_channels, size)
        except Exception as error:
            if _takes(outline, sizes.in_channels, whole):
                raise InputError(
                    f"{name} cannot take images of {size[1]}x{size[0]}, as progressive-size makes them of "
                    f"{whole[1]}x{whole[0]} in the first epochs ({first_line(error, None)}); give a larger scale, or "
                    "leave the step out: convolutional models that end in a mean of the whole map take any size"
                ) from error


def _takes(outline: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    try:
        _forward(outline, channels, size)
    except Exception:
        return False  # it cannot be tried without memory: the first step will tell
    return True


@torch.no_grad()
def _forward(outline: nn.Module, channels: int, size: tuple[int, int]) -> None:
    training = outline.training
    transposed = [module for module in outline.modules() if isinstance(module, Transposed)]
    checks = [module.register_forward_pre_hook(_refuse_channels) for module in transposed]
    try:
        outline.eval()(torch.empty(2, channels, *size, device="meta"))
    finally:
        outline.train(training)
        for check in checks:
            check.remove()


def _refuse_channels(module: Transposed, inputs: tuple[Tensor, ...]) -> None:
    """Refuse what torch refuses on every device but "meta", where it does not look."""
    needed, given = module.in_channels, inputs[0].shape[-1 - len(module.kernel_size)]
    if given != needed:
        raise RuntimeError(f"a transposed convolution of {needed} channels was given {given}")
