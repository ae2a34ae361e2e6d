"""Settings of a recipe that are allowed and make no sense for this dataset or this number of epochs."""

from __future__ import annotations

from collections.abc import Iterator

from zoo.base.text import plural
from zoo.catalogue.augmentation import Augmentation, Brightness, Crop, Cutout, ProgressiveSize
from zoo.catalogue.recipe import Recipe
from zoo.data.findings import Finding


def recipe_findings(recipe: Recipe, height: int, width: int) -> tuple[Finding, ...]:
    """What a recipe does that nobody wants.

    Args:
        height, width: of the images, in pixels.
    """
    lines = [
        *_schedule(recipe),
        *_loss(recipe),
        *_distill(recipe),
        *_views(recipe),
        *_sizes(recipe),
        *(line for step in recipe.augment for line in _step(step, height, width)),
    ]
    return tuple(Finding(level="warning", kind="recipe", message=line) for line in lines)


def _schedule(recipe: Recipe) -> Iterator[str]:
    if recipe.warmup_epochs > recipe.epochs:
        yield (
            f"the warm-up of {plural(recipe.warmup_epochs, 'epoch')} is longer than the run of "
            f"{recipe.epochs}: the learning rate never reaches {recipe.lr:g}; set recipe.warmup_epochs"
        )


def _loss(recipe: Recipe) -> Iterator[str]:
    if recipe.focal_gamma != 2 and recipe.loss != "focal":
        yield f"focal_gamma is {recipe.focal_gamma:g}, which {recipe.loss} has no use for; set recipe.loss to focal"
    if recipe.class_weights == "balanced" and recipe.sampler != "shuffled":
        yield (
            f'class_weights = "balanced" and sampler = "{recipe.sampler}" both make up for uneven classes: images of '
            "small classes count too much; set one of them"
        )


def _distill(recipe: Recipe) -> Iterator[str]:
    if recipe.distill is not None and recipe.teacher is None:
        yield "distill says how to learn from a teacher, and there is none; give one with --teacher"


def _views(recipe: Recipe) -> Iterator[str]:
    if recipe.tta_margin is not None and recipe.tta == "none":
        yield f"tta_margin is {recipe.tta_margin:g}, and there are no views that it could spare; set recipe.tta"


def _sizes(recipe: Recipe) -> Iterator[str]:
    for step in recipe.augment:
        if isinstance(step, ProgressiveSize) and step.epochs >= recipe.epochs:
            yield (
                f"progressive-size: images are smaller in all {plural(recipe.epochs, 'epoch')}, and whole only where "
                "they are evaluated; give it fewer epochs than the run has"
            )


def _step(step: Augmentation, height: int, width: int) -> Iterator[str]:
    side, size = min(height, width), f"the images ({width}x{height})"
    if isinstance(step, Cutout) and step.size >= side:
        yield f"cutout: a square of {plural(step.size, 'pixel')} is as large as {size} and can blank all of one"
    if isinstance(step, Crop) and step.mode == "zero" and step.padding >= side:
        yield f"crop: a padding of {plural(step.padding, 'pixel')} is as wide as {size}: what is cut out can be blank"
    if isinstance(step, Brightness) and step.factor == 0 and step.p:
        yield "brightness: a factor of 0 makes images black"
