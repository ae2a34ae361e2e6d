"""Who brought what: the components of a tree, its model, recipe and dataset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from zoo.base.install import upgrade_line
from zoo.catalogue.plugins import OURS
from zoo.catalogue.registry import Origin, Registry
from zoo.catalogue.registry_file import TABLES, kind_of
from zoo.catalogue.spec import Node
from zoo.errors import MissingPluginError


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


ORIGIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,100}) (?P<version>[A-Za-z0-9.+!-]{1,50})"
    r"(?: \((?P<source>[\w.:/@+ -]{1,300})\))?"
)
"""An `Origin` in words; what stands in somebody's record is not printed unless it looks like one."""


def require_components(
    tree: Node, recorded: Mapping[str, str], registry: Registry, record: str, where: str = ""
) -> None:
    """Check that installed plugins offer every component that a tree uses.

    Args:
        recorded: as `provenance` gave it when the run was made. record: "the run" or "the package".
        where: what has the tree, for messages: a folder.
    Raises:
        MissingPluginError: names the component and why its plugin is left out, or what to install.
    """
    for use in sorted({node.use for _, node in tree.walk()}):
        if use not in registry.components or ("component", use) in registry.clashes:
            missing = _missing("component", use, recorded.get(use, ""), registry, record)
            raise MissingPluginError(f"{where}: {missing}" if where else missing)


def require_dataset(spec: str, recorded: Mapping[str, str], registry: Registry) -> None:
    """Check that installed plugins offer the dataset that a run was made with, where one offered it.

    Raises:
        MissingPluginError: names the dataset and why its plugin is left out, or what to install.
    """
    known = registry.datasets.get(spec)
    origin = recorded.get(f"datasets.{spec}", "")
    if known is None and origin:
        raise MissingPluginError(_missing("dataset", spec, origin, registry, "the run"))
    scheme, _, rest = (known.source if known else spec).partition(":")
    use = rest.partition("?")[0]
    if scheme == "plugin" and use not in registry.components and use in recorded:
        raise MissingPluginError(_missing("component", use, recorded[use], registry, "the run"))


def _missing(kind: str, name: str, origin: str, registry: Registry, record: str) -> str:
    match = ORIGIN.fullmatch(origin)
    printable = re.fullmatch(r"[\w.-]{1,100}", name)
    needs = f"needs the {kind} {name if printable else repr(name[:100])}"
    if match is not None and match["name"] != OURS:
        needs += f" of {origin}"
    if (kind, name) in registry.clashes:
        return f"{needs}; {registry.clashes[kind, name]}"
    left_out = registry.left_out(name, only_its_own=True, distribution=match["name"] if match else "")
    if left_out:
        return f"{needs}; {left_out}"
    if match is None or match["name"] == OURS:
        advice = f"upgrade with `{upgrade_line()}`" if match else f"{record} does not name the plugin that has it"
        return f"{needs}, which no installed plugin offers; {advice}"
    return f"{needs}, which is not installed; {_installing(match['name'], match['version'], match['source'] or '')}"


def _installing(name: str, version: str, source: str) -> str:
    """How to get a distribution: from the index only where it came from there."""
    if re.fullmatch(r"(git\+)?https://[\w.:/@+-]+", source):
        return f"if you trust it: pip install '{name} @ {source}'"
    if source:
        folder = f"a git checkout at {source[4:]}" if source.startswith("git@") else f"its author's {source}"
        return f"it came from {folder}: install it from there, or ask its author"
    return f"if you trust it: pip install {name}=={version}"


def changes(recorded: Mapping[str, str], registry: Registry) -> list[str]:
    """What comes from another distribution or version now than `provenance` recorded: one line each."""
    names_of: dict[tuple[str, str], list[str]] = {}
    for name, was in recorded.items():
        table, _, entry = name.partition(".")
        key = (kind_of(table), entry) if table in TABLES else ("component", name)
        origin = registry.origins.get(key)
        if origin is not None and str(origin) != was:
            names_of.setdefault((was, str(origin)), []).append(name)
    return [f"{', '.join(names)}: from {now} now, from {was} before" for (was, now), names in names_of.items()]
