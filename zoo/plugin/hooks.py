"""The hook specifications that a plugin implements, and the marker for its implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pluggy

from zoo.plugin.contract import Component

API_VERSION = 1
"""The version of this contract.

A plugin declares the version that it needs by an entry point with its name in the group `zoo.api`: "v1".
"""

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_components() -> Iterable[Component]:  # type: ignore[empty-body]
    """Return the components (classifiers, parts, combinators, stems, heads) of this plugin."""


@hookspec
def zoo_registry() -> Path | str:  # type: ignore[empty-body]
    """Return the path of a registry.toml with this plugin's models, recipes and datasets."""


def offers(*components: Component) -> Callable[[], Iterable[Component]]:
    """The hook `zoo_components` of a plugin that offers these components.

    A plugin gives it the hook's name: ``zoo_components = offers(Component(...), Component(...))``. Where the
    components have to be computed, write the function instead, and mark it with `hookimpl`.
    """

    @hookimpl
    def hook() -> Iterable[Component]:
        return components

    return hook
