"""Plugins: what an entry point of the group `zoo` is, and the import of one of them.

A plugin that raises, exits, prints, answers with the wrong types or imports torch while it is
listed becomes a record that says so. `zoo.catalogue.discovery` finds the entry points.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from zoo.base.install import OURS
from zoo.base.quiet_imports import without_advice
from zoo.base.streams import printing_to
from zoo.base.structs import Struct
from zoo.base.text import one_line, printable_line
from zoo.catalogue.own_code import OwnCode
from zoo.errors import PluginError, ZooError
from zoo.plugin.contract import Component, Kind

GROUP = "zoo"
COMPONENT_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*", re.IGNORECASE)
SUFFIX = re.compile(r"(\.[a-z0-9_-]+)+", re.IGNORECASE)
MAX_COMPONENTS = 1000
SLOW = 200
"""Milliseconds that a plugin may take to be listed without being named."""

HEAVY = ("torch", "torchvision", "timm", "jax", "tensorflow")


class Found(Struct, frozen=True):
    """One entry point of the group `zoo`, before anything of it is imported.

    Attributes:
        name: the entry point's name. value: "module" or "module:attribute".
        api: what it declares in the group `zoo.api`: "v1"; "" where it declares nothing.
        source: where it was installed from, if not from an index: see `zoo.catalogue.discovery.installed_from`.
        problem: why it cannot even be imported; "" where it can.
        warnings: what is odd about its installation.
    """

    name: str
    value: str
    distribution: str
    version: str
    api: str = ""
    source: str = ""
    problem: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """The top-level package of its module."""
        return self.value.partition(":")[0].partition(".")[0].strip()


class PluginRecord(Struct, frozen=True):
    """What one entry point of the group `zoo` turned out to be.

    Attributes:
        name: the entry point's name: the prefix of its components.
        source: where it was installed from, if not from an index.
        status: "loaded", "failed" or "disabled"; `reason` says why it is not loaded, `fix` what to do.
        registry: path of its registry.toml, if it offers one.
        files: the Python files whose change makes a cached index stale.
        warnings: what it did that it should not, though it was loaded.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: Literal["loaded", "failed", "disabled"]
    source: str = ""
    reason: str = ""
    fix: str = ""
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

    def refusal(self, *names: str) -> str:
        """Why the plugin of these names (its own, its distribution's) stays out; "" where it may be loaded."""
        if self.only is not None and self.only.isdisjoint(names):
            return "not named in ZOO_LOAD_PLUGINS" if self.only else "plugins are switched off"
        return "" if self.without.isdisjoint(names) else "named in ZOO_DISABLE_PLUGINS"


def selection(environ: Mapping[str, str] = os.environ) -> Selection:
    """Read `ZOO_LOAD_PLUGINS` (only these) and `ZOO_DISABLE_PLUGINS` (not these; `all`: none).

    Both take names of plugins or of their distributions, separated by commas. An empty
    `ZOO_LOAD_PLUGINS` loads no third-party plugin. Those of hybrid-zoo itself are always loaded.
    """

    def names(variable: str) -> frozenset[str]:
        return frozenset(n.strip() for n in environ.get(variable, "").split(",") if n.strip())

    without = names("ZOO_DISABLE_PLUGINS")
    if without & {"all", "*"}:
        return Selection(only=frozenset())
    only = names("ZOO_LOAD_PLUGINS") if "ZOO_LOAD_PLUGINS" in environ else None
    return Selection(only=only, without=without)


def load(entry: Found, *, isolated: bool = False) -> PluginRecord:
    """Import one plugin and ask its hooks; a failure becomes a record, never an exception.

    Args:
        isolated: in a process of its own, where Ctrl-C is the plugin's own doing too.
    """
    before, start = _heavy(), time.perf_counter()
    output = io.StringIO()
    try:
        with printing_to(output):
            plugin = _import(entry)
            answers = _ask(plugin, entry.name)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not isolated:
            raise
        return _failure(entry, error)
    spent = (time.perf_counter() - start) * 1e3
    return record(
        entry,
        status="loaded",
        milliseconds=round(spent, 2),
        files=_files(entry),
        warnings=_warnings(output.getvalue(), _heavy() - before, spent),
        **answers,
    )


def _import(entry: Found) -> Any:
    module, _, attribute = entry.value.partition(":")
    plugin = importlib.import_module(module.strip())
    for name in filter(None, attribute.strip().split(".")):
        plugin = getattr(plugin, name)
    return plugin


def _failure(entry: Found, error: BaseException) -> PluginRecord:
    import traceback  # only a broken plugin pays for it

    ours = (os.path.dirname(os.path.dirname(__file__)), os.path.dirname(os.__file__), "<")
    frames = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    return record(
        entry,
        status="failed",
        reason=printable_line(str(error) if isinstance(error, PluginError) else _message_of(error)),
        fix=_advice(entry, error),
        detail=traceback.format_exc()[-20_000:],
        files=tuple(sorted({*_files(entry), *(f for f in frames if not f.startswith(ours))})),
    )


def _message_of(error: BaseException) -> str:
    try:
        text = str(error).strip() or "no message"
    except Exception:
        text = "its message cannot be read"
    if type(error).__module__.partition(".")[0] == "pluggy":  # its reason is on the last of several lines
        return f"{type(error).__name__}: {one_line(text)}"
    return f"{type(error).__name__}: {text.splitlines()[0]}"


def _advice(entry: Found, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if error.name.partition(".")[0] == entry.package:
            return f"its installation is incomplete: pip install --force-reinstall {entry.distribution}"
        return f"install the package that provides the module {error.name}, or reinstall {entry.distribution}"
    return leave_out(entry)


def leave_out(plugin: Found | PluginRecord) -> str:
    """What to do about a plugin that only its author can repair."""
    return f"upgrade or uninstall {plugin.distribution}, or set ZOO_DISABLE_PLUGINS={plugin.name}"


def _ask(plugin: Any, name: str) -> dict[str, Any]:
    import pluggy

    from zoo.plugin import hooks

    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(hooks)
    manager.register(plugin, name)
    unknown = [h for h in vars(plugin) if h.startswith("zoo_") and manager.parse_hookimpl_opts(plugin, h)]
    unknown = [h for h in unknown if not hasattr(hooks, h)]
    if unknown:
        raise PluginError(f"implements {unknown[0]!r}, which this version of zoo does not know")
    every = (c for answer in manager.hook.zoo_components() for c in _components(answer))
    offered = list(islice(every, MAX_COMPONENTS + 1))
    if len(offered) > MAX_COMPONENTS:
        raise PluginError(f"offers more than {MAX_COMPONENTS:,} components")
    names = [c.name for c in offered]
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    if twice:
        raise PluginError(f"offers the component {twice[0]!r} twice; a name stands for one component")
    paths = manager.hook.zoo_registry()
    if not offered and not paths:
        raise PluginError("offers nothing: no function is marked @hookimpl and returns components or a registry")
    return {"components": tuple(offered), "registry": _registry_path(paths)}


def _components(answer: Any) -> Iterable[Component]:
    for component in answer if isinstance(answer, Iterable) else (answer,):
        if not isinstance(component, Component):
            kind = type(component).__name__
            raise PluginError(f"zoo_components() must return Component objects, got {kind}")
        try:
            component = msgspec.convert(msgspec.to_builtins(component), Component)
        except msgspec.ValidationError as error:  # a struct does not check what it is made of
            kinds = f"; allowed: {', '.join(get_args(Kind))}" if component.kind not in get_args(Kind) else ""
            raise PluginError(f"component {component.name!r}: {error}{kinds}") from None
        except TypeError as error:
            raise PluginError(f"component {component.name!r}: {error}") from None
        if not COMPONENT_NAME.fullmatch(component.name):
            raise PluginError(f"component {component.name!r}: a name is letters and digits with - or _ between")
        if ":" not in component.factory:
            raise PluginError(f'component {component.name!r}: factory {component.factory!r} is not "module:name"')
        fits = SUFFIX.fullmatch(component.suffix) if component.kind == "exporter" else not component.suffix
        if not fits:
            raise PluginError(f"component {component.name!r}: {_about_suffix(component)}")
        yield component


def _about_suffix(component: Component) -> str:
    if component.kind != "exporter":
        return f"suffix {component.suffix!r} is for an exporter; this is a {component.kind}"
    return f"suffix {component.suffix!r}: an exporter says how the names of its files end, such as '.bin'"


def _registry_path(paths: list[Any]) -> str | None:
    if not paths:
        return None
    if not isinstance(paths[0], str | os.PathLike):
        raise PluginError(f"zoo_registry() must return a path, got {type(paths[0]).__name__}")
    path = Path(paths[0])
    if not path.is_file() and archive_of(path) is None:
        raise PluginError(f"zoo_registry() names {path}, which is not a file")
    return str(path)


def archive_of(path: Path) -> Path | None:
    """The zip archive (a wheel on the path, say) that a path leads into."""
    return next((p for p in path.parents if p.is_file()), None)


def _warnings(output: str, heavy: set[str], milliseconds: float) -> tuple[str, ...]:
    warnings = []
    if heavy:
        warnings.append(f"imports {', '.join(sorted(heavy))} when listed; move that import into the factory's module")
    if output.strip():
        warnings.append("prints to stdout when listed")
    if milliseconds > SLOW:
        warnings.append(f"takes {milliseconds:.0f} ms to be listed")
    return tuple(warnings)


def _heavy() -> set[str]:
    return {name for name in HEAVY if name in sys.modules}


def _files(entry: Found) -> tuple[str, ...]:
    """The module of the entry point, and what it imported of its own package."""
    package = entry.package
    loaded = [m for name, m in sys.modules.items() if name == package or name.startswith(f"{package}.")]
    paths = {getattr(module, "__file__", None) for module in loaded} | {origin(entry)}
    return tuple(sorted(path for path in paths if path))


def origin(entry: Found) -> str | None:
    """The file of the plugin's top-level package, found without importing it."""
    from importlib.util import find_spec

    try:
        spec = find_spec(entry.package)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec and spec.has_location else None


def record(entry: Found, **fields: Any) -> PluginRecord:
    """The record of an entry point."""
    fields["warnings"] = (*entry.warnings, *fields.get("warnings", ()))
    return PluginRecord(
        name=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        module=entry.value,
        source=entry.source,
        **fields,
    )


def import_factory(factory: str, component: str) -> Any:
    """Import "module:attribute", or the user's own file.

    Raises:
        PluginError: the module or the attribute is not there; names the component.
        InputError: as `OwnCode.load`.
    """
    if isinstance(factory, OwnCode):
        return factory.load()
    module, _, attribute = factory.partition(":")
    try:
        with without_advice():
            return getattr(importlib.import_module(module), attribute)
    except ZooError:
        raise
    except (Exception, SystemExit) as error:
        known = isinstance(error, ImportError | AttributeError)
        why = str(error) if known else f"{type(error).__name__}: {error}"
        raise PluginError(f"component {component!r}: cannot import {factory!r}: {why}") from error
