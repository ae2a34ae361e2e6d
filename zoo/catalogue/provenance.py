"""Who brought what: the components of a tree, its model, recipe and dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.catalogue.registry import Origin, Registry
from zoo.catalogue.registry_file import TABLES, kind_of
from zoo.catalogue.spec import Node


def component_of(use: str, registry: Registry) -> dict[str, Any]:
    """A component and who offers it; `problem` says why it cannot be used, where it cannot."""
    component, origin = registry.components.get(use), registry.origins.get(("component", use))
    problem = registry.clashes.get(("component", use))
    return {
        "name": use,
        "kind": component.kind if component else None,
        "summary": component.summary if component else "",
        "plugin": use.partition(".")[0],
        "distribution": origin.distribution if origin else None,
        "version": origin.version if origin else None,
        "problem": problem if component else "no plugin offers it",
    }


def sources_of(node: Node, registry: Registry) -> Iterable[tuple[str, Origin]]:
    """Each component used in a tree, once, with who brought it."""
    origins: dict[str, Origin] = {}
    for _, part in node.walk():
        registry.component(part.use)
        origins.setdefault(part.use, registry.origin("component", part.use))
    return origins.items()


def provenance(
    registry: Registry, tree: Node, *, model: str = "", recipe: str = "", dataset: str = ""
) -> dict[str, str]:
    """Who brought what a run is made of, for its record.

    Returns:
        Component name to distribution, version and, if not from an index, where it was installed from;
        "models.NAME", "recipes.NAME" and "datasets.NAME" where a plugin brought them.
    """
    origins = {use: str(origin) for use, origin in sources_of(tree, registry)}
    for kind, name in (("model", model), ("recipe", recipe), ("dataset", dataset)):
        origin = registry.origins.get((kind, name))
        if origin is not None and origin.plugin:
            origins[f"{kind}s.{name}"] = str(origin)
    source = registry.datasets[dataset].source if dataset in registry.datasets else dataset
    scheme, _, rest = source.partition(":")
    if scheme == "plugin":
        use = rest.partition("?")[0]
        origins[use] = str(registry.origin("component", use))
    return origins


def changes(recorded: Mapping[str, str], registry: Registry) -> list[str]:
    """What comes from another distribution or version now than `provenance` recorded: one line each."""
    names_of: dict[tuple[str, str], list[str]] = {}
    for name, was in recorded.items():
        table, _, entry = name.partition(".")
        key = (kind_of(table), entry) if table in TABLES else ("component", name)
        origin = registry.origins.get(key)
        if origin is not None and str(origin) != was:
            names_of.setdefault((was, str(origin)), []).append(name)
    return [
        f"{', '.join(names)}: from {now} now, from {was} before" for (was, now), names in names_of.items()
    ]
