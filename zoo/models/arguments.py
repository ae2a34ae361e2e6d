"""The arguments of components' factories: the defaults that a run records, and those that changed since."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from zoo.catalogue.plugins import import_factory
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node
from zoo.models.bounds import MAX_INTEGER, MAX_STRING
from zoo.plugin.contract import GIVEN

PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
"""Types of the defaults that are recorded: those that a registry file can write, and None."""


def defaults_of(tree: Node, registry: Registry) -> dict[str, str]:
    """The defaults of all components of a tree: component name to a JSON table of its arguments.

    JSON, since TOML cannot write None. A tree that was recorded before keeps what is recorded of it.
    """
    out: dict[str, str] = {}
    for _, node in tree.walk():
        if node.use not in out and (table := node.defaults or _own_defaults(node.use, registry)):
            out[node.use] = msgspec.json.encode(table).decode()
    return out


def changed_defaults(factory: Any, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded defaults that are others in the factory now; arguments that it no longer takes are left out.

    What is equal is left to the factory, so that a tuple stays the tuple that its author wrote.
    """
    now = _parameters(factory)
    return {key: value for key, value in recorded.items() if key in now and _plain(now[key].default) != (True, value)}


def _own_defaults(use: str, registry: Registry) -> dict[str, Any]:
    component = registry.component(use)
    left_out = (*GIVEN[component.kind], "pretrained")  # the weights of a run are at hand, see zoo.runs.load
    parameters = _parameters(import_factory(component.factory, use))
    values = {key: _plain(p.default) for key, p in parameters.items() if key not in left_out}
    return {key: value for key, (plain, value) in values.items() if plain}


def _parameters(factory: Any) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(factory).parameters
    return {key: p for key, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def _plain(value: Any) -> tuple[bool, Any]:
    """Whether a default can be recorded, and what it is when it is read again."""
    if not isinstance(value, PLAIN):
        return False, None
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return False, None
    again = msgspec.json.decode(text)
    lossless = again is not None or value is None  # an infinity is written as null
    return lossless and len(text) <= MAX_STRING and _small(again), again


def _small(value: Any) -> bool:
    """Whether a package may hold the value as an argument."""
    if isinstance(value, dict | list):
        return all(map(_small, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int | float) or abs(value) <= MAX_INTEGER
