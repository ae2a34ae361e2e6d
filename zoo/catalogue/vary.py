"""Variants as data: what a study or a sweep changes about a model, by key.

model, dataset, recipe     another entry of the catalogue, by name
recipe.KEY (or KEY alone)  a field of the recipe: recipe.lr, lr
build.PATH                 an argument in the model's tree: build.body.of.1.depth
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from zoo.base.did_you_mean import did_you_mean
from zoo.base.structs import Struct
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, node_from_table
from zoo.errors import SpecError

NAMES = ("model", "dataset", "recipe")
ALLOWED = "model, dataset, recipe, recipe.KEY or build.PATH"


class Variant(Struct, frozen=True, kw_only=True):
    """A model with what was changed about it; `settings` are fields of its recipe."""

    name: str
    model: Model
    recipe: str | None = None
    dataset: str | None = None
    settings: dict[str, Any] = {}


def vary(registry: Registry, name: str, changes: Mapping[str, Any], where: str) -> Variant:
    """Apply changes by key to the named model.

    Args:
        where: what is changed, for messages: "studies.mixer-lr".
    Raises:
        SpecError: a key or a path that is not there; names what is.
        UnknownNameError: a model, dataset or recipe that the catalogue lacks.
    """
    for key in NAMES:
        if not isinstance(changes.get(key, ""), str):
            raise SpecError(f"{where}: {key} takes a name from the catalogue, not {inline(changes[key])}")
    name = changes.get("model", name)
    model = registry.model(name)
    table, settings = copy.deepcopy(model.build.to_table()), {}
    for key, value in changes.items():
        if key in ("dataset", "recipe"):
            getattr(registry, key)(value)
        elif key.startswith("build."):
            _put(table, key.split(".")[1:], value, f"{where}: {key}")
        elif key != "model":
            settings[field(key, where)] = value
    changed = msgspec.structs.replace(model, build=node_from_table(table, f"{where}: build"))
    return Variant(
        name=name, model=changed, recipe=changes.get("recipe"), dataset=changes.get("dataset"), settings=settings
    )


def field(key: str, where: str) -> str:
    """The recipe's field that a key names ("recipe.lr" or "lr").

    Raises:
        SpecError: no such field; names the nearest.
    """
    name = key.removeprefix("recipe.")
    known = [f for f in Recipe.__struct_fields__ if f not in ("summary", "source")]
    if name in known:
        return name
    advice = did_you_mean(name, known) or f"a recipe has: {', '.join(known)}"
    raise SpecError(f"{where}: no key {key!r}; {advice}; allowed: {ALLOWED}")


def _put(table: Any, path: list[str], value: Any, where: str) -> None:
    for depth, step in enumerate(path):
        keys: list[str] = (
            list(table)
            if isinstance(table, dict)
            else [str(i) for i in range(len(table) if isinstance(table, list) else 0)]
        )
        last = depth == len(path) - 1
        if step not in keys and not (last and isinstance(table, dict)):
            at = ".".join(["build", *path[:depth]])
            raise SpecError(f"{where}: {at} has no {step!r}; it has: {', '.join(keys) or 'nothing below it'}")
        index: Any = int(step) if isinstance(table, list) else step
        if last:
            table[index] = value
        else:
            table = table[index]


def label(changes: Mapping[str, Any]) -> str:
    """The changes in words, as rows of a table show them: "lr=0.001, patch=8"."""
    return ", ".join(
        str(value) if key == "model" else f"{key.rpartition('.')[2]}={shown(value)}" for key, value in changes.items()
    )


def shown(value: Any) -> str:
    """A value for people: strings bare, numbers as they are, tables of `op` by their names."""
    if isinstance(value, list | tuple) and all(isinstance(v, Mapping) and "op" in v for v in value):
        return "+".join(v["op"] for v in value) or "none"
    return value if isinstance(value, str) else inline(value)


def inline(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else json.dumps(key)
