"""The components of a plugin as names that Python imports: `from zoo_cnn import residual`.

A name is found when it is asked for, and calling it makes a node of a tree: nothing of the plugin but its
`__init__.py` is imported. What type checkers and editors see of the names is the stub beside it: `zoo.plugin.stubs`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.plugin.contract import GIVEN, Component
from zoo.plugin.node import Node

if TYPE_CHECKING:
    from inspect import Parameter, Signature


class Name:
    """A component that makes a node of a tree when it is called.

    Attributes:
        use: the component's full name. module: the module that has the name.
        component: what the plugin says of it.
    """

    __slots__ = ("component", "module", "use")

    def __init__(self, use: str, component: Component, module: str) -> None:
        self.use, self.component, self.module = use, component, module

    def __call__(self, /, *of: Node, **arguments: Any) -> Node:
        """The component with these arguments, as `zoo.part` makes it."""
        from zoo.base.door import call

        node: Node = call("zoo.catalogue.parts:part")(self.use, *of, **arguments)
        return node

    @property
    def __name__(self) -> str:
        """As it is imported."""
        return identifier(self.component.name)

    @property
    def __signature__(self) -> Signature:
        """As the stub has it; any argument where there is no stub."""
        import inspect

        found = _in_stub(self.module, self.__name__)
        kinds = inspect.Parameter
        if found is None:
            anything = (kinds("of", kinds.VAR_POSITIONAL), kinds("arguments", kinds.VAR_KEYWORD))
            return inspect.Signature(anything, return_annotation=Node)
        return inspect.Signature(list(_parameters(found.args)), return_annotation=Node)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        """As the stub has it; the summary where there is no stub."""
        found = _in_stub(self.module, self.__name__)
        return (ast.get_docstring(found) if found else "") or self.component.summary

    def __repr__(self) -> str:
        """What it stands for."""
        return f"<{self.component.kind} {self.use}: call it for a node of a tree>"


class Names:
    """The names of one plugin's components, in one of its modules.

    Attributes:
        module: the module that has the names. plugin: the plugin's name, the prefix of its components.
    """

    __slots__ = ("_offer", "module", "plugin")

    def __init__(self, module: str, plugin: str, offer: Callable[[], Iterable[Component]]) -> None:
        self.module, self.plugin, self._offer = module, plugin, offer

    def offered(self) -> Iterator[Component]:
        """Components of trees, as the plugin offers them."""
        return (component for component in self._offer() if component.kind in GIVEN)

    def table(self) -> dict[str, Component]:
        """Components of trees by the name that they have in Python; what cannot be one is left out."""
        names = {identifier(c.name): c for c in self.offered()}
        return {name: c for name, c in names.items() if name.isidentifier() and not iskeyword(name)}

    def get(self, name: str) -> Name:
        """The `__getattr__` of the module.

        Raises:
            AttributeError: the plugin offers no component of this name that a tree can have.
        """
        component = None if name.startswith("_") else self.table().get(name)
        if component is None:
            raise AttributeError(f"module {self.module!r} has no attribute {name!r}")
        return Name(f"{self.plugin}.{component.name}", component, self.module)

    def listed(self) -> list[str]:
        """The `__dir__` of the module: its own names, and those of the components."""
        return sorted({*vars(sys.modules[self.module]), *self.table()})


def named(
    module: str, plugin: str, offer: Callable[[], Iterable[Component]]
) -> tuple[Callable[[str], Name], Callable[[], list[str]]]:
    """Let Python import the components of a plugin by name, from the module that offers them.

    One line in the plugin's `__init__.py` does it: ``__getattr__, __dir__ = named(__name__, "waves", zoo_components)``.
    Then ``from zoo_waves import shift`` gives what makes a node of a tree: ``shift(depth=2)`` is
    ``zoo.part("waves.shift", depth=2)``. A dash in a name becomes an underscore. No module of the package may have the
    name of a component, because it would take the component's place once it is imported.

    Args:
        module: the module's own `__name__`.
        plugin: the plugin's name: the name of its entry point.
        offer: its hook `zoo_components`.
    Returns:
        The functions `__getattr__` and `__dir__` of the module.
    """
    names = Names(module, plugin, offer)
    return names.get, names.listed


def identifier(component: str) -> str:
    """The name of a component in Python: "scaled-head" is `scaled_head`."""
    return component.replace("-", "_")


# ---- the stub ---------------------------------------------------------------------------------


class _Text(str):
    """Source text that a signature shows as it is."""

    def __repr__(self) -> str:
        return str(self)


def stub_path(module: str) -> Path:
    """The file beside a module that type checkers and editors read in its place.

    Raises:
        KeyError: the module is not imported. ValueError: it has no file.
    """
    file = getattr(sys.modules[module], "__file__", None)
    if not file:
        raise ValueError(f"the module {module!r} has no file")
    return Path(file).with_suffix(".pyi")


def _in_stub(module: str, name: str) -> ast.FunctionDef | None:
    try:
        body = ast.parse(stub_path(module).read_text("utf-8")).body
    except (OSError, KeyError, ValueError, SyntaxError):
        return None
    return next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == name), None)


def _parameters(given: ast.arguments) -> Iterator[Parameter]:
    """The parameters of a function in a stub, which has only `*of`, those by keyword, and `**arguments`."""
    from inspect import Parameter

    def one(argument: ast.arg, kind: Any, default: ast.expr | None = None) -> Parameter:
        annotation = _Text(ast.unparse(argument.annotation)) if argument.annotation else Parameter.empty
        value = Parameter.empty if default is None else _Text(ast.unparse(default))
        return Parameter(argument.arg, kind, default=value, annotation=annotation)

    if given.vararg:
        yield one(given.vararg, Parameter.VAR_POSITIONAL)
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield one(argument, Parameter.KEYWORD_ONLY, default)
    if given.kwarg:
        yield one(given.kwarg, Parameter.VAR_KEYWORD)
