"""A model's tree as text: one line for each component."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from zoo.catalogue.provenance import component_of
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node


def tree_lines(node: Node, registry: Registry, *, ascii_only: bool = False) -> Iterable[tuple[str, str]]:
    """The tree as drawn in a terminal: (line, who offers the component)."""
    tee, last, bar = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")

    def walk(n: Node, key: str, first: str, rest: str) -> Iterator[tuple[str, str]]:
        label = f"{key}: {n.use}" if key and not key.startswith("of[") else n.use
        args = " ".join(f"{key}={argument_text(value)}" for key, value in n.plain_args().items())
        yield f"{first}{label}  {args}".rstrip(), _provider(n.use, registry)
        children = n.children()
        for i, (name, child) in enumerate(children):
            end = i == len(children) - 1
            yield from walk(child, name, rest + (last if end else tee), rest + ("   " if end else bar))

    return walk(node, "", "", "")


def _provider(use: str, registry: Registry) -> str:
    component = component_of(use, registry)
    return component["problem"] or f"{component['distribution']} {component['version']}"


def argument_text(value: Any) -> str:
    """An argument's value on one line."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode().replace(",", ", ")
