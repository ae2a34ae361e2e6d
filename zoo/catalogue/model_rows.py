"""The rows of `zoo.models`: those kept from the last time if nothing has changed, else made from the catalogue.

They are kept in the cache folder with the same stamps as the plugin index, but not if the user has a
registry.toml of their own. Kept rows are read with the lightest of the standard library alone, so that
`zoo list` is there at once.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args, overload

from zoo.base import stamps
from zoo.base.paths import cache_path, user_registries
from zoo.base.tables import Table
from zoo.base.version import __version__
from zoo.catalogue.model_filter import Choice
from zoo.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from zoo.base.reporter import Reporter
    from zoo.catalogue.registry import Registry
    from zoo.catalogue.spec import Model

Sort = Literal["name", "family", "parameters", "published", "own", "dataset", "source"]
COLUMNS = (
    *("name", "family", "parameters", "plugin", "plugins", "summary", "source", "tags", "dataset", "recipe", "best"),
    *("published", "measured", "weights", "origin"),
)
"""What `zoo.catalogue.describe.row_of` says of a model."""

SHORT = (
    *("name", "family", "parameters", "published", "own", "protocol", "dataset", "own_dataset", "weights", "source"),
    "summary",
)
"""What `short_of` says of a model."""

SOURCES = ("model_rows.py", "describe.py")
"""The code that makes rows: a change in it invalidates those that are kept."""

Row = dict[str, Any]


class ModelTable(Table):
    """Models of the catalogue, a row each, as `zoo list --json` prints them; shown with the best of their results."""

    __slots__ = ("_namespaces",)

    def __init__(self, rows: Iterable[Mapping[str, Any]], namespaces: Sequence[str] = ()) -> None:
        """Make a table of rows.

        Args:
            namespaces: those whose models are not among the rows: "timm" for what `zoo.models("timm/*")` lists.
        """
        super().__init__(rows, COLUMNS)
        object.__setattr__(self, "_namespaces", tuple(namespaces))

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Beginnings of names whose models are listed only if asked for: `zoo.models("timm/*")`."""
        names: tuple[str, ...] = self._namespaces  # type: ignore[attr-defined]
        return names

    @property
    def short(self) -> Table:
        """A line of each model: parameters, the best published top-1 and the best of ours (0..1), with its protocol."""
        return Table(map(short_of, self._kept), SHORT)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> ModelTable: ...
    def __getitem__(self, index: int | slice) -> Row | ModelTable:
        """One row as a dictionary, or a table of some rows."""
        table = super().__getitem__(index)
        return ModelTable(table, self.namespaces) if isinstance(table, Table) else table

    def __repr__(self) -> str:
        """The lines of `short`, aligned."""
        return repr(self.short)

    def _repr_html_(self) -> str:
        """The lines of `short` as notebooks show them."""
        return self.short._repr_html_()


class Listing(TypedDict):
    """All rows, the problems to warn about, and the namespaces that are listed only on request; kept as JSON."""

    rows: list[Row]
    problems: list[str]
    spaces: list[str]


def models_like(choice: Choice, sort: Sort, reporter: Reporter) -> ModelTable:
    """The models that were asked for; says why there are none though all names are known.

    Raises:
        UnknownNameError: a name is not; suggests others. InputError: no such column to sort by.
    """
    if sort not in get_args(Sort):
        raise InputError(f"cannot sort by {sort!r}; allowed: {', '.join(get_args(Sort))}")
    listing = _of_namespaces(choice.pattern) if "/" in choice.pattern else _kept() or _made()
    for problem in listing["problems"]:
        reporter.warn(problem)
    rows = [r for r in listing["rows"] if choice.allows(r["name"], r["family"], r["tags"], _datasets(r))]
    rows.sort(key=lambda row: _place(row, sort))
    if not rows:
        reporter.say(_why_none(choice, listing["rows"]))
    return ModelTable(rows, listing["spaces"])


# ---- what a row says ----------------------------------------------------------------------------


def best_published(row: Row) -> Row | None:
    """The best published top-1: on the model's own dataset, else on any."""
    results = [result for result in row["published"] if result["top1"] is not None]
    on_own_dataset = [result for result in results if result["dataset"] == row["dataset"]]
    return max(on_own_dataset or results, key=lambda result: result["top1"], default=None)


def best_measured(row: Row, published: Row | None) -> Row | None:
    """Our best top-1, also of weights, on the dataset of the best published one, else on any dataset."""
    dataset, results = (published or row)["dataset"], [*row["measured"], *row["weights"]]
    same = [result for result in results if result["dataset"] == dataset]
    return max(same or results, key=lambda result: result["top1"], default=None)


def short_of(row: Row) -> Row:
    """What a line of a table has room for; top-1 as fractions, `dataset` is that of `published`, else of `own`.

    `weights` are the datasets that there are trained weights for: NAME@DATASET.
    """
    published = best_published(row)
    own = best_measured(row, published)
    return {
        "name": row["name"],
        "family": row["family"],
        "parameters": row["parameters"],
        "published": published["top1"] if published else None,
        "own": own["top1"] if own else None,
        "protocol": own["protocol"] if own else None,
        "dataset": (published or own or row)["dataset"],
        "own_dataset": own["dataset"] if own else None,
        "weights": [entry["dataset"] for entry in row["weights"]],
        "source": row["source"],
        "summary": row["summary"],
    }


def _datasets(row: Row) -> set[str]:
    """The datasets that the model is built or published for."""
    return {row["dataset"], *(result["dataset"] for result in row["published"])}


def _place(row: Row, sort: Sort) -> tuple[bool, Any, str]:
    """Sort key: text from a to z, counts from small to large, top-1 from the best; unknown values come last."""
    if sort in ("published", "own"):
        published = best_published(row)
        best = published if sort == "published" else best_measured(row, published)
        value = -best["top1"] if best else None
    else:
        value = row[sort]
    return value is None, value if value is not None else 0, row["name"]


# ---- where rows come from -------------------------------------------------------------------------


def _path(present: dict[str, int]) -> str:
    """The cache file: one for each interpreter, set of installation folders, version, code and plugin selection."""
    here = os.path.dirname(__file__)
    code = [stamps.stamp(os.path.join(here, name)) for name in SOURCES]
    chosen = [os.environ.get(name) for name in ("ZOO_LOAD_PLUGINS", "ZOO_DISABLE_PLUGINS")]
    identity = (__version__, sys.version, list(present), chosen, code)
    return f"{cache_path()}/listing-{zlib.crc32(repr(identity).encode()):08x}.json"


def _kept() -> Listing | None:
    """The rows of an earlier listing; None if there are none or something has changed since."""
    if user_registries():
        return None
    present = stamps.installed()
    content = stamps.read_checked(_path(present))
    if content is None:
        return None
    import json

    kept = json.loads(content)
    listing: Listing = kept["listing"]
    return listing if stamps.unchanged(kept["stamps"], present) else None


def _made() -> Listing:
    """The rows made from the catalogue, and kept for the next time."""
    from zoo.catalogue.registry import load_registry

    registry = load_registry()
    listing = _listing(registry, registry.models)
    if not user_registries():
        _keep(listing)
    return listing


def _keep(listing: Listing) -> None:
    from zoo.catalogue import index
    from zoo.catalogue.plugins import selection

    plugin_index = index.read(selection())
    if plugin_index is None:  # the cache folder is not writable, or an installation is in progress
        return
    import msgspec

    content = {"stamps": plugin_index.stamps, "listing": listing}
    stamps.write_checked(_path(stamps.installed()), msgspec.json.encode(content))


def _listing(registry: Registry, models: Mapping[str, Model]) -> Listing:
    from zoo.catalogue.describe import row_of

    rows = [row_of(name, model, registry) for name, model in models.items()]
    spaces = sorted({c.namespace for c in registry.components.values() if c.namespace})
    return {"rows": rows, "problems": list(registry.problems), "spaces": spaces}


def _of_namespaces(pattern: str) -> Listing:
    """The matching models of namespaces ("timm/..."); this imports their libraries, which may take seconds."""
    from fnmatch import fnmatchcase

    from zoo.catalogue.plugins import import_factory
    from zoo.catalogue.registry import load_registry

    registry = load_registry()
    models: dict[str, Model] = {}
    for use, component in registry.components.items():
        space = component.namespace
        owner = registry.origins.get(("namespace", space or ""))
        if owner != registry.origins.get(("component", use)):
            continue  # nobody takes the place of a built-in plugin
        if space and component.names and fnmatchcase(space, pattern.partition("/")[0]):
            names: Callable[[], Iterable[str]] = import_factory(component.names, use)
            full = (f"{space}/{name}" for name in names())
            models |= {name: registry.model(name) for name in full if fnmatchcase(name, pattern)}
    return _listing(registry, models)


# ---- why there are none ---------------------------------------------------------------------------


def _why_none(choice: Choice, rows: Sequence[Row]) -> str:
    """Why no model was found though all names are known.

    Raises:
        UnknownNameError: one is not; suggests others.
    """
    known = {
        "family": {row["family"] for row in rows},
        "tag": {tag for row in rows for tag in row["tags"]},
        "dataset": {dataset for row in rows for dataset in _datasets(row)},
    }
    given = {kind: getattr(choice, kind) for kind in known}
    for kind, name in given.items():
        if name and name not in known[kind]:
            if kind == "dataset":
                return _of_no_model(name)
            raise UnknownNameError(kind, name, known[kind])
    if any(given.values()):
        return "no model matches all of these options"
    names = [row["name"] for row in rows]
    raise UnknownNameError("model", choice.pattern, names, "a pattern may contain * and ?")


def _of_no_model(name: str) -> str:
    """What to do with a dataset that no model is built or published for.

    Raises:
        UnknownNameError: there is no such dataset.
    """
    from zoo.catalogue.registry import load_registry

    known = load_registry().datasets
    if name not in known:
        raise UnknownNameError("dataset", name, known, "see `zoo datasets`")
    return (
        f"no model is built or published for {name}; any model can be trained on it: zoo train MODEL --dataset {name}"
    )
