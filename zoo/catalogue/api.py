"""The public calls of this room: `zoo.models`, `zoo.info`, `zoo.datasets`, `zoo.plugins`, `zoo.new_plugin`,
and the makers of trees.

None of them imports torch, unless a model is to be built. What they need is imported when they are called:
`zoo list` is a call of `zoo.models`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.base.checked_call import checked
from zoo.base.door import call
from zoo.base.paths import local_path
from zoo.base.reporter import Reporter

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.base.tables import Table
    from zoo.catalogue.model_info import ModelInfo
    from zoo.catalogue.model_rows import ModelTable, Sort
    from zoo.catalogue.parts import alternate as alternate
    from zoo.catalogue.parts import joint as joint
    from zoo.catalogue.parts import part as part
    from zoo.catalogue.registry import Registry
    from zoo.catalogue.spec import Model, Node

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """`part`, `alternate` and `joint`, imported when they are used: listing models is quicker without."""
        if name in ("alternate", "joint", "part"):
            return call(f"zoo.catalogue.parts:{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def models(
    pattern: str = "*",
    *,
    family: str = "",
    tag: str = "",
    dataset: str = "",
    sort: Sort = "name",
    reporter: Reporter | None = None,
) -> ModelTable:
    """List the models of the catalogue.

    Args:
        pattern: a glob, or a part of the name. Models of timm and torchvision are listed if it begins with "timm/" or
            "torchvision/", which imports these libraries.
        family, tag: only those of this family, with this tag; "": any.
        dataset: only those built or published for this dataset; "": any.
        sort: "name", "family", "parameters", "published" or "own" (top-1, the best first), "dataset" or "source".
        reporter: is told what is wrong with plugins, and why there are no rows though all names are known.
    Returns:
        The rows of `zoo list --json`: accuracies as fractions (0..1), None for what is unknown. `short` is the table
        as it is shown, with the best results of each model.
    Raises:
        UnknownNameError: no model, family, tag or dataset is called so; suggests others.
        InputError: no such column to sort by.

    Example:
        >>> zoo.models("hybrid-alt-*").column("name")[0]
        'hybrid-alt-1'
    """
    from zoo.catalogue.model_filter import Choice
    from zoo.catalogue.model_rows import models_like

    return models_like(Choice(pattern, family, tag, dataset), sort, reporter or Reporter())


@checked
def datasets(*, reporter: Reporter | None = None) -> Table:
    """List the datasets of the catalogue.

    Args:
        reporter: is told what is wrong with plugins.
    Returns:
        The rows of `zoo datasets --json`, by name: numbers of images (`train`, `test`) and of classes, `size` as
        height and width in pixels; None for what is unknown.

    Example:
        >>> [row["classes"] for row in zoo.datasets() if row["name"] == "digits"]
        [10]
    """
    from zoo.base.tables import Table
    from zoo.catalogue.describe import dataset_row

    registry = _registry(reporter)
    return Table(dataset_row(name, dataset) for name, dataset in sorted(registry.datasets.items()))


@checked
def plugins(*, reporter: Reporter | None = None) -> Table:
    """List the installed plugins: what each offers, or why it was left out and what to do.

    Plugins that failed are tried again. `zoo.testing.cases_of` checks one.

    Args:
        reporter: is told what is wrong with plugins.
    Returns:
        The rows of `zoo plugins --json`: `status` ("loaded", "failed", "disabled") with `reason` and `fix`, the names
        of the `components`, `models`, `recipes`, `datasets` and `sources`, `milliseconds` of the import.

    Example:
        >>> "hybrid.alternate" in zoo.plugins()[0]["components"] or "hybrid" in zoo.plugins().column("name")
        True
    """
    from zoo.base.tables import Table
    from zoo.catalogue.describe import plugin_row

    registry = _registry(reporter, retry=True)
    return Table(plugin_row(record, registry) for record in registry.plugins)


@checked
def info(
    name: str | Node,
    *,
    build: bool = False,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    reporter: Reporter | None = None,
) -> ModelInfo:
    """Show one model: its tree, recipes and results.

    Args:
        name: a name of `zoo.models`, timm/NAME, torchvision/NAME, FILE.toml#NAME, or a tree made in Python.
        build: build it without allocating its weights, and count its parameters and FLOPs; this imports torch.
        num_classes: with `build`: number of classes; default: its dataset's.
        image_size: with `build`: side of the images in pixels, or height and width; default: its dataset's.
        reporter: is told what is wrong with plugins.
    Returns:
        The model; shown as its tree, in a notebook as a picture. `as_dict()` is what `zoo info --json` prints.
    Raises:
        UnknownNameError: no model is called so; suggests others. InputError: sizes without `build`, or such as no
        model has. ZooError: it cannot be built; says where in the tree.

    Example:
        >>> zoo.info("hybrid-alt-1").tree.use
        'hybrid.classifier'
    """
    from zoo.catalogue.model_info import ModelInfo
    from zoo.errors import InputError

    if not build and (num_classes is not None or image_size is not None):
        raise InputError("--num-classes and --image-size require --build; see `zoo info --help`")
    registry, listed, model = _found(name)
    _warn(registry, reporter)
    counts = _counts(registry, listed, model, num_classes, image_size) if build else {}
    return ModelInfo(listed, model, registry, counts)


@checked
def new_plugin(
    name: str, *, family: str | None = None, output: str | Path | None = None, source: str | Path | None = None
) -> Path:
    """Write a complete package folder for a plugin, with tests that pass.

    Args:
        name: the plugin's name, "waves" or "zoo-waves"; the distribution is zoo-waves.
        family: kind of component that it starts with: "cnn" (default), "vit", "perceiver", "mixer", "hybrid", "dataset"
            or "combinator".
        output: the folder to write; default: ./zoo-NAME.
        source: FILE.py, or FILE.py:NAME: the code to make it of, instead of a family's template.
    Returns:
        The folder.
    Raises:
        InputError: an invalid name, an unknown family, a folder that is not empty, or code that is no component.
        WriteError: it cannot be written.

    Example:
        >>> zoo.new_plugin("waves", family="vit")  # doctest: +SKIP
        PosixPath('zoo-waves')
    """

    place = None if output is None else local_path(output)
    if source is not None and family is not None:
        from zoo.errors import InputError

        raise InputError("--from makes the plugin of your own code, which says what it is; leave out --family")
    if source is not None:
        from zoo.catalogue.own_plugin import plugin_of

        return plugin_of(str(source), name, place)
    from zoo.plugin.scaffold import new_plugin

    return new_plugin(name, family or "cnn", place)


def _registry(reporter: Reporter | None, *, retry: bool = False) -> Registry:
    from zoo.catalogue.registry import load_registry

    registry = load_registry(retry=retry)
    _warn(registry, reporter)
    return registry


def _warn(registry: Registry, reporter: Reporter | None) -> None:
    told = reporter or Reporter()
    for problem in registry.problems:
        told.warn(problem)


def _found(name: str | Node) -> tuple[Registry, str, Model]:
    from zoo.catalogue.registry import find_model
    from zoo.catalogue.spec import Node
    from zoo.errors import InputError

    if isinstance(name, str):
        return find_model(name)
    if not isinstance(name, Node):
        raise InputError(f"zoo.info takes a name, FILE.py:NAME or a tree, not a {type(name).__name__}")
    entry: tuple[Registry, str, Model] = call("zoo.catalogue.parts:entry_of")(name)
    return entry


def _counts(
    registry: Registry, name: str, model: Model, num_classes: int | None, image_size: int | tuple[int, int] | None
) -> dict[str, Any]:
    from zoo.errors import InputError
    from zoo.models.compose import sizes_for
    from zoo.models.flops import count, published_counts

    sizes = sizes_for(model, registry, num_classes=num_classes, image_size=image_size)
    if min(sizes.values()) < 1:
        raise InputError(f"num_classes and image_size must be at least 1, given {sizes}")
    counts = count(name, model, registry, sizes)
    return counts | {"published_counts": published_counts(name, model, registry)}
