"""One label an image or several: what a recipe minimises and selects by follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from zoo.catalogue.recipe import Recipe
from zoo.data.label_sets import Task
from zoo.errors import InputError
from zoo.train.run_options import Request

SWITCHED: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {"loss": (("cross-entropy",), "bce"), "select": (("top1", "balanced-top1", "macro-f1"), "map")}
)
"""Keys of a recipe to the values that need one class an image, and what takes their place."""

EVEN = MappingProxyType({"class_weights": "none", "sampler": "shuffled", "tta_margin": None})
"""Keys that weigh, draw or judge an image by its one class, with the values that do not."""

ONE_CLASS = MappingProxyType({"class_weights": "none", "sampler": "shuffled", "tta_margin": "not set"})

UNLABELLED = MappingProxyType(
    {
        "select": ("loss", "last"),
        "class_weights": ("none",),
        "sampler": ("shuffled",),
        "precise_bn": (0,),
        "tta": ("none",),
    }
)
"""Keys of a recipe to the values that need no labels and no predictions; the first takes the place of others.

Batch norm's statistics of whole images (`precise_bn`) are not those of images with hidden squares.
"""

SEVERAL, ONE = "images with several labels", "images with one label"


def for_task(recipe: Recipe, task: Task, request: Request) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the loss and the rule of selection that its task needs, and a line that says what was changed.

    Args:
        request: what it sets itself is not changed, but refused.
    Raises:
        InputError: a setting of the request does not suit the task.
    """
    changes = dict(_changes(recipe, task))
    asked = {setting.partition("=")[0].strip().removeprefix("recipe.") for setting in request.settings}
    if wrong := [key for key in changes if key in asked]:
        raise InputError(_refusal(recipe, task, wrong[0]))
    if not changes:
        return recipe, ()
    why = "images without labels" if recipe.objective == "masked" else SEVERAL if task == "multi-label" else ONE
    changed = ", ".join(f"{key} {value} in place of {getattr(recipe, key)}" for key, value in changes.items())
    return msgspec.structs.replace(recipe, **changes), (f"{why}: {changed}",)


def refuse_for_task(recipe: Recipe, task: Task) -> None:
    """Refuse a recorded recipe that was changed to one that its task cannot have.

    Raises:
        InputError: names the key.
    """
    for key in _changes(recipe, task):
        raise InputError(_refusal(recipe, task, key))


def _changes(recipe: Recipe, task: Task) -> dict[str, Any]:
    """The keys that the task does not allow as they are, with what takes their place."""
    if recipe.objective == "masked":
        return {key: allowed[0] for key, allowed in UNLABELLED.items() if getattr(recipe, key) not in allowed}
    if task == "single-label":
        return {"select": "top1"} if recipe.select == "map" else {}
    changed = {key: to for key, (of, to) in SWITCHED.items() if getattr(recipe, key) in of}
    uneven = {key: to for key, to in EVEN.items() if getattr(recipe, key) != to}
    return changed | uneven


def _refusal(recipe: Recipe, task: Task, key: str) -> str:
    if recipe.objective == "masked":
        allowed = ", ".join(map(str, UNLABELLED[key]))
        return f'recipe.{key} {getattr(recipe, key)}: the objective "masked" learns no labels; allowed: {allowed}'
    if task == "single-label":
        allowed = "top1, balanced-top1, macro-f1, loss, last"
        return f"recipe.select map: {ONE} have no mean average precision; allowed: {allowed}"
    allowed = {"loss": "bce, focal", "select": "map, loss, last", **ONE_CLASS}[key]
    return f"recipe.{key} {getattr(recipe, key)}: {SEVERAL} have no one class; allowed: {allowed}"
