"""What is checked of a plugin: one case for each subject (a component, a model, a dataset) and check."""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from zoo.base.text import one_line, plural
from zoo.catalogue.describe import native_sizes
from zoo.catalogue.plugins import PluginRecord, import_factory
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Node
from zoo.errors import PluginError, UnknownNameError
from zoo.plugin import stubs
from zoo.plugin.contract import GIVEN, Component
from zoo.plugin.names import stub_path
from zoo.testing import data, effects, exporters, modules
from zoo.testing.subject import Failed, Sizes, Skipped, Subject

Check = Callable[[], str]
PARTS = (2, 1, 3)
"""How many parts a combinator is tried with."""

MODULE_CHECKS = (*modules.CHECKS, *effects.CHECKS)
"""Name and function of every check of what a component or a model builds, in order."""

SIZES = tuple(
    Sizes(in_channels=c, height=h, width=w, num_classes=n)
    for c, h, w, n in ((3, 16, 16, 10), (3, 32, 32, 3), (8, 8, 8, 4), (16, 16, 16, 10), (3, 24, 16, 5))
)
"""Channels, pixels and classes that components are tried with, besides those of the plugin's models."""

LARGER = tuple(Sizes(3, side, side, 10) for side in (48, 56, 64, 96, 128, 224))
"""Tried where a component takes none of the others: the first that it takes is the one."""


@dataclass(frozen=True)
class Outcome:
    """What a case came to; `detail` is the traceback of one that failed."""

    subject: str
    check: str
    result: Literal["passed", "failed", "skipped"]
    milliseconds: float
    note: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """One check of one subject; `run` never raises but for Ctrl-C."""

    subject: str
    check: str
    body: Check

    @property
    def id(self) -> str:
        """As pytest shows it."""
        return f"{self.subject}-{self.check}"

    def run(self) -> Outcome:
        """Run it."""
        start = time.perf_counter()
        result: Literal["passed", "failed", "skipped"] = "passed"
        detail = ""
        try:
            note = self.body()
        except Skipped as skipped:
            result, note = "skipped", str(skipped)
        except (Exception, SystemExit) as error:
            result, detail = "failed", traceback.format_exc()
            plain = isinstance(error, Failed)
            note = _line(error) if plain else f"{type(error).__name__}: {_line(error)}"
        spent = (time.perf_counter() - start) * 1e3
        return Outcome(self.subject, self.check, result, round(spent, 1), note, detail)


def _line(error: BaseException) -> str:
    return one_line(error, 400) or "no message"


def proves_something(outcomes: Sequence[Outcome]) -> bool:
    """Whether a check of what is built ran: that a plugin can be listed says nothing of that."""
    return any(o.result != "skipped" and o.check not in ("listing", "names", "signature") for o in outcomes)


def cases_of(plugin: str, examples: Mapping[str, Mapping[str, Any]] | None = None) -> list[Case]:
    """Every case of an installed plugin.

    Raises:
        UnknownNameError: no plugin of that name. PluginError: it is left out, or offers nothing.
    """
    registry = load_registry(retry=True)
    record = _record(plugin, registry)
    unknown = sorted(set(examples or {}) - {f"{plugin}.{c.name}" for c in record.components})
    if unknown:
        raise PluginError(f"examples for {unknown[0]!r}, which the plugin {plugin!r} does not offer")
    mine = [(kind, name) for (kind, name), origin in registry.origins.items() if _brought(origin, record)]
    models = [name for kind, name in mine if kind == "model"]
    found = [Case(plugin, "listing", lambda: check_listing(record, registry))]
    found += [Case(plugin, "names", lambda: check_names(record))] if stubs.names_in(_module(record)) else []
    for component in record.components:
        name = f"{plugin}.{component.name}"
        found += _of_component(name, component, registry, examples or {}, models)
    for kind, name in mine:
        if kind == "model" and name in registry.models:
            found += _of_model(name, registry)
        elif kind == "dataset" and name in registry.datasets:
            found += [
                Case(name, check, lambda n=name, b=body: b(n, registry))  # type: ignore[misc]
                for check, body in data.CHECKS
            ]
    if all(case.check in ("listing", "names") for case in found):
        raise PluginError(f"the plugin {plugin!r} offers no component and no model: there is nothing to check")
    return found


def _brought(origin: Any, record: PluginRecord) -> bool:
    if record.builtin:
        return False  # the built-in catalogue belongs to no single plugin of ours
    return (origin.plugin, origin.distribution) == (record.name, record.distribution)


def _record(plugin: str, registry: Registry) -> PluginRecord:
    named = [r for r in registry.plugins if r.name == plugin]
    if not named:
        raise UnknownNameError(
            "plugin", plugin, {r.name for r in registry.plugins}, "is it installed? `pip install -e .`"
        )
    for record in named:
        if record.status == "loaded":
            return record
    fix = f"; {named[0].fix}" if named[0].fix else ""
    raise PluginError(f"the plugin {plugin!r} is left out: {named[0].reason}{fix}")


# ---- listing ----------------------------------------------------------------------------------


def check_listing(record: PluginRecord, registry: Registry) -> str:
    """Listed without torch, without output, quickly, and with nothing of its catalogue refused."""
    if record.warnings:
        raise Failed("; ".join(record.warnings))
    who = f"plugin {record.name!r}"
    refused = [p for p in registry.problems if who in p or f"{record.distribution} " in p]
    if refused:
        raise Failed("; ".join(refused))
    return f"imported no torch, {record.milliseconds:.1f} ms"


def _module(record: PluginRecord) -> ModuleType:
    return import_module(record.module.partition(":")[0].strip())


def check_names(record: PluginRecord) -> str:
    """The components can be imported by name, always, and the stub tells type checkers what they take."""
    module = _module(record).__name__
    names = stubs.names_in(_module(record))
    assert names is not None  # else there is no such case
    if names.plugin != record.name:
        raise Failed(f"`named` says that the plugin is {names.plugin!r}; its entry point is {record.name!r}")
    if taken := stubs.shadowed(module):
        raise Failed(f"a component and something else in {module} are both named {taken[0]!r}; rename that")
    if doubled := stubs.twice(names):
        raise Failed(f"two components are both {doubled[0]!r} in Python, where a dash is an underscore; rename one")
    write = f"python -m zoo.plugin.stubs {module}"
    if not stub_path(module).is_file():
        return f"type checkers do not see the arguments: no {stub_path(module).name}; write it by `{write}`"
    if stubs.differs(module):
        raise Failed(f"{stub_path(module).name} says something else than the factories; write it again by `{write}`")
    return f"{plural(len(names.table()), 'name')}, and what each takes"


# ---- components -------------------------------------------------------------------------------


def _of_component(
    name: str,
    component: Component,
    registry: Registry,
    examples: Mapping[str, Mapping[str, Any]],
    models: Sequence[str] = (),
) -> Iterator[Case]:
    """The cases of a component; `models` are those that its plugin offers."""
    if component.kind == "dataset":
        yield Case(name, "loads", lambda: data.check_component(name, registry))
        return
    if component.kind == "listener":
        yield Case(name, "listens", lambda: data.check_listener(name, component))
        return
    if component.kind == "exporter":
        yield Case(name, "exports", lambda: exporters.check_exporter(name, component))
        return
    yield Case(name, "signature", lambda: check_signature(name, component))
    trees = _trees(name, component, registry, examples.get(name))
    if not trees:
        why = "has arguments without default: give them in `examples`, or use it in a model of registry.toml"
        yield Case(name, "shapes", lambda: _skip(why))
        return
    sizes = dict.fromkeys((*SIZES, *_sizes_in(name, models, registry)))
    subject = Subject(name, registry, tuple(trees), tuple(sizes), larger=LARGER)
    if component.kind == "combinator":
        yield Case(name, "parts", lambda: modules.check_parts(subject))
    for check, body in MODULE_CHECKS:
        yield Case(name, check, lambda b=body: b(subject))  # type: ignore[misc]


def _sizes_in(name: str, models: Sequence[str], registry: Registry) -> list[Sizes]:
    """The sizes of those of a plugin's models that a component is part of: at most three."""
    users = (registry.models[m] for m in models if m in registry.models)
    using = (model for model in users if any(node.use == name for _, node in model.build.walk()))
    return list(dict.fromkeys(Sizes(**native_sizes(model, registry)) for model in using))[:3]


def _skip(why: str) -> str:
    raise Skipped(why)


def check_signature(name: str, component: Component) -> str:
    """The factory takes by keyword what it is given, and annotates the rest."""
    factory = import_factory(component.factory, name)
    parameters = inspect.signature(factory).parameters
    given = GIVEN[component.kind]
    by_keyword = {p.name for p in parameters.values() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [g for g in given if g not in by_keyword]
    if missing and not rest:
        raise Failed(f"a {component.kind}'s factory takes {', '.join(given)} by keyword; not {missing[0]!r}")
    own = [p for p in parameters.values() if p.name in by_keyword and p.name not in given]
    bare = [p.name for p in own if p.annotation is p.empty]
    if bare:
        raise Failed(f"the argument {bare[0]!r} has no annotation, so a wrong value in TOML goes unnoticed")
    return f"{plural(len(own), 'argument')} of its own"


def _trees(name: str, component: Component, registry: Registry, example: Mapping[str, Any] | None) -> Sequence[Node]:
    """Classifiers around the component, the first that can be built being the one that is checked."""
    nodes = [Node(use=name, args=dict(example))] if example is not None else []
    if example is None and not _needs(name, component):
        nodes = [Node(use=name)]
    if component.kind == "combinator":
        part = Node(use="cnn.residual", args={"widths": [4]})
        nodes = [Node(use=n.use, args=n.args, of=(part,) * count) for n in nodes for count in PARTS]
    nodes = nodes or _uses(name, registry)
    if component.kind == "classifier":
        return nodes
    place = {"stem": "stem", "head": "head"}.get(component.kind, "body")
    return [Node(use="hybrid.classifier", args={place: node}) for node in nodes]


def _needs(name: str, component: Component) -> list[str]:
    parameters = inspect.signature(import_factory(component.factory, name)).parameters.values()
    wanted = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return [p.name for p in wanted if p.name not in GIVEN[component.kind]]


def _uses(name: str, registry: Registry) -> list[Node]:
    """How the catalogue's models use a component."""
    nodes = (node for model in registry.models.values() for _, node in model.build.walk())
    return [node for node in nodes if node.use == name][:3]


def _of_model(name: str, registry: Registry) -> Iterator[Case]:
    model = registry.models[name]
    native = Sizes(**native_sizes(model, registry))
    other = native._replace(num_classes=native.num_classes + 3)
    half = native._replace(height=native.height * 2, width=native.width * 2)
    subject = Subject(name, registry, (model.build,), (native, other, half), declared=model.parameters)
    for check, body in MODULE_CHECKS:
        yield Case(name, check, lambda b=body: b(subject))  # type: ignore[misc]
