"""A model's tree as text: one line for each component."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from zoo.catalogue.provenance import component_of
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node


def nodes(node: Node) -> Iterator[Node]:
    """The node and all below it, in the order of the TOML."""
    yield node
    for _, child in node.children():
        yield from nodes(child)


def tree_lines(node: Node, registry: Registry, *, ascii_only: bool = False) -> Iterable[tuple[str, str]]:
    """The tree as drawn in a terminal: (line, who offers the component)."""
    tee, last, bar = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")

    def walk(n: Node, key: str, first: str, rest: str) -> Iterator[tuple[str, str]]:
        label = f"{key}: {n.use}" if key and not key.startswith("of[") else n.use
        args = " ".join(f"{k}={_value(v)}" for k, v in n.args.items() if not _has_nodes(v))
        yield f"{first}{label}  {args}".rstrip(), _provider(n.use, registry)
        children = n.children()
        for i, (name, child) in enumerate(children):
            end = i == len(children) - 1
            yield from walk(child, name, rest + (last if end else tee), rest + ("   " if end else bar))

    return walk(node, "", "", "")


def _provider(use: str, registry: Registry) -> str:
    component = component_of(use, registry)
    return component["problem"] or f"{component['distribution']} {component['version']}"


def _has_nodes(value: Any) -> bool:
    return isinstance(value, Node) or (isinstance(value, list) and any(isinstance(v, Node) for v in value))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode().replace(",", ", ")


def walk(node: Node) -> Iterable[Node]:
    """The node and all below it."""
    yield node
    for _, child in node.children():
        yield from walk(child)
