"""What is said about the models, datasets and plugins of the catalogue, as data; nothing here imports torch."""

from __future__ import annotations

from typing import Any

import msgspec

from zoo.base.paths import REGISTRY
from zoo.catalogue.plugins import OURS, PluginRecord
from zoo.catalogue.provenance import component_of
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Origin, Registry
from zoo.catalogue.spec import Dataset, Model, Node


def parameters(model: Model) -> int | None:
    """The parameter count in the catalogue, else the published one (on the model's own dataset first)."""
    if model.parameters is not None:
        return model.parameters
    rows = [row for row in model.published if row.params is not None]
    on_own_dataset = [row for row in rows if row.dataset == model.dataset]
    return next((row.params for row in on_own_dataset or rows), None)


def native_sizes(model: Model, registry: Registry) -> dict[str, int]:
    """in_channels, height, width and num_classes of the model's own dataset (224 and 1000 without).

    Where the model's recipe resizes its images, that is the size.
    """
    dataset, recipe = registry.datasets.get(model.dataset), registry.recipes.get(model.recipe)
    side = recipe.image_size if recipe else None
    height, width = (side, side) if side else (dataset and dataset.size) or (224, 224)
    classes = (dataset and (dataset.num_classes or len(dataset.classes))) or 1000
    channels = dataset.channels if dataset else 3
    return {"in_channels": channels, "height": height, "width": width, "num_classes": classes}


def plugins_of(node: Node) -> list[str]:
    """The plugin of the root component, then the others that the tree uses, each once."""
    return list(dict.fromkeys(n.use.partition(".")[0] for _, n in node.walk()))


def origin_of(name: str, model: Model, registry: Registry) -> Origin | None:
    """The origin of the model; for "namespace/NAME" that of the plugin with the namespace."""
    listed = registry.origins.get(("model", name))
    return listed or registry.origins.get(("component", model.build.use))


def row_of(name: str, model: Model, registry: Registry) -> dict[str, Any]:
    """One object of `zoo list --json`: top-1 as fractions, None for unknown values."""
    origin, plugins = origin_of(name, model, registry), plugins_of(model.build)
    return {
        "name": name,
        "family": model.family,
        "parameters": parameters(model),
        "plugin": plugins[0],
        "plugins": plugins,
        "summary": model.summary,
        "source": model.source,
        "tags": list(model.tags),
        "dataset": model.dataset,
        "recipe": model.recipe,
        "best": model.best,
        "published": msgspec.to_builtins(list(model.published)),
        "measured": msgspec.to_builtins(list(model.measured)),
        "weights": msgspec.json.decode(msgspec.json.encode(model.weights)),
        "origin": _origin_row(origin) if origin else None,
    }


def _origin_row(origin: Origin) -> dict[str, str]:
    """The origin; for our own catalogue only the file name, which does not depend on the installation."""
    ours = origin.distribution == OURS
    return origin._asdict() | ({"file": REGISTRY} if ours else {})


def details_of(name: str, model: Model, registry: Registry) -> dict[str, Any]:
    """`row_of` with the tree, where each component comes from, the resolved recipes and the source."""
    details = row_of(name, model, registry)
    source = registry.sources.get(model.source or "")
    details["source"] = {"key": model.source, **msgspec.to_builtins(source)} if source else None
    return details | {
        "build": model.build.to_table(),
        "components": [component_of(use, registry) for use in dict.fromkeys(n.use for _, n in model.build.walk())],
        "recipe": recipe_of(model.recipe, registry),
        "best": recipe_of(model.best, registry) if model.best else None,
        "note": model.note,
    }


def recipe_of(name: str, registry: Registry) -> dict[str, Any]:
    """A recipe with every field resolved; only its name if the catalogue does not have it, or two plugins claim it."""
    recipe = None if ("recipe", name) in registry.clashes else registry.recipes.get(name)
    return {"name": name, **(msgspec.to_builtins(recipe) if recipe else {})}


def recipe_changes(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe that differ from the defaults."""
    default, fields = Recipe(), Recipe.__struct_fields__
    changed = (f for f in fields if getattr(recipe, f) != getattr(default, f) and f not in ("summary", "source"))
    return {f: msgspec.to_builtins(getattr(recipe, f)) for f in changed}


def dataset_row(name: str, dataset: Dataset) -> dict[str, Any]:
    """One object of `zoo datasets --json`: `size` is height and width; None for unknown values."""
    return {
        "name": name,
        "summary": dataset.summary,
        "train": dataset.train,
        "test": dataset.test,
        "classes": dataset.num_classes or len(dataset.classes) or None,
        "size": list(dataset.size) if dataset.size else None,
        "source": dataset.source,
        "licence": dataset.licence,
        "homepage": dataset.homepage,
    }


def plugin_row(record: PluginRecord, registry: Registry) -> dict[str, Any]:
    """One object of `zoo plugins --json`: the record, and the names of what the plugin brought."""
    mine = {
        kind: [n for (k, n), o in registry.origins.items() if k == kind and _brought(o, record)]
        for kind in ("model", "recipe", "dataset", "source")
    }
    if record.builtin:  # all built-in plugins share one catalogue: a model counts for the plugin of its root component
        ours = [n for (k, n), o in registry.origins.items() if k == "model" and o.distribution == OURS]
        mine["model"] = [n for n in ours if plugins_of(registry.models[n].build)[0] == record.name]
    return {
        **msgspec.to_builtins(record),
        "builtin": record.builtin,
        "components": [f"{record.name}.{c.name}" for c in record.components],
        **{f"{kind}s": names for kind, names in mine.items()},
        "installed_from": record.source,
    }


def _brought(origin: Origin, record: PluginRecord) -> bool:
    return bool(origin.file) and (origin.plugin, origin.distribution) == (record.name, record.distribution)
