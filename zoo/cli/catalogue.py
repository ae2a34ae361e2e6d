"""`zoo list` and `zoo info`. Only `zoo info --build` imports torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from zoo.cli import describe, say_problems, table
from zoo.cli.table import Column
from zoo.errors import UnknownNameError
from zoo.registry import Registry, find_model, load_registry
from zoo.spec import Model

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


@click.command("list", short_help="List the models of the catalogue.")
@click.argument("pattern", default="*")
@click.option("--family", default="", metavar="NAME", help="Only models of this family.")
@click.option("--tag", default="", metavar="TAG", help="Only models with this tag.")
@click.option(
    "--dataset", default="", metavar="NAME", help="Only models built or published for this dataset."
)
@click.option(
    "--sort", type=click.Choice(SORTS), default="name", show_default=True, help="The order of the rows."
)
@click.option(
    "--hub", is_flag=True, help="The packages on the Hub instead: as `zoo search PATTERN --tag TAG`."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array of objects on stdout.")
def list_models(
    pattern: str, family: str, tag: str, dataset: str, sort: str, hub: bool, as_json: bool
) -> None:
    """List the models whose name matches PATTERN (a glob, or a part of the name).

    PUBL. and OWN are top-1 on DATASET: the best that the source prints, and our own with its
    protocol. A namespace's models are listed on request: zoo list 'timm/resnet*'
    """
    if hub:
        from zoo.cli.hub import show_hits

        tags = tuple(t for t in (tag, family) if t)
        return show_hits(pattern.strip("*"), tags, 50, as_json, dataset)
    registry = load_registry()
    say_problems(registry.problems)
    if "/" in pattern:
        found = _namespace_models(pattern, registry)
        found = {n: m for n, m in found.items() if family in ("", m.family) and not tag and not dataset}
    else:
        found = registry.search(pattern, family=family, tag=tag, dataset=dataset)
    names = sorted(found, key=_order(sort, found))
    if as_json:
        table.emit_json([describe.row_of(name, found[name], registry) for name in names])
    elif names:
        dropped = table.emit_table(COLUMNS, [_cells(name, found[name]) for name in names], table.width())
        _hint(len(names), dropped, registry)
    if not names:
        table.say(_nothing(pattern, {"family": family, "tag": tag, "dataset": dataset}, registry))


def _order(sort: str, found: dict[str, Model]) -> Callable[[str], Any]:
    """Texts from a to z, counts from small to large, top-1 from the best; what is unknown comes last."""

    def key(name: str) -> tuple[bool, Any, str]:
        model = found[name]
        published, own = describe.best_published(model), describe.best_measured(model)
        values = {
            "family": model.family,
            "parameters": describe.parameters(model),
            "published": -(published.top1 or 0.0) if published else None,
            "own": -own.top1 if own else None,
            "dataset": model.dataset,
            "source": model.source,
        }
        value = values.get(sort, name)
        return value is None, value if value is not None else 0, name

    return key


def _cells(name: str, model: Model) -> list[str]:
    published = describe.best_published(model)
    own = describe.best_measured(model)
    dataset = published.dataset if published else own.dataset if own else model.dataset
    elsewhere = f" {own.dataset}" if own and own.dataset != dataset else ""
    return [
        name,
        model.family,
        _short(describe.parameters(model)),
        f"{published.top1:.2%}" if published and published.top1 is not None else "-",
        f"{own.top1:.2%} {own.protocol}{elsewhere}" if own else "-",
        dataset,
        model.source or "-",
        model.summary,
    ]


def _short(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.{2 if count < 100 * size else 1}f}{unit}"
    return str(count)


def _hint(shown: int, dropped: list[str], registry: Registry) -> None:
    if not sys.stdout.isatty():
        return
    spaces = sorted({c.namespace for c in registry.components.values() if c.namespace})
    if dropped:
        table.say(f"hint: a wider terminal, or --json, shows also: {', '.join(dropped)}")
    more = "".join(f"; zoo list '{space}/*'" for space in spaces)
    table.say(f"{shown} models; next: zoo info NAME{more}")


def _nothing(pattern: str, filters: dict[str, str], registry: Registry) -> str:
    """Why the list is empty, with what could be meant."""
    known = {
        "family": {m.family for m in registry.models.values()},
        "tag": {t for m in registry.models.values() for t in m.tags},
        "dataset": {
            p for m in registry.models.values() for p in (m.dataset, *(r.dataset for r in m.published))
        },
    }
    for kind, given in filters.items():
        if given and given not in known[kind]:
            return str(UnknownNameError(kind, given, known[kind]))
    if any(filters.values()):
        return "no model has all that was asked for"
    return str(UnknownNameError("model", pattern, registry.models, "a pattern may hold * and ?"))


def _namespace_models(pattern: str, registry: Registry) -> dict[str, Model]:
    """The names of namespaces ("timm/...") that match; this asks their libraries, which may take seconds."""
    from fnmatch import fnmatchcase

    from zoo.plugins import import_factory

    found: dict[str, Model] = {}
    for use, component in registry.components.items():
        space = component.namespace
        if not space or not component.names or not fnmatchcase(space, pattern.partition("/")[0]):
            continue
        names: Iterable[str] = import_factory(component.names, use)()
        full = (f"{space}/{name}" for name in names)
        found |= {name: registry.model(name) for name in full if fnmatchcase(name, pattern)}
    return found


@click.command("info", short_help="Show one model: its tree, recipe and results.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--tree", is_flag=True, help="Only the tree of components.")
@click.option("--build", is_flag=True, help="Build it on the meta device: count parameters and FLOPs.")
@click.option("--num-classes", type=click.IntRange(min=1), help="With --build: classes, not its dataset's.")
@click.option(
    "--image-size", type=click.IntRange(min=1), help="With --build: side in pixels, not its dataset's."
)
def info(
    name: str, as_json: bool, tree: bool, build: bool, num_classes: int | None, image_size: int | None
) -> None:
    """Show the model NAME: a name of `zoo list`, timm/NAME, torchvision/NAME or FILE.toml#NAME."""
    if not build and (num_classes or image_size):
        raise click.UsageError("--num-classes and --image-size need --build")
    registry, name, model = find_model(name)
    say_problems(registry.problems)
    details = describe.details_of(name, model, registry)
    if build:
        from zoo.cli import counting
        from zoo.compose import sizes_for

        sizes = sizes_for(model, registry, num_classes=num_classes, image_size=image_size)
        details |= counting.count(name, model, registry, sizes)
        details["published_counts"] = counting.published_counts(name, model, registry)
    if as_json:
        table.emit_json(details)
    elif tree:
        table.emit(_tree(model, registry))
    else:
        from zoo.cli.page import page

        table.emit(page(details, model, registry, _tree(model, registry)))


def _tree(model: Model, registry: Registry) -> list[str]:
    """The drawn tree, with each component's distribution at the right where there is room."""
    encoding = (sys.stdout.encoding or "utf-8").lower()
    drawn = list(describe.tree_lines(model.build, registry, ascii_only="utf" not in encoding))
    column = max(len(line) for line, _ in drawn)
    limit = table.width()
    if limit is None or column + 2 + max(len(by) for _, by in drawn) <= limit:
        return [f"{table.clean(line).ljust(column)}  {table.dim(table.clean(by))}" for line, by in drawn]
    return [f"{table.clean(line)}  {table.dim(f'[{table.clean(by)}]')}" for line, by in drawn]
