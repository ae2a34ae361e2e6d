"""What a catalogue holds, as frozen structs: components, models, recipes, datasets, results.

Everything here is data. Nothing imports torch, and nothing imports a plugin. Tables from TOML are
decoded by `decode`, whose errors name the file, the key and the allowed values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from zoo.base.explain import explain, shown
from zoo.base.structs import Count, Fraction, NonNegative, Positive, PositiveFloat, Struct
from zoo.errors import SpecError

T = TypeVar("T")


# ---- components -----------------------------------------------------------------------------


class Node(Struct, frozen=True):
    """One node of a model's tree: a component, its arguments, and its children.

    Attributes:
        use: full component name, "plugin.component".
        args: the factory's own arguments. A value that is itself a `Node` (or a list of them)
            reaches the factory as a builder (or a list of builders).
        of: the children of a combinator; they reach the factory as `parts`.
    """

    use: str
    args: dict[str, Any] = {}
    of: tuple[Node, ...] = ()

    def children(self) -> list[tuple[str, Node]]:
        """All direct children, each with the key (as in TOML) that leads to it."""
        found = [(f"of[{i}]", child) for i, child in enumerate(self.of)]
        for key, value in self.args.items():
            if isinstance(value, Node):
                found.append((key, value))
            elif isinstance(value, list):
                found += [(f"{key}[{i}]", v) for i, v in enumerate(value) if isinstance(v, Node)]
        return found

    def to_table(self) -> dict[str, Any]:
        """The node as it stands in TOML; `node_from_table` reads it back."""

        def plain(value: Any) -> Any:
            if isinstance(value, Node):
                return value.to_table()
            return [plain(v) for v in value] if isinstance(value, list | tuple) else value

        table: dict[str, Any] = {"use": self.use}
        table |= {key: plain(value) for key, value in self.args.items()}
        return table | ({"of": [child.to_table() for child in self.of]} if self.of else {})


MAX_DEPTH = 32
"""How deep a model's tree may nest; deeper ones are refused with a clear line."""


def node_from_table(table: Any, where: str, depth: int = 0) -> Node:
    """Read one node of a model's tree from its TOML table.

    Raises:
        SpecError: not a table, no `use`, `of` is no list of tables, or nested too deeply.
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"{where}: expected a table with `use`, got {shown(table)}")
    if depth > MAX_DEPTH:
        raise SpecError(f"{where}: nested more than {MAX_DEPTH} components deep")
    use = table.get("use")
    if not isinstance(use, str) or "." not in use:
        raise SpecError(f'{where}.use: expected "plugin.component", got {shown(use)}')
    of = table.get("of", [])
    if not isinstance(of, list):
        raise SpecError(f"{where}.of: expected a list of tables, got {shown(of)}")
    children = tuple(node_from_table(t, f"{where}.of[{i}]", depth + 1) for i, t in enumerate(of))
    args = {k: _argument(v, f"{where}.{k}", depth) for k, v in table.items() if k not in ("use", "of")}
    return Node(use=use, args=args, of=children)


def _argument(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, Mapping) and "use" in value:
        return node_from_table(value, where, depth + 1)
    if isinstance(value, list):
        if depth > MAX_DEPTH:
            raise SpecError(f"{where}: nested more than {MAX_DEPTH} lists deep")
        return [_argument(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    return value


# ---- sources, datasets, models ---------------------------------------------------------------


class Source(Struct, frozen=True):
    """A paper or report: what models and recipes refer to by its key."""

    title: str
    authors: str = ""
    code: str = ""
    url: str = ""
    protocol: str = ""
    selection: str = ""


class Dataset(Struct, frozen=True):
    """A named dataset.

    Attributes:
        source: "<scheme>:<rest>", read by `zoo.data`: "sklearn:digits", "torchvision:CIFAR10",
            "hf:uoft-cs/cifar10", "parquet:PATH", "folder:PATH", "plugin:PLUGIN.COMPONENT".
        size: (height, width) of its images, or that they are resized to (`resize = true`).
        mean, std: per channel, of pixel values in 0..1.
        adapt: fields that this dataset replaces in a model's own recipes (digits must not be
            mirrored); a recipe that the user names is taken as it is.
    """

    source: str
    summary: str = ""
    classes: tuple[str, ...] = ()
    num_classes: Positive | None = None
    size: tuple[Positive, Positive] | None = None
    resize: bool = False
    channels: Positive = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[PositiveFloat, ...] = (0.5, 0.5, 0.5)
    train: Count | None = None
    test: Count | None = None
    licence: str = ""
    homepage: str = ""
    options: dict[str, Any] = {}
    adapt: dict[str, Any] = {}


class Published(Struct, frozen=True):
    """One result that a source prints. `top1` is a fraction; `params` the count it prints.

    `params_classes` is the class count behind `params` where it is not the dataset's;
    `params_difference` is ours minus theirs where a known convention differs (see `note`).
    `recipe` and `best` are the row's, where they are not the model's own. `pretrained` is what it began with, in the
    source's words; `weights` the reference that has it. `changes` are the row's in the model, by key
    ("build.dropout").
    """

    dataset: str
    top1: Fraction | None = None
    params: Positive | None = None
    params_classes: Positive | None = None
    params_difference: int = 0
    minutes: float | None = None
    minutes_per_epoch: float | None = None
    epochs: Positive | None = None
    top1_after_5_epochs: Fraction | None = None
    pretrained: str | None = None
    weights: str | None = None
    changes: dict[str, Any] = {}
    published_as: str = ""
    source: str | None = None
    recipe: str | None = None
    best: str | None = None
    note: str = ""


class Measured(Struct, frozen=True):
    """One result of ours: what it is, and where its record stands."""

    dataset: str
    top1: Fraction
    spread: NonNegative | None = None
    seeds: Positive = 1
    protocol: Literal["clean", "paper"] = "clean"
    recipe: str = ""
    device: str = ""
    record: str = ""
    note: str = ""


class Model(Struct, frozen=True):
    """A model as data: its tree, its recipes, and what was published for it.

    Attributes:
        recipe: its default recipe (the source's, for a published model). best: ours, if better.
        dataset: what it is built for by default: gives image size and class count.
        parameters: count at that dataset's size and classes (held by a test).
        pretrained: weights for `zoo train MODEL --pretrained`: a reference as `--weights` takes it;
            None: its component's own, if it has any.
    """

    summary: str
    family: str
    build: Node
    recipe: str
    best: str | None = None
    dataset: str = "cifar10"
    tags: tuple[str, ...] = ()
    source: str | None = None
    parameters: Positive | None = None
    pretrained: str | None = None
    published: tuple[Published, ...] = ()
    measured: tuple[Measured, ...] = ()
    note: str = ""


# ---- decoding --------------------------------------------------------------------------------


def decode(kind: type[T], table: Any, where: str) -> T:
    """Read a table (from TOML) as the struct `kind`.

    Args:
        where: file and key, for the message: "registry.toml: recipes.mixture-vit".
    Raises:
        SpecError: an unknown key, a wrong type or value; says what is allowed.
    """
    try:
        return msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        raise SpecError(explain(error, kind, table, where)) from None


def decode_model(table: Any, where: str) -> Model:
    """`decode` for a model, whose tree has a grammar of its own."""
    if not isinstance(table, Mapping) or "build" not in table:
        raise SpecError(f"{where}: a model needs a `build` table with `use`, its component")
    build = node_from_table(table["build"], f"{where}.build")
    stub = {"use": build.use}
    return msgspec.structs.replace(decode(Model, {**table, "build": stub}, where), build=build)
