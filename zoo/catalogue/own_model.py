"""A model out of code of the user's own: its kind by its signature, and what stands around it."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from zoo.catalogue.own_code import SHORT, OwnCode, in_file, of_object, parameters_of
from zoo.catalogue.source_text import parsed
from zoo.catalogue.spec import Model, Node
from zoo.errors import InputError
from zoo.plugin.contract import Component, Kind

PLUGIN = "own"
"""What the names of such components begin with: "own.MyNet"."""

TAKES = (
    "in_channels, height, width, num_classes (a classifier), channels, height, width (a part), or in_channels, height, "
    "width (a stem)"
)

SPARE_STEM = Node(use="cnn.stem", args={"widths": [32], "strides": [1]})
SPARE_HEAD = Node(use="hybrid.pool")


class OwnModel(NamedTuple):
    """A component of the user's own, and a model of it.

    Attributes:
        use: the component's name, "own.MyNet".
    """

    use: str
    component: Component
    model: Model

    @property
    def code(self) -> OwnCode:
        """Its source."""
        code = self.component.factory
        assert isinstance(code, OwnCode)
        return code

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.code.attribute

    @property
    def version(self) -> str:
        """What stands for a distribution's version: the beginning of the code's hash."""
        return self.code.digest[:SHORT] or "0"


def own_model(given: str | Callable[..., Any], kind: Kind | None = None) -> OwnModel:
    """The model that "FILE.py:NAME", a class or a function makes.

    Args:
        given: of a `functools.partial`, the arguments become those of the tree where TOML can write them. Of one whose
            arguments no record can hold (a class, say), the file alone does not make the model again: it counts as code
            that stands in no file.
        kind: what it builds, where that is known; else its signature says it.
    Raises:
        InputError: no such file or name, or a signature of no kind.
    """
    arguments: dict[str, Any] = {}
    if isinstance(given, functools.partial) and not given.args and _plain(given.keywords):
        arguments, given = dict(given.keywords), given.func
    code = in_file(given) if isinstance(given, str) else of_object(given)
    if isinstance(given, functools.partial) and not _recorded(given):
        code = OwnCode.made(code.attribute, text=code.text, target=given)
    return model_of(code, kind, arguments)


def model_of(code: OwnCode, kind: Kind | None = None, arguments: dict[str, Any] | None = None) -> OwnModel:
    """As `own_model`, of code that was found."""
    use = f"{PLUGIN}.{code.attribute}"
    kind = kind or kind_of(code)
    summary = _summary(code) or f"{code.attribute} of {code.original or 'this program'}"
    component = Component(name=code.attribute, kind=kind, factory=code, summary=summary)
    tree = around(Node(use=use, args=arguments or {}), kind)
    return OwnModel(use, component, Model(summary=summary, family=PLUGIN, build=tree, recipe="default"))


def around(node: Node, kind: Kind) -> Node:
    """A classifier with this component in it: a part between a stem and a head, a stem before a head."""
    if kind == "part":
        return Node(use="hybrid.classifier", args={"stem": SPARE_STEM, "body": node, "head": SPARE_HEAD})
    return Node(use="hybrid.classifier", args={"stem": node, "head": SPARE_HEAD}) if kind == "stem" else node


def kind_of(code: OwnCode) -> Kind:
    """What a class or function builds, by what it is told.

    Raises:
        InputError: it is told nothing that a model's size follows from; says what to take.
    """
    taken = parameters_of(code)
    if taken is None or "num_classes" in taken:
        return "classifier"
    if "parts" in taken:
        raise InputError(f"{code}: takes parts, as a combinator; name them: zoo.create takes a tree of components")
    if "channels" in taken:
        return "part"
    if "in_channels" in taken:
        return "stem"
    listed = f"takes {', '.join(taken)}" if taken else "takes no arguments"
    raise InputError(f"{code}: {listed}, so that it cannot be built for a dataset; let it take {TAKES}")


def _plain(value: Any) -> bool:
    """Whether TOML can write a value."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) and "use" not in value for k, v in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return isinstance(value, bool | int | float | str)


def _recorded(given: functools.partial[Any]) -> bool:
    """Whether a record holds the arguments, as the defaults of the factory: see `zoo.models.arguments`."""
    return not given.args and _is_data(given.keywords)


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_data(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_data, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _summary(code: OwnCode) -> str:
    """The first line of its docstring."""
    if not code.text:
        return ""
    try:
        body = parsed(code.text, code.file or "it").body
    except InputError:
        return ""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == code.attribute:
            return (ast.get_docstring(node) or "").partition("\n")[0].rstrip(".")
    return ""
