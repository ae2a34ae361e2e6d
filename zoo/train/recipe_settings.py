"""From a request to a recipe: the model's own or another, adapted by the dataset, changed by options and `--set`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from zoo.base.did_you_mean import did_you_mean
from zoo.base.structs import Struct
from zoo.catalogue.recipe import Normalize, Recipe
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, decode
from zoo.errors import InputError, SpecError
from zoo.plugin.contract import Transform
from zoo.train.run_options import AUTO, Request, flag, options

TABLES = ("lookahead", "distill", "mask")
"""Keys of a recipe whose value is a table, and so can be set in part: distill.weight=0.5."""

OWN = "own"
"""The name of a recipe that was given as a whole."""


class Beginning(Struct, kw_only=True, frozen=True):
    """How the images of a run with given initial weights are prepared, and the recipe that suits them.

    Attributes:
        transform: how images are resized; None leaves it to the dataset. mean, std: empty means the dataset's.
        scaling: how they are resized where the dataset leaves it open; None: as its images usually are.
        normalize: as in a recipe; None leaves it to the recipe.
        recipe: the default recipe.
        fetch: called with height and width as soon as they are known, before any image is decoded.
    """

    transform: Transform | None = None
    scaling: Transform | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    normalize: Normalize | None = None
    recipe: str | None = None
    fetch: Callable[[int, int], object] = lambda height, width: None


def resolved_recipe(
    request: Request,
    registry: Registry,
    model: Model,
    spec: str,
    beginning: Beginning,
    given: Recipe | Mapping[str, Any] | None = None,
) -> tuple[str, Recipe]:
    """The name of the recipe, and the recipe adapted to the weights and the dataset, with the request's options.

    Args:
        given: a recipe of the caller's own, taken whole as if it had been named; or keys that override those of the
            recipe that would be taken without them, or of the one that their key `extends` names.
    """
    if isinstance(given, Recipe):
        return OWN, apply_settings(msgspec.to_builtins(given), request, f"recipe {OWN}")
    own = dict(given or {})
    if "extends" in own:
        request = msgspec.structs.replace(request, recipe=str(own.pop("extends")))
    name, table = choose_recipe(request, registry, model, beginning.recipe)
    table |= {} if beginning.normalize is None else {"normalize": beginning.normalize}
    table |= (adaptation := adapted(registry, request.recipe, spec))
    if adaptation.get("tta") == "none":  # there is nothing left that a margin spares
        table.pop("tta_margin", None)
    return name, apply_settings(table | _plain(own), request, f"recipe {name}")


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a recipe as TOML has them.

    Raises:
        SpecError: a key that no recipe has.
    """
    known = Recipe.__struct_fields__
    for key in given:
        if key not in known:
            hint = did_you_mean(str(key), known, 1) or f"allowed: {', '.join(known)}"
            raise SpecError(f"recipe: unknown key {key!r}; {hint}")
    try:
        plain: dict[str, Any] = msgspec.to_builtins(dict(given))
    except (TypeError, msgspec.MsgspecError) as error:
        raise SpecError(f"recipe: {error}") from None
    return plain


def adapted(registry: Registry, asked: str | None, spec: str) -> dict[str, Any]:
    """The recipe fields that a dataset of the catalogue overrides, unless the recipe was requested by name."""
    named = asked not in (None, "best", "source")
    return {} if named or spec not in registry.datasets else dict(registry.datasets[spec].adapt)


def choose_recipe(
    request: Request, registry: Registry, model: Model, default: str | None = None
) -> tuple[str, dict[str, Any]]:
    """The name and fields of the requested recipe ("best", "source" or a name), else the default or the model's own."""
    name = recipe_name(request.recipe or default, request.model, model)
    return name, msgspec.to_builtins(registry.recipe(name))


def recipe_name(asked: str | None, name: str, model: Model) -> str:
    """The catalogue's name of a recipe that was requested as "best", "source" (or None), or by name.

    Args:
        name: the name of the model, for the message.
    Raises:
        InputError: the model has no better recipe.
    """
    if asked == "best":
        if model.best is None:
            raise InputError(f"{name!r} has no recipe `best`; its own recipe is {model.recipe!r}")
        return model.best
    return model.recipe if asked in (None, "source") else asked


def apply_settings(table: dict[str, Any], request: Request, where: str) -> Recipe:
    """Apply the options and `--set recipe.key=value` to a recipe's table, and check the result.

    Raises:
        SpecError: an unknown key or a wrong value; says what is allowed.
    """
    given = {name: getattr(request, name) for name, option in options().items() if option.recipe}
    if given["batch_size"] == AUTO:
        del given["batch_size"]  # the recipe's stays
    table = table | {key: value for key, value in given.items() if value is not None}
    for setting in request.settings:
        key, mark, text = setting.partition("=")
        key = key.strip().removeprefix("recipe.")
        if not mark:
            raise SpecError(f"--set {setting}: write --set recipe.KEY=VALUE")
        table |= nested(table, key, parse_value(text.strip()), setting)
    try:
        return decode(Recipe, table, where)
    except SpecError as error:
        raise SpecError(_named_by_option(str(error), where, given)) from None


def nested(table: Mapping[str, Any], key: str, value: Any, setting: str) -> dict[str, Any]:
    """A key with its new value; of "distill.weight", the table `distill` with one value changed.

    Raises:
        SpecError: what stands before the dot is no table.
    """
    outer, dot, inner = key.partition(".")
    if not dot:
        return {key: value}
    before = table.get(outer)
    if isinstance(before, dict) or (before is None and outer in TABLES):
        return {outer: {**(before or {}), inner: value}}
    raise SpecError(f"--set {setting}: recipe.{outer} is no table of keys; those are {', '.join(TABLES)}")


def _named_by_option(message: str, where: str, given: dict[str, Any]) -> str:
    """The message with the name of the option in place of the recipe's field, if the option was given."""
    for name, value in given.items():
        if value is not None and message.startswith(f"{where}.{name}: "):
            return flag(name) + message.removeprefix(f"{where}.{name}")
    return message


def parse_value(text: str) -> Any:
    """Parse a value as TOML; anything that is not valid TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
