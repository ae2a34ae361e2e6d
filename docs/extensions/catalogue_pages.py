"""Pages of the catalogue, written at build time from registry.toml: one for each family, and the datasets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zoo.base.paths import builtin_registry
from zoo.catalogue import describe, picture
from zoo.catalogue.model_rows import short_of
from zoo.catalogue.plugins import OURS
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Dataset, Measured, Model, Published
from zoo.catalogue.tree import tree_lines

FOLDER = "catalogue"
TITLES = {
    "cnn": "Convolutional networks",
    "hybrid": "Hybrids",
    "mixer": "MLP-Mixers",
    "perceiver": "Perceivers",
    "vit": "Vision transformers",
}
"""Of the families that we know; another one is called by its name."""


def setup(app):
    """Write the pages before Sphinx looks for files."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / FOLDER, builtin()))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def builtin() -> Registry:
    """The shipped catalogue alone, whatever else is installed where the pages are built."""
    kept = os.environ.get("ZOO_LOAD_PLUGINS")
    os.environ["ZOO_LOAD_PLUGINS"] = ""
    try:
        registry = load_registry()
    finally:
        os.environ.pop("ZOO_LOAD_PLUGINS") if kept is None else os.environ.update(ZOO_LOAD_PLUGINS=kept)
    assert not registry.problems, registry.problems
    return registry


def write(folder: Path, registry: Registry) -> list[Path]:
    """Write what changed, and remove what is of no family any more."""
    pages = {f"{family}.md": family_page(family, registry) for family in families(registry)}
    pages |= {"datasets.md": datasets_page(registry), "recipes.md": recipes_page(registry)}
    pages["sources.md"] = sources_page(registry)
    folder.mkdir(exist_ok=True)
    pictures = draw_trees(folder, registry)
    for path in (*folder.glob("*.md"), *folder.glob("*.svg")):
        if path.name not in pages and path not in pictures:
            path.unlink()
    for name, lines in pages.items():
        text = "\n".join(lines) + "\n"
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    return [*(folder / name for name in pages), *pictures]


def draw_trees(folder: Path, registry: Registry) -> list[Path]:
    """Draw each model that is a tree, not a single component; a picture stays until the catalogue changes."""
    since = max(Path(builtin_registry()).stat().st_mtime, Path(picture.__file__).stat().st_mtime)
    pictures = []
    for name in ours("model", registry):
        model, path = registry.models[name], folder / f"{name}.svg"
        if not model.build.children():
            continue
        if not path.is_file() or path.stat().st_mtime <= since:
            picture.draw_tree(path, model.build, registry.components)
        pictures.append(path)
    return pictures


def ours(kind: str, registry: Registry) -> Iterator[str]:
    """The names of what hybrid-zoo itself ships, from a to z."""
    for (of, name), origin in sorted(registry.origins.items()):
        if of == kind and origin.distribution == OURS:
            yield name


def families(registry: Registry) -> dict[str, list[str]]:
    """The models of each family."""
    found: dict[str, list[str]] = {}
    for name in ours("model", registry):
        found.setdefault(registry.models[name].family, []).append(name)
    return dict(sorted(found.items()))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """A Markdown table; the columns in `right` are aligned to the right."""
    yield f"| {' | '.join(titles)} |"
    yield f"|{'|'.join('--:' if i in right else '---' for i, _ in enumerate(titles))}|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def percent(value: float | None) -> str:
    """A fraction as a percentage."""
    return "–" if value is None else f"{value:.2%}"


def family_page(family: str, registry: Registry) -> Iterator[str]:
    """A table of the family's models, then each of them."""
    names = families(registry)[family]
    yield f"# {TITLES.get(family, family)}"
    yield ""
    yield f"Family `{family}`, {len(names)} models. Top-1 is of the dataset that stands beside it."
    yield ""
    yield from table(
        ("Model", "Parameters", "Published", "Ours", "Dataset", "What it is"),
        (_overview(name, registry) for name in names),
        right=(1, 2, 3),
    )
    for name in names:
        yield from model_section(name, registry.models[name], registry)


def _overview(name: str, registry: Registry) -> list[str]:
    short = short_of(describe.row_of(name, registry.models[name], registry))
    return [
        f"[`{name}`](#model-{name})",
        f"{short['parameters']:,}" if short["parameters"] else "–",
        percent(short["published"]),
        f"{percent(short['own'])} ({short['protocol']})" if short["protocol"] else "–",
        short["dataset"],
        short["summary"],
    ]


def model_section(name: str, model: Model, registry: Registry) -> Iterator[str]:
    """One model: its tree, recipes, results and source."""
    yield from (f"(model-{name})=", f"## {name}", "", f"{sentence(model.summary)}", "")
    count = describe.parameters(model)
    facts = [f"{count:,} parameters" if count else "", f"built for [`{model.dataset}`](#data-{model.dataset})"]
    facts += [f"tags {', '.join(f'`{tag}`' for tag in model.tags)}"] if model.tags else []
    yield from (sentence("; ".join(fact for fact in facts if fact)), "")
    yield from tree(name, model, registry)
    for role, recipe in (("Recipe", model.recipe), ("Our better recipe", model.best)):
        if recipe:
            yield from (f"{role}: [`{recipe}`](#recipe-{recipe}), {registry.recipes[recipe].summary}", "")
    yield from ("```sh", f"zoo train {name}{' --recipe best' if model.best else ''}", "```", "")
    yield from results(model)
    if model.source:
        yield from (f"Source: [{registry.sources[model.source].title}](#source-{model.source})", "")
    if model.note:
        yield from (f"Note: {model.note}", "")


def tree(name: str, model: Model, registry: Registry) -> Iterator[str]:
    """The picture of a tree, with the text behind it; of a single component the text alone."""
    text = ("```text", *(line for line, _ in tree_lines(model.build, registry)), "```", "")
    if model.build.children():
        words = picture.in_words(model.build, registry.components)
        yield from (f"![{words}]({name}.svg)", "", "<details><summary>as text</summary>", "")
        yield from (*text, "</details>", "")
    else:
        yield from text


def results(model: Model) -> Iterator[str]:
    """The published and our own results in one table; a line where there are none."""
    if not (model.published or model.measured):
        yield from ("No result is published for it, and none of ours is recorded yet.", "")
        return
    rows = [_published(row) for row in model.published] + [_own(row) for row in model.measured]
    yield from table(("Dataset", "By", "Top-1", "Parameters", "Minutes", "Remarks"), rows, right=(2, 3, 4))


def _published(row: Published) -> list[str]:
    params = f"{row.params:,}" if row.params else "–"
    minutes = f"{row.minutes:g}" if row.minutes else "–"
    remarks = "; ".join(text for text in (row.published_as, row.pretrained or "", row.note) if text)
    return [row.dataset, "source", percent(row.top1), params, minutes, remarks]


def _own(row: Measured) -> list[str]:
    spread = f" ± {row.spread:.2%}" if row.spread is not None else ""
    seeds = f"{row.seeds} seed{'s' if row.seeds > 1 else ''}"
    remarks = "; ".join(t for t in (f"protocol {row.protocol}", seeds, row.recipe, row.device, row.note) if t)
    return [row.dataset, "hybrid-zoo", percent(row.top1) + spread, "–", "–", remarks]


def datasets_page(registry: Registry) -> Iterator[str]:
    """All datasets in one table, then where each comes from."""
    names = list(ours("dataset", registry))
    yield from ("# Datasets", "", f"{len(names)} that `--dataset NAME` knows; others are named by where they")
    yield from ("lie: [](../own-images.md). `zoo datasets` prints this list.", "")
    yield from table(
        ("Name", "Train", "Test", "Classes", "Size", "Source", "Licence"),
        (_dataset(name, registry.datasets[name]) for name in names),
        right=(1, 2, 3),
    )
    for name in names:
        data = registry.datasets[name]
        yield from (f"(data-{name})=", f"## {name}", "", sentence(data.summary or name), "")
        home = f", [homepage]({data.homepage})" if data.homepage else ""
        yield from (f"`{data.source}`{home}", "")


def _dataset(name: str, data: Dataset) -> list[str]:
    counts = [f"{value:,}" if value else "–" for value in (data.train, data.test)]
    classes = data.num_classes or len(data.classes)
    size = f"{data.size[1]}×{data.size[0]}" if data.size else "–"
    scheme = data.source.partition(":")[0]
    return [f"[`{name}`](#data-{name})", *counts, str(classes or "–"), size, f"`{scheme}`", data.licence or "–"]


def recipes_page(registry: Registry) -> Iterator[str]:
    """Each recipe with the fields that are not the defaults."""
    yield from ("# Recipes", "", "What a recipe does not say is the default: [](../recipe-keys.md) lists all keys.")
    yield from ("`--set recipe.KEY=VALUE` changes one for a run.", "")
    for name in ours("recipe", registry):
        recipe = registry.recipes[name]
        yield from (f"(recipe-{name})=", f"## {name}", "", sentence(recipe.summary), "")
        if recipe.source:
            title = registry.sources[recipe.source].title
            yield from (f"Source: [{title}](#source-{recipe.source})", "")
        yield from ("```text", *_fields(recipe), "```", "")


def _fields(recipe: Recipe) -> Iterator[str]:
    for field, value in describe.recipe_changes(recipe).items():
        for row in value if isinstance(value, list) else [value]:
            text = " ".join(f"{k}={v}" for k, v in row.items()) if isinstance(row, dict) else row
            yield f"{field:<16}  {text}"


def sources_page(registry: Registry) -> Iterator[str]:
    """The papers and reports, with the protocol of each."""
    yield from ("# Sources", "", "The papers and reports whose models and results are in the catalogue.", "")
    for name in ours("source", registry):
        source = registry.sources[name]
        yield from (f"(source-{name})=", f"## {source.title}", "")
        facts = [("Key", f"`{name}`"), ("Authors", source.authors), ("Code", source.code)]
        facts += [("Address", f"<{source.url}>" if source.url else ""), ("Protocol", source.protocol)]
        facts += [("Selection", f"`{source.selection}`" if source.selection else "")]
        yield from table(("", ""), [(f"**{key}**", value) for key, value in facts if value])


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")")) else ".") if text else ""
