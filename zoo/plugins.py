"""Discovery: every entry point of the group `zoo`, each loaded on its own.

A plugin that raises, exits, prints, answers with the wrong types or imports torch while it is
listed is quarantined or named, and everything else goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from zoo.errors import PluginError
from zoo.spec import Component, Struct

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "zoo"
OURS = "hybrid-zoo"
COMPONENT_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*", re.IGNORECASE)
HEAVY = ("torch", "torchvision", "timm", "jax", "tensorflow")


class PluginRecord(Struct, frozen=True):
    """What one entry point of the group `zoo` turned out to be.

    Attributes:
        name: the entry point's name: the prefix of its components.
        status: "loaded", "failed" or "disabled"; `reason` says why it is not loaded.
        registry: path of its registry.toml, if it offers one.
        files: the Python files whose change makes a cached index stale.
        warnings: what it did that it should not, though it was loaded.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: Literal["loaded", "failed", "disabled"]
    reason: str = ""
    detail: str = ""
    components: tuple[Component, ...] = ()
    registry: str | None = None
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    milliseconds: float = 0.0

    @property
    def builtin(self) -> bool:
        """Whether the plugin ships with hybrid-zoo itself."""
        return self.distribution == OURS


class Selection(Struct, frozen=True):
    """Which third-party plugins may be loaded: all, only some, or all but some."""

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()

    def refusal(self, name: str) -> str:
        """Why the plugin `name` stays out; "" where it may be loaded."""
        if self.only is not None and name not in self.only:
            return "not named in ZOO_LOAD_PLUGINS" if self.only else "plugins are switched off"
        return "named in ZOO_DISABLE_PLUGINS" if name in self.without else ""


def selection(environ: Mapping[str, str] = os.environ) -> Selection:
    """Read `ZOO_LOAD_PLUGINS` (only these) and `ZOO_DISABLE_PLUGINS` (not these; `all`: none).

    Both take names separated by commas. An empty `ZOO_LOAD_PLUGINS` loads no third-party plugin.
    Those of hybrid-zoo itself are always loaded.
    """

    def names(variable: str) -> frozenset[str]:
        return frozenset(n.strip() for n in environ.get(variable, "").split(",") if n.strip())

    without = names("ZOO_DISABLE_PLUGINS")
    if without & {"all", "*"}:
        return Selection(only=frozenset())
    only = names("ZOO_LOAD_PLUGINS") if "ZOO_LOAD_PLUGINS" in environ else None
    return Selection(only=only, without=without)


def discover(chosen: Selection) -> tuple[PluginRecord, ...]:
    """Load every entry point of the group, ours first, then by name."""
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=GROUP), key=lambda e: (_distribution(e)[0] != OURS, e.name))
    ours = {e.name for e in found if _distribution(e)[0] == OURS}
    records = []
    for entry in found:
        name, version = _distribution(entry)
        refusal = "" if name == OURS else chosen.refusal(entry.name)
        if refusal:
            records.append(_record(entry, status="disabled", reason=refusal))
        elif name != OURS and entry.name in ours:
            reason = f"its entry point {entry.name!r} ({name} {version}) has the name of a built-in plugin"
            records.append(_record(entry, status="failed", reason=f"{reason}; rename it"))
        else:
            records.append(load(entry))
    return tuple(records)


def load(entry: EntryPoint) -> PluginRecord:
    """Import one plugin and ask its hooks; a failure becomes a record, never an exception."""
    before, start = _heavy(), time.perf_counter()
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            plugin = entry.load()
            answers = _ask(plugin, entry.name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        import traceback  # only a broken plugin pays for it

        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        if isinstance(error, PluginError):
            reason = str(error)
        return _record(entry, status="failed", reason=reason, detail=traceback.format_exc())
    spent = (time.perf_counter() - start) * 1e3
    return _record(
        entry,
        status="loaded",
        milliseconds=round(spent, 2),
        files=_files(entry),
        warnings=_warnings(said.getvalue(), _heavy() - before, spent),
        **answers,
    )


def _ask(plugin: Any, name: str) -> dict[str, Any]:
    import pluggy

    from zoo import hooks

    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(hooks)
    manager.register(plugin, name)
    unknown = [h for h in vars(plugin) if h.startswith("zoo_") and manager.parse_hookimpl_opts(plugin, h)]
    unknown = [h for h in unknown if not hasattr(hooks, h)]
    if unknown:
        raise PluginError(f"implements {unknown[0]!r}, which this version of zoo does not know")
    offered = [c for answer in manager.hook.zoo_components() for c in _components(answer)]
    names = [c.name for c in offered]
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    if twice:
        raise PluginError(f"offers the component {twice[0]!r} twice; a name stands for one component")
    paths = manager.hook.zoo_registry()
    if not offered and not paths:
        raise PluginError(
            "offers nothing: no function is marked @hookimpl and returns components or a registry"
        )
    return {"components": tuple(offered), "registry": _registry_path(paths)}


def _components(answer: Any) -> Iterable[Component]:
    for component in answer if isinstance(answer, Iterable) else (answer,):
        if not isinstance(component, Component):
            kind = type(component).__name__
            raise PluginError(f"zoo_components() must return Component objects, got {kind}")
        try:
            component = msgspec.convert(msgspec.to_builtins(component), Component)
        except (msgspec.ValidationError, TypeError) as error:  # a struct does not check what it is made of
            raise PluginError(f"component {component.name!r}: {error}") from None
        if not COMPONENT_NAME.fullmatch(component.name):
            raise PluginError(
                f"component {component.name!r}: a name is letters and digits with - or _ between"
            )
        if ":" not in component.factory:
            raise PluginError(
                f'component {component.name!r}: factory {component.factory!r} is not "module:name"'
            )
        yield component


def _registry_path(paths: list[Any]) -> str | None:
    if not paths:
        return None
    if not isinstance(paths[0], str | os.PathLike):
        raise PluginError(f"zoo_registry() must return a path, got {type(paths[0]).__name__}")
    path = Path(paths[0])
    if not path.is_file():
        raise PluginError(f"zoo_registry() names {path}, which is no file")
    return str(path)


def _warnings(said: str, heavy: set[str], milliseconds: float) -> tuple[str, ...]:
    found = []
    if heavy:
        found.append(
            f"imports {', '.join(sorted(heavy))} when listed; move that import into the factory's module"
        )
    if said.strip():
        found.append("prints to stdout when listed")
    if milliseconds > 200:
        found.append(f"takes {milliseconds:.0f} ms to be listed")
    return tuple(found)


def _heavy() -> set[str]:
    return {name for name in HEAVY if name in sys.modules}


def _files(entry: EntryPoint) -> tuple[str, ...]:
    """The module of the entry point, and what it imported of its own package."""
    package = entry.module.partition(".")[0]
    loaded = [m for name, m in sys.modules.items() if name == package or name.startswith(f"{package}.")]
    paths = {getattr(module, "__file__", None) for module in loaded}
    return tuple(sorted(path for path in paths if path))


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "unknown", "0"
    return entry.dist.name, entry.dist.version


def _record(entry: EntryPoint, **fields: Any) -> PluginRecord:
    name, version = _distribution(entry)
    return PluginRecord(name=entry.name, distribution=name, version=version, module=entry.value, **fields)


def import_factory(factory: str, component: str) -> Any:
    """Import "module:attribute".

    Raises:
        PluginError: the module or the attribute is not there; names the component.
    """
    module, _, attribute = factory.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"component {component!r}: cannot import {factory!r}: {error}") from error
