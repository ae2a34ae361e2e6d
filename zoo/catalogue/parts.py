"""Models composed in Python: the same trees as in TOML, checked as far as can be told without torch."""

from __future__ import annotations

import ast
import base64
import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeAlias

import msgspec

from zoo.catalogue.registry import NAME, Registry, load_registry
from zoo.catalogue.spec import Model, Node, node_from_table
from zoo.catalogue.toml_text import pair
from zoo.catalogue.tree_check import check_arguments, parameters
from zoo.errors import InputError, ZooError
from zoo.plugin.contract import GIVEN, Component

P = ParamSpec("P")

Argument: TypeAlias = "bool | int | float | str | Node | Sequence[Argument] | Mapping[str, Argument] | None"
"""What an argument may be: what TOML can hold, a tree, or None where that is the default."""

AROUND, RECIPE = "hybrid.classifier", "default"
"""The classifier that a part is put into, and the recipe that is made for any model."""

SCALARS = (bool, int, float, str, date, datetime, time)
DIGITS = 6
"""Of a digest, in the name of a model that nobody named."""


# ---- making trees -----------------------------------------------------------------------------


OF_OWN = "train code of your own by zoo.train, or make a plugin of it by `zoo new plugin NAME --from FILE.py:NAME`"


def part(use: str, /, *of: Node, **arguments: Argument) -> Node:
    """One component with its arguments, as a tree or as a part of one.

    The result is the data that TOML gives: `{ use = "cnn.residual", widths = [32, 64] }`. The arguments are those of
    the component's factory, without the sizes and the parts, which it is given; `zoo plugins` lists the components.
    A plugin's components can be imported by name as well, and then type checkers see their arguments:
    `from zoo_cnn import residual`.

    Args:
        use: the component, "plugin.component". Nothing is built, and torch is not imported.
        of: the parts of a combinator, in their order.
        arguments: numbers, texts, lists, tables, or trees. A tuple becomes a list.
    Returns:
        The tree, which `zoo.create` and `zoo.train` take.
    Raises:
        UnknownNameError: no plugin offers the component; says what is like it.
        InputError: an argument that the component does not take, one that it lacks, or one that TOML cannot hold;
            a type that is wrong is found when the model is built.

    Example:
        >>> zoo.part("cnn.residual", widths=[32, 64])
        zoo.part('cnn.residual', widths=[32, 64])
    """
    if not isinstance(use, str):
        raise InputError(f"zoo.part takes the name of a plugin's component, not a {type(use).__name__}; {OF_OWN}")
    registry = load_registry()
    component = registry.component(use)
    if component.kind not in GIVEN:
        raise InputError(f"{use!r} is a {component.kind}; a model's tree is made of {', '.join(GIVEN)}")
    for name in ("use", "of"):
        if name in arguments:
            raise InputError(f"{use!r} takes no argument {name!r}; its parts come first: zoo.part({use!r}, PART, ...)")
    taken = parameters(component.factory) or {}
    given = {key: value for key, value in arguments.items() if not _is_default(value, taken.get(key))}
    args = {key: _data(value, f"{use}: {key}") for key, value in given.items()}
    node = Node(use=use, args=args, of=_children(use, of, component, registry))
    node_from_table(node.to_table(), use)  # refuses what TOML would not be read as
    if taken:
        check_arguments(node, component, "part", taken)
    for name, default in taken.items():
        if default is None and name not in (*GIVEN[component.kind], *node.args):
            raise InputError(f"part: {use!r} needs the argument {name!r}")
    return node


def _is_default(value: Any, default: ast.expr | None) -> bool:
    """Whether None is given for an argument whose default it is."""
    return value is None and isinstance(default, ast.Constant) and default.value is None


def _children(use: str, of: Sequence[Node], component: Component, registry: Registry) -> tuple[Node, ...]:
    if component.kind != "combinator":
        if of:
            raise InputError(f"{use!r} is a {component.kind}, so it takes arguments by name; parts are for combinators")
        return ()
    if not of:
        raise InputError(f"{use!r} is a combinator, so it needs its parts: zoo.part({use!r}, PART, ...)")
    for number, child in enumerate(of):
        if not isinstance(child, Node):
            raise InputError(f"{use}: of[{number}] {_no_tree(child)}")
        known = registry.components.get(child.use)
        if known and known.kind not in ("part", "combinator"):
            raise InputError(
                f"{use}: of[{number}]: {child.use!r} is a {known.kind}; expected a part or a combinator here"
            )
    return tuple(of)


def _no_tree(value: Any) -> str:
    from zoo.plugin.names import Name

    if isinstance(value, Name):
        return f"is {value.use!r} itself; call it, with or without arguments: {value.__name__}()"
    advice = f"; write zoo.part({value!r})" if isinstance(value, str) else ""
    return f"is no tree but {type(value).__name__}{advice}"


def _data(value: Any, where: str) -> Any:
    """A value as TOML gives it, copied."""
    if isinstance(value, Node) or type(value) in SCALARS:
        return value
    if isinstance(value, list | tuple):
        return [_data(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        table = {key: _data(v, f"{where}.{key}") for key, v in value.items()}
        if "use" in table:
            return node_from_table(Node(use="", args=table).to_table(), where)
        if any(map(_holds_tree, table.values())):
            raise InputError(
                f"{where} is a table with a tree in it; a component takes trees one by one, or in one list"
            )
        return table
    if value is None:
        raise InputError(f"{where} is None, which TOML cannot hold; leave the argument out")
    if callable(value):
        raise InputError(f"{where} {_no_tree(value)}")
    allowed = "a bool, a number, a text, a list, a table or a tree"
    raise InputError(f"{where} is of type {type(value).__name__}; allowed: {allowed}")


def _holds_tree(value: Any) -> bool:
    return isinstance(value, Node) or (isinstance(value, list) and any(map(_holds_tree, value)))


def _makes(use: str) -> Callable[[Callable[P, Node]], Callable[P, Node]]:
    """Make a function of this signature give a node with the arguments that were given, and no others."""

    def decorate(stated: Callable[P, Node]) -> Callable[P, Node]:
        @wraps(stated)
        def make(*of: P.args, **arguments: P.kwargs) -> Node:
            return part(use, *of, **arguments)  # type: ignore[arg-type]

        return make

    return decorate


@_makes("hybrid.alternate")
def alternate(*parts: Node, repeat: int = 1, residual: bool = False) -> Node:
    """Parts one after the other: each takes the output of the one before it.

    Args:
        parts: parts or combinators; at least one.
        repeat: how many blocks of these parts follow one another.
        residual: add each part's input to its output.
    Returns:
        A tree that is again a part: `{ use = "hybrid.alternate", of = [...] }`.
    Raises:
        InputError: no part, or something that is none.

    Example:
        >>> zoo.alternate(zoo.part("cnn.residual"), zoo.part("vit.image", depth=1), repeat=2)
        zoo.alternate(zoo.part('cnn.residual'), zoo.part('vit.image', depth=1), repeat=2)
    """
    raise NotImplementedError  # only the signature counts: see `_makes`


@_makes("hybrid.joint")
def joint(
    *parts: Node,
    repeat: int = 1,
    norm: Literal["none", "branch", "shared"] = "none",
    fuse: Literal["sum", "mean", "weights", "gate", "concat"] = "sum",
    residual: bool = False,
) -> Node:
    """Parts side by side: all take the same input, and their outputs are fused.

    Args:
        parts: parts or combinators; at least one.
        repeat: how many such blocks follow one another.
        norm: batch norm on the branches' outputs: none; one for each branch of each block; or one
            shared by all branches and blocks.
        fuse: "sum", "mean", "weights" (one learned weight a branch), "gate" (softmax over branches
            per image and channel), "concat" (1x1 convolution over all branches' channels).
        residual: add each block's input to its output.
    Returns:
        A tree that is again a part: `{ use = "hybrid.joint", of = [...] }`.
    Raises:
        InputError: no part, or something that is none.

    Example:
        >>> zoo.joint(zoo.part("mixer.image"), zoo.part("cnn.residual"), fuse="gate")
        zoo.joint(zoo.part('mixer.image'), zoo.part('cnn.residual'), fuse='gate')
    """
    raise NotImplementedError  # only the signature counts: see `_makes`


# ---- from a tree to a model -------------------------------------------------------------------


def classified(tree: Node, registry: Registry) -> Node:
    """The tree, if it is a classifier; a part or a combinator inside the classifier `hybrid.classifier`.

    Raises:
        InputError: the tree begins with a stem or a head. UnknownNameError: no plugin offers its component.
    """
    if not isinstance(tree, Node):
        raise InputError(f"the model {_no_tree(tree)}")
    kind = registry.component(tree.use).kind
    if kind == "classifier":
        return tree
    if kind in ("part", "combinator"):
        return Node(use=AROUND, args={"body": tree})
    advice = f"; write zoo.part({AROUND!r}, {kind}=..., body=...)" if kind in ("stem", "head") else ""
    raise InputError(f"{tree.use!r} is a {kind}; a model is a classifier, a part or a combinator{advice}")


def as_model(
    tree: Node,
    registry: Registry,
    *,
    summary: str = "",
    family: str = "hybrid",
    recipe: str = RECIPE,
    dataset: str | None = None,
) -> Model:
    """A tree as a model of the catalogue, which it need not be in.

    The recipe is the one that models without an entry (timm/NAME) get: it is made for any model, while those of the
    papers repeat one experiment each.

    Args:
        summary: "": its components in one line.
        dataset: None: that of models which name none (cifar10).
    Raises:
        InputError: as `classified`, or nested too deeply.
    """
    from zoo.catalogue.picture import in_words

    build = classified(tree, registry)
    node_from_table(build.to_table(), "build")  # a classifier around it is one level more
    said = summary or in_words(build, registry.components)
    model = Model(summary=said, family=family, build=build, recipe=recipe)
    return model if dataset is None else msgspec.structs.replace(model, dataset=dataset)


def entry_of(tree: Node, registry: Registry | None = None, *, name: str = "") -> tuple[Registry, str, Model]:
    """A catalogue that has the tree, a name for it, and the model: as `find_model` of the registry gives for a name.

    Args:
        registry: the catalogue; default: that of the working folder.
        name: for the model. "": the component that the tree begins with, and a digest of the tree, so that results of
            two trees are never taken for those of one.
    Raises:
        InputError: as `as_model`, no valid name, or the name of another model of the catalogue.
    """
    registry = registry or load_registry()
    model = as_model(tree, registry)
    name = name or _name_of(tree, model)
    known = registry.models.get(_valid(name))
    if known is not None and known.build.to_table() != model.build.to_table():
        raise InputError(f"the catalogue has another model named {name!r}; give the tree another name")
    return registry.having(models={name: model}, recipes={}), name, model


def _name_of(tree: Node, model: Model) -> str:
    content = msgspec.json.encode(model.build.to_table(), order="deterministic")
    short = tree.use.rpartition(".")[2].lower().replace("_", "-")
    return f"{short}-{hashlib.sha256(content).hexdigest()[:DIGITS]}"


def _valid(name: str) -> str:
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of a model: lower-case letters, digits and single . _ - between them")
    return name


# ---- how a tree is shown ----------------------------------------------------------------------


def to_toml(tree: Node, name: str = "", *, summary: str, family: str, recipe: str, dataset: str | None) -> str:
    """As `Node.to_toml`."""
    model = as_model(tree, load_registry(), summary=summary, family=family, recipe=recipe, dataset=dataset)
    build = pair("build", model.build.to_table())
    if not name:
        return f"{build}\n"
    table = {"summary": model.summary, "family": family, "recipe": recipe}
    table |= {} if dataset is None else {"dataset": dataset}
    head = f'[models."{_valid(name)}"]' if "." in name else f"[models.{_valid(name)}]"
    return "\n".join((head, *(pair(key, value) for key, value in table.items()), build, ""))


def to_html(tree: Node) -> str:
    """The drawn tree for a notebook, as an image; as text where it cannot be drawn."""
    from zoo.catalogue.picture import as_svg, in_words
    from zoo.catalogue.tree import tree_lines

    try:
        registry = load_registry()
    except ZooError:
        return f"<pre>{html.escape(repr(tree))}</pre>"
    try:
        words = in_words(tree, registry.components)
        drawn = base64.b64encode(as_svg(tree, registry.components)).decode()
    except Exception:  # whatever a drawing library cannot do: a tree can always be read
        lines = "\n".join(line for line, _ in tree_lines(tree, registry))
        return f"<pre>{html.escape(lines)}</pre>"
    return f'<img alt="{html.escape(words)}" src="data:image/svg+xml;base64,{drawn}">'
