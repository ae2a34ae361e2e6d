"""What the user asked for, and the recipe that follows from it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from zoo.base.structs import Struct
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, decode
from zoo.data.batches.mode import DataMode
from zoo.errors import InputError, SpecError
from zoo.plugin.contract import Transform


class Request(Struct, kw_only=True):
    """What the user asked for; None leaves it to the recipe, the model or the machine."""

    model: str
    dataset: str | None = None
    data_dir: str | None = None
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    precision: str | None = None
    compile: str | None = None
    on_nan: str | None = None
    seed: int = 0
    device: str = "auto"
    protocol: Literal["clean", "paper"] = "clean"
    image_size: int | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    max_steps: int | None = None
    skip_bad: bool = False
    data_mode: DataMode = "auto"
    workers: int | None = None


class Beginning(Struct, kw_only=True, frozen=True):
    """What weights that a run begins with say about its images, and the recipe that suits them.

    Attributes:
        transform: as they know images; None leaves sizes to the dataset. mean, std: empty: the dataset's.
        normalize: whether they want images normalised; None leaves it to the recipe.
        recipe: taken where none is named.
        fetch: called with the sizes as soon as they are known, before any image is decoded.
    """

    transform: Transform | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    normalize: bool | None = None
    recipe: str | None = None
    fetch: Callable[[int, int], object] = lambda height, width: None


def refuse_impossible(request: Request) -> None:
    """Refuse numbers that no run can have.

    Raises:
        InputError: names the option.
    """
    if request.dataset == "":
        raise InputError("--dataset '' names no images; leave it out for the model's own")
    for key in ("limit_train", "limit_test", "max_steps", "image_size"):
        if (value := getattr(request, key)) is not None and value < 1:
            raise InputError(f"--{key.replace('_', '-')} must be at least 1, given {value}")


def resolved_recipe(
    request: Request, registry: Registry, model: Model, spec: str, beginning: Beginning
) -> tuple[str, Recipe]:
    """The recipe's name, and the recipe: adapted by the weights and the dataset, overridden by the request."""
    name, table = choose_recipe(request, registry, model, beginning.recipe)
    table |= {} if beginning.normalize is None else {"normalize": beginning.normalize}
    table |= adapted(registry, request.recipe, spec)
    return name, apply_settings(table, request, f"recipe {name}")


def adapted(registry: Registry, asked: str | None, spec: str) -> dict[str, Any]:
    """The fields that a dataset of the catalogue replaces in a recipe, unless that was asked for by its name."""
    named = asked not in (None, "best", "source")
    return {} if named or spec not in registry.datasets else dict(registry.datasets[spec].adapt)


def choose_recipe(
    request: Request, registry: Registry, model: Model, default: str | None = None
) -> tuple[str, dict[str, Any]]:
    """The recipe's name and its fields: the default, else the model's own; "best", "source", or any by name."""
    name = recipe_name(request.recipe or default, request.model, model)
    return name, msgspec.to_builtins(registry.recipe(name))


def recipe_name(asked: str | None, name: str, model: Model) -> str:
    """What the catalogue calls a recipe that was asked for as "best", "source" (or None), or by its name.

    Args:
        name: the model's, for people.
    Raises:
        InputError: the model has no better recipe.
    """
    if asked == "best":
        if model.best is None:
            raise InputError(f"{name!r} has no recipe `best`; its own is {model.recipe!r}")
        return model.best
    return model.recipe if asked in (None, "source") else asked


def apply_settings(table: dict[str, Any], request: Request, where: str) -> Recipe:
    """Apply options and `--set recipe.key=value` over a recipe's table, and check the whole.

    Raises:
        SpecError: an unknown key or a wrong value; names it and what is allowed.
    """
    options = {
        key: getattr(request, key) for key in ("epochs", "batch_size", "lr", "precision", "on_nan", "compile")
    }
    table = table | {key: value for key, value in options.items() if value is not None}
    for setting in request.settings:
        key, mark, text = setting.partition("=")
        key = key.strip().removeprefix("recipe.")
        if not mark:
            raise SpecError(f"--set {setting}: write --set recipe.KEY=VALUE")
        table[key] = parse_value(text.strip())
    return decode(Recipe, table, where)


def parse_value(text: str) -> Any:
    """A value as in TOML; what TOML does not know is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
