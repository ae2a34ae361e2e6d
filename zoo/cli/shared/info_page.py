"""The text page of `zoo info`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.base.text import plural
from zoo.catalogue.describe import recipe_changes
from zoo.catalogue.model_info import ModelInfo
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, Published
from zoo.cli.shared import table


def page(found: ModelInfo, tree: list[str]) -> Iterator[str]:
    """The lines of the page: name, tree, counts, recipe, results and source."""
    details, model = found.as_dict(), found.model
    count = f"{details['parameters']:,} parameters" if details["parameters"] else "parameters: see --build"
    first, *more = _wrapped(f"{details['name']}  {table.clean(model.summary)}")
    yield table.bold(details["name"]) + first.removeprefix(details["name"])
    yield from more
    tags = f", tags {' '.join(model.tags)}" if model.tags else ""
    yield from _wrapped(f"family {model.family}, {count}, for {model.dataset}{tags}")
    yield from _section("tree", tree)
    if "flops" in details:
        yield from _section("built", _built(details))
    yield from _section("recipe", _recipes(model, found.registry))
    yield from _section("results (top-1)", _results(model))
    yield from _section("weights", _weights(details["name"], model))
    yield from _section("source", _source(details["source"]))
    yield from _section("note", [table.clean(model.note)] if model.note else [])


def _section(title: str, lines: Any) -> Iterator[str]:
    filled = [line for line in lines if line]
    if filled:
        yield ""
        yield table.bold(title)
        for line in filled:
            yield from _wrapped(f"  {line}")


def _wrapped(line: str) -> list[str]:
    """The line wrapped to the terminal between words, with the later lines indented."""
    limit = table.width()
    if limit is None or len(line) <= limit or "\033" in line:
        return [line]
    import textwrap

    margin = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, limit, subsequent_indent=margin, break_on_hyphens=False) or [line]


def _built(details: dict[str, Any]) -> Iterator[str]:
    sizes = details["sizes"]
    shape = f"{sizes['in_channels']}x{sizes['height']}x{sizes['width']}"
    yield f"{details['parameters']:,} parameters with {plural(sizes['num_classes'], 'class')} at {shape}"
    yield f"{details['flops']:,} FLOPs per image ({details['flops_definition']})"
    for row in details["published_counts"]:
        if row["built"] is None:
            yield f"{row['dataset']}: {row['printed']:,} published; {row['problem']}"
            continue
        difference, expected = row["difference"], row["expected_difference"]
        verdict = "equal" if difference == 0 else f"{difference:+,}"
        verdict += "" if difference == expected else f", expected {expected:+,}"
        yield f"{row['dataset']}: {row['built']:,} built, {row['printed']:,} published ({verdict})"


def _recipes(model: Model, registry: Registry) -> Iterator[str]:
    for role, name in (("", model.recipe), ("best: ", model.best)):
        if not name:
            continue
        clash = registry.clashes.get(("recipe", name))
        recipe = None if clash else registry.recipes.get(name)
        yield f"{role}{name}  {table.clean(recipe.summary if recipe else clash or 'not in the catalogue')}".rstrip()
        if recipe is None:
            continue
        for field, value in recipe_changes(recipe).items():
            rows = value if field == "augment" else [value]
            for row in rows:
                text = " ".join(f"{k}={v}" for k, v in row.items() if v) if isinstance(row, dict) else row
                yield f"  {field:<16}{table.clean(str(text))}"


def _results(model: Model) -> Iterator[str]:
    datasets = dict.fromkeys([*(r.dataset for r in model.published), *(r.dataset for r in model.measured)])
    if datasets:
        yield f"{'DATASET':<22}FROM       TOP-1   DETAILS"
    for dataset in datasets:
        for row in (r for r in model.published if r.dataset == dataset):
            yield f"{dataset:<22}published  {_published(row)}"
        for result in (r for r in model.measured if r.dataset == dataset):
            spread = f" ± {result.spread:.2%}" if result.spread is not None else ""
            seeds = f"{result.seeds} seed{'s' if result.seeds > 1 else ''}"
            what = ", ".join(t for t in (result.protocol, seeds, result.recipe, result.device, result.note) if t)
            yield f"{dataset:<22}own        {result.top1:.2%}{spread}  {table.clean(what)}"


def _weights(name: str, model: Model) -> Iterator[str]:
    for entry in model.weights:
        low, high = entry.interval
        number = f"top-1 {entry.top1:.2%} (95% interval {low:.2%} to {high:.2%})"
        how = f"{entry.recipe}, {entry.protocol}, seed {entry.seed}"
        kept = f"{entry.bytes / 1e6:.2f} MB in {entry.precision}, {entry.where.partition(':')[0]}, {entry.licence}"
        yield table.clean(", ".join(t for t in (f"{name}@{entry.dataset}  {number}", how, kept, entry.note) if t))


def _published(row: Published) -> str:
    top1 = f"{row.top1:.2%}" if row.top1 is not None else "-"
    params = f"{row.params:,} parameters" if row.params else ""
    minutes = f"{row.minutes:g} min" if row.minutes else ""
    return table.clean("  ".join(t for t in (top1, params, minutes, row.published_as, row.note) if t))


def _source(source: dict[str, Any] | None) -> Iterator[str]:
    if source:
        yield table.clean(source["title"])
        yield from (table.clean(source[key]) for key in ("authors", "code", "url") if source[key])
