"""The squares that are hidden of images, where a run learns without labels: see `zoo.train.masked_images`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.catalogue.recipe import Mask, Recipe
from zoo.data.batches.resident import generator
from zoo.errors import InputError

HELD_OUT = 0x3A5C
"""Seed tag of the squares that are hidden of images that are held out."""

BLOCK = 64
"""Images that are held out and whose squares are drawn together."""


def refuse_mask(recipe: Recipe, height: int, width: int) -> None:
    """Refuse squares that are as large as the image, and a teacher, whose logits need a head.

    Raises:
        InputError: says which.
    """
    if recipe.objective == "labels":
        return
    patch = (recipe.mask or Mask()).patch
    if math.prod(squares(height, width, patch)) < 2:
        raise InputError(
            f"recipe.mask.patch {patch}: an image of {width}x{height} is one such square; give a smaller one"
        )
    if recipe.teacher is not None:
        raise InputError('--teacher cannot be used with recipe.objective "masked": no labels are learnt; leave it out')


def squares(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of squares in an image; those at the lower and the right edge may be cut."""
    return math.ceil(height / patch), math.ceil(width / patch)


def draw_hidden(count: int, grid: tuple[int, int], share: float, drawn: torch.Generator) -> Tensor:
    """Which squares are hidden: of each image equally many, drawn without replacement.

    Args:
        count: images. grid: rows and columns of squares. share: of them that are hidden, at least one and not all.
    Returns:
        bool (count, rows, columns), on the CPU.
    """
    cells = math.prod(grid)
    hidden = min(cells - 1, max(1, round(share * cells)))
    ranks = torch.rand(count, cells, generator=drawn).argsort(1).argsort(1)
    return (ranks < hidden).view(count, *grid)


def hidden_of_held_out(first: int, count: int, grid: tuple[int, int], share: float) -> Tensor:
    """Which squares are hidden of images that are held out: a function of an image's place in its split alone.

    Args:
        first: the place of the first image. count: images, at least one. grid, share: as for `draw_hidden`.
    Returns:
        bool (count, rows, columns), on the CPU.
    """
    blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
    drawn = torch.cat([draw_hidden(BLOCK, grid, share, generator(HELD_OUT, block)) for block in blocks])
    return drawn[first % BLOCK :][:count]


def pixels_of(hidden: Tensor, patch: int, height: int, width: int) -> Tensor:
    """Squares (B, rows, columns) as pixels, bool (B, 1, height, width)."""
    return hidden.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None, :height, :width]
