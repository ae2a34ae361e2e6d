"""`zoo list`: prints the cached rows of the last listing if nothing has changed, else reads the catalogue.

The rows are cached in the cache folder with the same stamps as the plugin index; they are not cached if
the user has a registry.toml of their own. A cached listing imports only click and the standard library.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from zoo.base import stamps
from zoo.base.paths import cache_path, user_registries
from zoo.base.text import plural
from zoo.base.version import __version__
from zoo.catalogue.model_filter import Choice
from zoo.cli.shared import table
from zoo.cli.shared.messages import say_problems
from zoo.cli.shared.table import Column
from zoo.errors import UnknownNameError

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry
    from zoo.catalogue.spec import Model

SORTS = ("name", "family", "parameters", "published", "own", "dataset", "source")
COLUMNS = (
    Column("NAME"),
    Column("FAMILY", drop=3),
    Column("PARAMS", right=True, drop=5),
    Column("PUBL.", right=True),
    Column("OWN", right=True, drop=6),
    Column("DATASET", drop=2),
    Column("SOURCE", drop=1),
    Column("SUMMARY", flexible=True, drop=4),
)
SOURCES = ("listing.py", "shared/describe.py", "shared/table.py")
"""The code that makes rows: a change in it invalidates the cached rows."""


class Entry(NamedTuple):
    """One model: its JSON object, its line of the table, and its sort keys."""

    row: dict[str, Any]
    cells: list[str]
    keys: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's name."""
        name: str = self.row["name"]
        return name

    @property
    def datasets(self) -> set[str]:
        """The datasets that the model is built or published for."""
        return {self.row["dataset"], *(p["dataset"] for p in self.row["published"])}

    def order(self, key: str) -> tuple[bool, Any, str]:
        """Sort key: text from a to z, counts from small to large, top-1 from the best; unknown values come last."""
        value = self.keys.get(key, self.name)
        return value is None, value if value is not None else 0, self.name


class Listing(NamedTuple):
    """All models, the problems to warn about, and the namespaces that are listed only on request."""

    entries: list[Entry]
    problems: list[str]
    spaces: list[str]


@click.command("list", short_help="List the models of the catalogue.")
@click.argument("pattern", default="*")
@click.option("--family", default="", metavar="NAME", help="List only models of this family.")
@click.option("--tag", default="", metavar="TAG", help="List only models with this tag.")
@click.option("--dataset", default="", metavar="NAME", help="List only models built or published for this dataset.")
@click.option("--sort", type=click.Choice(SORTS), default="name", show_default=True, help="Column to sort the rows by.")
@click.option("--hub", is_flag=True, help="List packages on the Hub instead, as `zoo search PATTERN --tag TAG` does.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of objects on stdout.")
def list_models(pattern: str, family: str, tag: str, dataset: str, sort: str, hub: bool, as_json: bool) -> None:
    """List the models whose name matches PATTERN (a glob, or part of the name).

    PUBL. and OWN are top-1 accuracies on the dataset in column DATASET: the best published one, and the best
    that we measured, with its protocol and perhaps with another recipe (`zoo info NAME` lists all). Models of
    timm and torchvision are listed only if PATTERN starts with timm/ or torchvision/.

    Examples:

    \b
      zoo list
      zoo list 'hybrid-*' --sort published
      zoo list --family cnn --dataset cifar10 --json
      zoo list 'timm/resnet*'
      zoo list digits --hub
    """
    if hub:
        from zoo.cli.hub import show_hits

        tags = tuple(t for t in (tag, family) if t)
        return show_hits(pattern.strip("*"), tags, 50, as_json, dataset)
    choice = Choice(pattern, family, tag, dataset)
    listing = _of_namespaces(pattern) if "/" in pattern else _cached() or _made()
    say_problems(listing.problems)
    matching = [e for e in listing.entries if choice.allows(e.name, e.row["family"], e.row["tags"], e.datasets)]
    matching.sort(key=lambda entry: entry.order(sort))
    if as_json:
        table.emit_json([entry.row for entry in matching])
    elif matching:
        dropped = table.emit_table(COLUMNS, [entry.cells for entry in matching], table.width())
        _hint(len(matching), dropped, listing.spaces)
    if not matching:
        table.say(_nothing(choice, listing.entries))


# ---- the rows ---------------------------------------------------------------------------------


def _path(present: dict[str, int]) -> str:
    """The cache file: one for each interpreter, set of installation folders, version, code and plugin selection."""
    here = os.path.dirname(__file__)
    code = [stamps.stamp(os.path.join(here, name)) for name in SOURCES]
    chosen = [os.environ.get(name) for name in ("ZOO_LOAD_PLUGINS", "ZOO_DISABLE_PLUGINS")]
    identity = (__version__, sys.version, list(present), chosen, code)
    return f"{cache_path()}/listing-{zlib.crc32(repr(identity).encode()):08x}.json"


def _cached() -> Listing | None:
    """The cached rows of an earlier listing; None if there are none or something has changed since."""
    if user_registries():
        return None
    present = stamps.installed()
    content = stamps.read_checked(_path(present))
    if content is None:
        return None
    import json

    cached = json.loads(content)
    if not stamps.unchanged(cached["stamps"], present):
        return None
    return Listing([Entry(*entry) for entry in cached["entries"]], cached["problems"], cached["spaces"])


def _made() -> Listing:
    """The rows made from the catalogue, and cached for the next time."""
    from zoo.catalogue.registry import load_registry

    registry = load_registry()
    listing = _listing(registry, registry.models)
    if not user_registries():
        _cache(listing)
    return listing


def _cache(listing: Listing) -> None:
    from zoo.catalogue import index
    from zoo.catalogue.plugins import selection

    plugin_index = index.read(selection())
    if plugin_index is None:  # the cache folder is not writable, or an installation is in progress
        return
    import msgspec

    content = {"stamps": plugin_index.stamps, **listing._asdict()}
    stamps.write_checked(_path(stamps.installed()), msgspec.json.encode(content))


def _listing(registry: Registry, models: Mapping[str, Model]) -> Listing:
    entries = [_entry(name, model, registry) for name, model in models.items()]
    spaces = sorted({c.namespace for c in registry.components.values() if c.namespace})
    return Listing(entries, list(registry.problems), spaces)


def _entry(name: str, model: Model, registry: Registry) -> Entry:
    from zoo.cli.shared import describe

    published, measured = describe.best_published(model), describe.best_measured(model)
    count = describe.parameters(model)
    dataset = published.dataset if published else measured.dataset if measured else model.dataset
    elsewhere = f" {measured.dataset}" if measured and measured.dataset != dataset else ""
    cells = [
        name,
        model.family,
        _short(count),
        f"{published.top1:.2%}" if published and published.top1 is not None else "-",
        f"{measured.top1:.2%} {measured.protocol}{elsewhere}" if measured else "-",
        dataset,
        model.source or "-",
        model.summary,
    ]
    keys = {
        "family": model.family,
        "parameters": count,
        "published": -(published.top1 or 0.0) if published else None,
        "own": -measured.top1 if measured else None,
        "dataset": model.dataset,
        "source": model.source,
    }
    return Entry(describe.row_of(name, model, registry), cells, keys)


def _short(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.{2 if count < 100 * size else 1}f}{unit}"
    return str(count)


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


# ---- hints ---------------------------------------------------------------------------------------


def _hint(shown: int, dropped: list[str], spaces: list[str]) -> None:
    if not sys.stdout.isatty():
        return
    if dropped:
        table.say(f"hint: a wider terminal or --json also shows: {', '.join(dropped)}")
    more = "".join(f"; zoo list '{space}/*'" for space in spaces)
    table.say(f"{plural(shown, 'model')}; next: zoo info NAME{more}")


def _nothing(choice: Choice, entries: list[Entry]) -> str:
    """Why the list is empty though all names are known.

    Raises:
        UnknownNameError: one is not; suggests others.
    """
    known = {
        "family": {e.row["family"] for e in entries},
        "tag": {tag for e in entries for tag in e.row["tags"]},
        "dataset": {dataset for e in entries for dataset in e.datasets},
    }
    given = {kind: getattr(choice, kind) for kind in known}
    for kind, name in given.items():
        if name and name not in known[kind]:
            if kind == "dataset":
                return _of_no_model(name)
            raise UnknownNameError(kind, name, known[kind])
    if any(given.values()):
        return "no model matches all of these options"
    names = [e.name for e in entries]
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
