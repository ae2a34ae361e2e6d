"""The catalogue: our registry.toml, the plugins' and the user's, in one immutable `Registry`.

Reading it never imports torch. What plugins offer and what the shipped files say is kept in an
index in the cache folder, which is made afresh when any installed distribution or file changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from zoo.base.paths import REGISTRY, builtin_registry, local_path, user_registries
from zoo.base.structs import Struct
from zoo.catalogue import index
from zoo.catalogue.model_filter import Choice
from zoo.catalogue.own_code import is_own, written_as
from zoo.catalogue.own_model import PLUGIN, OwnModel, own_model
from zoo.catalogue.plugins import OURS, PluginRecord, Selection, leave_out, selection
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry_file import TABLES, CatalogueFile, kind_of, parse_file, table_of, why_copy, why_foreign
from zoo.catalogue.spec import Dataset, Model, Node, Source, decode, decode_model
from zoo.catalogue.study import Study
from zoo.errors import InputError, PluginError, SpecError, UnknownNameError
from zoo.plugin.contract import Component

NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
MAX_PARENTS = 16
MOST_LEFT_OUT = 3
"""Plugins that are left out which a message names."""


class Origin(NamedTuple):
    """Who brought an entry: the plugin ("" for a registry file), its distribution, the file.

    `source` says where the distribution was installed from, if not from an index.
    """

    plugin: str
    distribution: str
    version: str
    file: str
    source: str = ""

    def __str__(self) -> str:
        """As messages and run records name it: "zoo-waves 1.0 (editable folder)", or the file."""
        if self.distribution:
            return f"{self.distribution} {self.version}" + (f" ({self.source})" if self.source else "")
        return self.file


class Registry(Struct, frozen=True):
    """Everything that can be named: look-ups raise `UnknownNameError` with the nearest names.

    Attributes:
        clashes: (kind, name) to the message that its use raises: two plugins claim the name.
        problems: one line each, for stderr: quarantined plugins and what they did wrong.
        origins: (kind, name) to where the entry came from.
    """

    components: Mapping[str, Component]
    sources: Mapping[str, Source]
    datasets: Mapping[str, Dataset]
    recipes: Mapping[str, Recipe]
    models: Mapping[str, Model]
    studies: Mapping[str, Study]
    origins: Mapping[tuple[str, str], Origin]
    plugins: tuple[PluginRecord, ...]
    clashes: Mapping[tuple[str, str], str]
    problems: tuple[str, ...]

    def component(self, name: str) -> Component:
        """The component "plugin.name"."""
        return self._get("component", self.components, name)

    def dataset(self, name: str) -> Dataset:
        """The named dataset."""
        return self._get("dataset", self.datasets, name, "see `zoo datasets`")

    def recipe(self, name: str) -> Recipe:
        """The named recipe."""
        return self._get("recipe", self.recipes, name)

    def model(self, name: str) -> Model:
        """The named model; "timm/NAME" and the like where a component has that namespace."""
        space, _, rest = name.partition("/")
        if rest and name not in self.models:
            return self._namespaced(space, rest, name)
        return self._get("model", self.models, name, "see `zoo list`")

    def offers_weights(self, name: str) -> bool:
        """Whether a name is "NAMESPACE/NAME" of a component that has pretrained weights: "timm/resnet18.a1_in1k"."""
        space, _, rest = name.partition("/")
        having = (c.namespace for c in self.components.values() if c.pretrained)
        return bool(rest) and name not in self.models and space in having

    def study(self, name: str) -> Study:
        """The named study."""
        return self._get("study", self.studies, name)

    def search(self, pattern: str = "*", *, family: str = "", tag: str = "", dataset: str = "") -> dict[str, Model]:
        """Models whose name matches the glob (or holds it, where it has no wildcard), by name."""
        choice = Choice(pattern, family, tag, dataset)
        return {
            name: model
            for name, model in sorted(self.models.items())
            if choice.allows(name, model.family, model.tags, {model.dataset, *(p.dataset for p in model.published)})
        }

    def origin(self, kind: str, name: str) -> Origin:
        """Who brought the entry ("component", "model", "recipe", "dataset" or "source")."""
        return self.origins[kind, name]

    def having(self, *, models: Mapping[str, Model], recipes: Mapping[str, Recipe]) -> Registry:
        """This catalogue with more models and recipes; one of the same name stands in for it."""
        return msgspec.structs.replace(
            self,
            models=MappingProxyType({**self.models, **models}),
            recipes=MappingProxyType({**self.recipes, **recipes}),
        )

    def having_own(self, own: OwnModel) -> Registry:
        """This catalogue with a component of the user's own."""
        origin = Origin(PLUGIN, PLUGIN, own.version, own.code.file)
        return msgspec.structs.replace(
            self,
            components=MappingProxyType({**self.components, own.use: own.component}),
            origins=MappingProxyType({**self.origins, ("component", own.use): origin}),
        )

    def with_model_of(self, own: OwnModel) -> Registry:
        """As `having_own`, with the model of the component too."""
        return self.having_own(own).having(models={own.name: own.model}, recipes={})

    def left_out(self, name: str, *, only_its_own: bool = False, distribution: str = "") -> str:
        """Which plugins are left out, and why, for a message about a name that is missing; "" where none is.

        Args:
            name: the plugins that it begins with the name of come alone, where there are such.
            distribution: as well as those of this distribution.
            only_its_own: say nothing of other plugins.
        """
        absent = [record for record in self.plugins if record.status != "loaded"]
        loaded = {record.name for record in self.plugins if record.status == "loaded"}
        absent = [record for record in absent if record.name not in loaded]
        its_own = [
            record
            for record in absent
            if record.distribution == distribution or re.match(rf"([a-z]+:)?{re.escape(record.name)}([./_-]|$)", name)
        ]
        shown = its_own or ([] if only_its_own else absent)
        clauses = [f"plugin {record.name!r} is left out: {record.reason}" for record in shown[:MOST_LEFT_OUT]]
        more = f"{len(shown) - MOST_LEFT_OUT} more plugins are left out" if len(shown) > MOST_LEFT_OUT else ""
        return "; ".join((*clauses, *([more] if more else []), "see `zoo plugins`")) if clauses else ""

    def unknown(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
        """The error about a name that is missing, which names the plugins that are left out."""
        its_own = self.left_out(name, only_its_own=True)
        if its_own:
            return UnknownNameError(kind, name, (), its_own)
        files = (problem for problem in self.problems if f"{REGISTRY} is left out" in problem)
        return UnknownNameError(kind, name, known, "; ".join(filter(None, (hint, self.left_out(name), *files))))

    def _get(self, kind: str, table: Mapping[str, Any], name: str, hint: str = "") -> Any:
        if (kind, name) in self.clashes:
            raise InputError(self.clashes[kind, name])
        if name not in table:
            raise self.unknown(kind, name, table, hint)
        return table[name]

    def _namespaced(self, space: str, rest: str, name: str) -> Model:
        if ("namespace", space) in self.clashes:
            raise InputError(self.clashes["namespace", space])
        owner = self.origins.get(("namespace", space))
        for full, component in self.components.items():
            if component.namespace == space and owner in (None, self.origins.get(("component", full))):
                build = Node(use=full, args={"name": rest})
                return Model(summary=f"{space}'s {rest}", family=space, build=build, recipe="default")
        spaces = sorted({c.namespace for c in self.components.values() if c.namespace})
        hint = f"models whose name has a / begin with {' or '.join(f'{s}/' for s in spaces)}"
        raise self.unknown("model", name, [*self.models, *(f"{s}/NAME" for s in spaces)], hint)


def load_registry(*, extra: Sequence[Path] = (), chosen: Selection | None = None, retry: bool = False) -> Registry:
    """Read the whole catalogue: built-in, plugins', the user's files, then `extra` files.

    Args:
        retry: look at plugins that failed again, even where nothing that was installed changed.
    Raises:
        PluginError: hybrid-zoo is not installed: a bare checkout has no entry points.
        SpecError: a file of ours or of the user's is wrong. A plugin's wrong file is a problem of
            that plugin alone, named in `Registry.problems`.
    """
    builder = _Builder()
    records, parsed = _installed(chosen or selection(), retry)
    if not any(record.builtin for record in records):
        raise PluginError(
            "hybrid-zoo is not installed in this Python, so none of its plugins can be used;"
            " run `pip install -e .` in the checkout"
        )
    builder.add_plugins(records)
    for file in parsed:
        builder.add_file(file, strict=file.distribution == OURS)
    own, strangers = _own_files()
    builder.problems += strangers
    for path in (*own, *extra):
        file = CatalogueFile(path=str(path), tables=parse_file(path))
        if (reason := why_copy(file, parsed)) is None:
            builder.add_file(file, strict=True)
        elif reason and path in extra:
            raise SpecError(reason)
        builder.problems += [reason] if reason else []
    return builder.finish()


def _own_files() -> tuple[list[Path], list[str]]:
    """The user's registry files, and a line about another program's registry.toml in the working folder."""
    own, here = [Path(path) for path in user_registries()], Path(REGISTRY).absolute()
    if here not in own or not (reason := why_foreign(here)):
        return own, []
    own.remove(here)
    return own, [f"{here} is left out, because it seems to be another program's: {reason}"]


def _installed(chosen: Selection, retry: bool) -> tuple[tuple[PluginRecord, ...], list[CatalogueFile]]:
    """What is installed: from the index where it is fresh, else by looking."""
    stored = index.read(chosen)
    if stored is not None and retry and any(record.status == "failed" for record in stored.plugins):
        stored = None
    if stored is not None and any(f.get("path") == builtin_registry() for f in stored.files):
        return stored.plugins, [msgspec.convert(f, CatalogueFile) for f in stored.files]
    from zoo.catalogue.discovery import discover

    ours = Path(builtin_registry())
    files = [CatalogueFile(path=str(ours), tables=parse_file(ours), distribution=OURS)]
    records = []
    for record in discover(chosen):
        try:
            files += _file_of(record)
        except SpecError as error:
            record = msgspec.structs.replace(
                record,
                status="failed",
                reason=str(error),
                fix=leave_out(record),
                components=(),
                files=(*record.files, record.registry),
            )
        records.append(record)
    index.write(chosen, tuple(records), [msgspec.to_builtins(f) for f in files])
    return tuple(records), files


def _file_of(record: PluginRecord) -> list[CatalogueFile]:
    if record.registry is None or record.status != "loaded":
        return []
    return [
        CatalogueFile(
            path=record.registry,
            tables=parse_file(Path(record.registry)),
            plugin=record.name,
            distribution=record.distribution,
            version=record.version,
            source=record.source,
        )
    ]


class _Builder:
    """Collects entries, then freezes them; a clash between plugins spoils that one name only."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {table: {} for table in ("components", "namespaces", *TABLES)}
        self.origins: dict[tuple[str, str], Origin] = {}
        self.clashes: dict[tuple[str, str], str] = {}
        self.problems: list[str] = []
        self.plugins: tuple[PluginRecord, ...] = ()
        self.raw_recipes: dict[str, tuple[dict[str, Any], str]] = {}

    def add_plugins(self, records: tuple[PluginRecord, ...]) -> None:
        self.plugins = records
        for record in records:
            who = f"plugin {record.name!r} ({record.distribution} {record.version})"
            if record.status == "failed":
                advice = f"; {record.fix}" if record.fix else ""
                self.problems.append(f"{who} is left out: {record.reason}{advice}")
            self.problems += [f"{who} {warning}" for warning in record.warnings]
            origin = Origin(record.name, record.distribution, record.version, "", record.source)
            for component in record.components:
                self._put("component", f"{record.name}.{component.name}", component, origin)
                if component.namespace:
                    self._put("namespace", component.namespace, component.name, origin)

    def add_file(self, file: CatalogueFile, *, strict: bool) -> None:
        origin = Origin(file.plugin, file.distribution, file.version, file.path, file.source)
        for table in TABLES:
            for name, entry in file.tables.get(table, {}).items():
                where = f"{file.path}: {table}.{name}"
                try:
                    self._add_entry(table, name, entry, where, origin)
                except SpecError as error:
                    if strict:
                        raise
                    self.problems.append(f"plugin {file.plugin!r} ({origin}): {error}")

    def _add_entry(self, table: str, name: str, entry: Any, where: str, origin: Origin) -> None:
        if not NAME.fullmatch(name):
            raise SpecError(f"{where}: a name is lower-case letters, digits and single . _ - between them")
        kind = kind_of(table)
        if table == "models":
            self._put(kind, name, decode_model(entry, where), origin)
        elif table == "recipes":
            if not isinstance(entry, dict):
                raise SpecError(f"{where}: expected a table, got {type(entry).__name__}")
            if self._put(kind, name, None, origin):
                self.raw_recipes[name] = (entry, where)
        else:
            structs: dict[str, type] = {"datasets": Dataset, "sources": Source, "studies": Study}
            self._put(kind, name, decode(structs[table], entry, where), origin)

    def _put(self, kind: str, name: str, value: Any, origin: Origin) -> bool:
        key, table = (kind, name), self.tables[table_of(kind)]
        if key not in self.origins:
            table[name], self.origins[key] = value, origin
            return True
        first = self.origins[key]
        message = f"{kind} {name!r} is claimed by both {first} and {origin}"
        if not origin.distribution and first.distribution in ("", OURS):
            raise SpecError(
                f"{origin.file}: {table_of(kind)}.{name}: {first} already has a {kind} of this name; rename yours"
            )
        if first.distribution == OURS:
            self.problems.append(f"{message}; the built-in one is used")
        else:
            self.clashes[key] = f"{message}; uninstall or rename one, or name it in ZOO_DISABLE_PLUGINS"
            self.problems.append(self.clashes[key])
        return False

    def _resolve_recipe(self, name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        entry, where = self.raw_recipes[name]
        parent = entry.get("extends")
        fields = {k: v for k, v in entry.items() if k != "extends"}
        if parent is None:
            return fields
        if not isinstance(parent, str) or parent not in self.raw_recipes:
            raise SpecError(f"{where}.extends: {UnknownNameError('recipe', str(parent), self.raw_recipes)}")
        if parent in seen or parent == name:
            raise SpecError(
                f"{where}.extends: the recipes extend one another in a circle: {' -> '.join((*seen, name, parent))}"
            )
        if len(seen) >= MAX_PARENTS:
            raise SpecError(f"{where}.extends: more than {MAX_PARENTS} recipes build on one another")
        inherited = self._resolve_recipe(parent, (*seen, name))
        if clash := self.clashes.get(("recipe", parent)):  # whose values these are would be a matter of chance
            self.clashes.setdefault(("recipe", name), f"recipe {name!r} extends {parent!r}: {clash}")
        return {**inherited, **fields}

    def _check_references(self) -> None:
        """Every recipe, dataset and source that is named must be there."""
        for kind in ("recipe", "model", "study"):
            for name, entry in list(self.tables[table_of(kind)].items()):
                missing = [r for r in references(entry) if r[2] not in self.tables[f"{r[1]}s"]]
                if missing:
                    self._refuse(kind, name, *missing[0])

    def _refuse(self, kind: str, name: str, key: str, wanted: str, given: str) -> None:
        origin = self.origins[kind, name]
        unknown = UnknownNameError(wanted, given, self.tables[f"{wanted}s"])
        message = f"{origin.file}: {table_of(kind)}.{name}.{key}: {unknown}"
        if not origin.distribution and self._whole():
            raise SpecError(message)
        self.problems.append(message)
        if origin.distribution != OURS:
            del self.tables[table_of(kind)][name]

    def _whole(self) -> bool:
        """Whether no plugin is left out: else what a file of the user's lacks may be that plugin's."""
        return all(record.status == "loaded" for record in self.plugins)

    def finish(self) -> Registry:
        for name, (_, where) in self.raw_recipes.items():
            origin = self.origins["recipe", name]
            try:
                self.tables["recipes"][name] = decode(Recipe, self._resolve_recipe(name), where)
            except SpecError as error:
                if not origin.plugin and self._whole():
                    raise
                who = f"plugin {origin.plugin!r} ({origin}): " if origin.plugin else ""
                self.problems.append(f"{who}{error}")
                del self.tables["recipes"][name]
        self._check_references()
        tables = ("components", *TABLES)
        frozen = {name: MappingProxyType(self.tables[name]) for name in tables}
        return Registry(
            **frozen,
            origins=MappingProxyType(self.origins),
            plugins=self.plugins,
            clashes=MappingProxyType(self.clashes),
            problems=tuple(self.problems),
        )


def references(entry: Model | Recipe | Study) -> Iterable[tuple[str, str, str]]:
    """What an entry names elsewhere in the catalogue: (its key, kind, name)."""
    if isinstance(entry, Recipe):
        return [("source", "source", entry.source)] if entry.source else []
    if isinstance(entry, Study):
        of_study = ("model", entry.model), ("source", entry.source), ("recipe", entry.recipe)
        return [(key, key, name) for key, name in (*of_study, ("dataset", entry.dataset)) if name]
    named = [
        ("recipe", "recipe", entry.recipe),
        ("best", "recipe", entry.best),
        ("dataset", "dataset", entry.dataset),
        ("source", "source", entry.source),
        *((f"published[{i}].source", "source", row.source) for i, row in enumerate(entry.published)),
        *((f"published[{i}].recipe", "recipe", row.recipe) for i, row in enumerate(entry.published)),
        *((f"published[{i}].best", "recipe", row.best) for i, row in enumerate(entry.published)),
        *((f"weights[{i}].dataset", "dataset", row.dataset) for i, row in enumerate(entry.weights)),
        *((f"weights[{i}].recipe", "recipe", row.recipe) for i, row in enumerate(entry.weights)),
    ]
    return [(key, kind, name) for key, kind, name in named if name]


def find_model(ref: str, chosen: Selection | None = None) -> tuple[Registry, str, Model]:
    """A model by name, by "namespace/NAME", by "FILE.toml#name" (the file joins the catalogue), or "FILE.py:NAME".

    Raises:
        UnknownNameError, SpecError: as the catalogue's look-ups and files do.
        InputError: there is no such file, or no model can be made of what is in it.
    """
    if is_own(ref):
        own = own_model(ref)
        return load_registry(chosen=chosen).with_model_of(own), own.name, own.model
    path, mark, name = ref.rpartition("#")
    if not mark:
        registry = load_registry(chosen=chosen)
        if ref not in registry.models and (code := written_as(ref)):
            raise registry.unknown("model", ref, registry.models, f"for the code in a file write {code}")
        return registry, ref, registry.model(ref)
    file = local_path(path)
    if not file.is_file():
        raise InputError(f"{ref!r}: the file {path!r} does not exist; write FILE.toml#MODEL")
    known = (*_own_files()[0], Path(builtin_registry()))
    joined = () if any(file.samefile(path) for path in known) else (file,)
    registry = load_registry(extra=joined, chosen=chosen)
    return registry, name, registry.model(name)
