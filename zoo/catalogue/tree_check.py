"""Misspelled names in a model's tree, found without building it: factories are read, and nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from zoo.base.did_you_mean import nearest
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node
from zoo.errors import InputError, ZooError
from zoo.plugin.contract import GIVEN, Component

Taken: TypeAlias = dict[str, ast.expr | None]
"""Arguments of a factory, each with its default as it stands in the source; None where it has none."""

LIKENESS = 0.85
"""From here on, the component of a plugin that is not installed is taken for a misspelled one."""


def check_tree(tree: Node, registry: Registry, where: str) -> None:
    """Refuse components and arguments that are not there, as far as can be told without importing a factory.

    A tree may name components of plugins that are not installed here.

    Raises:
        InputError: says where, and what is allowed.
    """
    for place, node in tree.walk(where):
        if _is_elsewhere(node.use, registry):
            continue
        try:
            component = registry.component(node.use)
        except ZooError as error:
            raise InputError(f"{place}.use: {error}") from None
        check_arguments(node, component, place)


def check_arguments(node: Node, component: Component, place: str, taken: Taken | None = None) -> None:
    """Refuse arguments that a component's factory does not take, as far as its source tells.

    Args:
        taken: what `parameters` gave for the factory; default: it is read.
    Raises:
        InputError: says where, and what is allowed.
    """
    taken = parameters(component.factory) if taken is None else taken
    given = GIVEN.get(component.kind, ())
    allowed = [name for name in taken or () if name not in given]
    for key in node.args if taken is not None else ():
        if key not in allowed:
            raise InputError(
                f"{place}: {node.use!r} takes no argument {key!r}; allowed: {', '.join(allowed) or 'none'}"
            )


def _is_elsewhere(use: str, registry: Registry) -> bool:
    """Whether a component is of a plugin that is not loaded here, and not nearly the name of one that is."""
    loaded = {record.name for record in registry.plugins if record.status == "loaded"}
    return use.partition(".")[0] not in loaded and not nearest(use, registry.components, 1, LIKENESS)


def arguments(factory: str) -> tuple[str, ...] | None:
    """The names of the arguments of "module:function"; None where `parameters` gives none."""
    taken = parameters(factory)
    return None if taken is None else tuple(taken)


def parameters(factory: str) -> Taken | None:
    """The arguments of "module:function", from its source: each with its default, None where it has none.

    Returns:
        None where the source does not tell: it is not found, no plain function, or it takes any argument.
    """
    function = _function(factory)
    if function is None or function.args.kwarg:
        return None
    taken = function.args
    plain = [*taken.posonlyargs, *taken.args]
    values = [None] * (len(plain) - len(taken.defaults)) + taken.defaults
    pairs = zip([*plain, *taken.kwonlyargs], [*values, *taken.kw_defaults], strict=True)
    return {one.arg: value for one, value in pairs}


def _function(factory: str) -> ast.FunctionDef | None:
    """The definition of "module:function", where it is the only thing in the module that gives the name a value."""
    module, _, name = factory.partition(":")
    path = _source(module)
    try:
        body = ast.parse(path.read_text("utf-8")).body if path else []
    except (OSError, ValueError, SyntaxError, RecursionError):
        return None
    makers = [node for node in body if name in _binds(node)]
    if len(makers) != 1 or not isinstance(makers[0], ast.FunctionDef) or makers[0].decorator_list:
        return None
    return makers[0]


def _binds(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module may give a value."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Name | ast.alias):
            yield part.id if isinstance(part, ast.Name) else part.asname or part.name
        elif isinstance(part, ast.FunctionDef):
            yield part.name


def _source(module: str) -> Path | None:
    """The file of a module; of a package only the outermost is looked up, which imports nothing."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    bases = [Path(base, *rest) for base in spec.submodule_search_locations or ()] if spec else []
    files = [path for base in bases for path in (base / "__init__.py", base.with_name(f"{base.name}.py"))]
    if spec and spec.origin and not rest:
        files.append(Path(spec.origin))
    return next((path for path in files if path.is_file() and path.suffix == ".py"), None)
