"""The stub beside a plugin's module: what type checkers and editors see of the names of its components.

`python -m zoo.plugin.stubs zoo_waves` writes `__init__.pyi` beside the package's `__init__.py`, from the annotations
and the documentation of the factories. Write it again when a factory's arguments change; `zoo plugins check` says when.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from zoo.base.files import write_text
from zoo.errors import InputError, PluginError
from zoo.plugin.contract import GIVEN, Component
from zoo.plugin.names import Names, identifier, stub_path

HEAD = "# Written by `python -m zoo.plugin.stubs {module}`: what type checkers and editors see of the components."
LINE = 120
PLAIN = (bool, int, float, str)


def stub_of(module: str) -> str:
    """The text of a module's stub.

    Args:
        module: the module that offers the components, with `named` in it; the factories are imported.
    Raises:
        InputError: no such module, or it has no `named`. PluginError: a factory cannot be imported.
    """
    try:
        imported = import_module(module)
    except ImportError as error:
        raise InputError(f"cannot import {module!r}: {error}") from error
    names = names_in(imported)
    if names is None:
        raise InputError(f"{module} has no line `__getattr__, __dir__ = named(__name__, PLUGIN, zoo_components)`")
    functions = [_function(name, component) for name, component in sorted(names.table().items())]
    others = [f"{name}: Any" for name in _others(imported)]
    body = "\n\n".join(("\n".join(others), *functions)) if others else "\n\n".join(functions)
    return "\n".join((HEAD.format(module=module), "", *_imports(body), "", f"{body}\n"))


def names_in(module: object) -> Names | None:
    """What `named` gave a module; None where it has none."""
    found = getattr(vars(module).get("__getattr__"), "__self__", None)
    return found if isinstance(found, Names) else None


def differs(module: str) -> bool:
    """Whether the stub that a module has says something else than its factories; how it is laid out does not count.

    Raises:
        OSError: it has no stub.
    """
    try:
        written = ast.dump(ast.parse(stub_path(module).read_text("utf-8")))
    except SyntaxError:
        return True
    return written != ast.dump(ast.parse(stub_of(module)))


def shadowed(module: str) -> list[str]:
    """Names of components that something else in the package has: a module (once it is imported), or an import."""
    imported = import_module(module)
    names = names_in(imported)
    folders = [Path(folder) for folder in getattr(imported, "__path__", ())]
    inside = {path.stem if path.is_file() else path.name for folder in folders for path in folder.iterdir()}
    return sorted((inside | set(vars(imported))) & set(names.table())) if names else []


def twice(names: Names) -> list[str]:
    """Names in Python that two components would have: "two-words" and "two_words"."""
    found = [identifier(component.name) for component in names.offered()]
    return sorted({name for name in found if found.count(name) > 1})


# ---- the text ---------------------------------------------------------------------------------


def _others(module: types.ModuleType) -> list[str]:
    """Public names that the module itself defines: hooks, and whatever else it has."""
    source = ast.parse(inspect.getsource(module))
    found: set[str] = set()
    for node in source.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return sorted(name for name in found if not name.startswith("_"))


def _imports(body: str) -> Iterator[str]:
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    for source, names in (("collections.abc", ("Mapping", "Sequence")), ("typing", ("Any", "Literal"))):
        if needed := sorted(used & set(names)):
            yield f"from {source} import {', '.join(needed)}"
    yield ""
    yield "from zoo.plugin import Node"


def _function(name: str, component: Component) -> str:
    factory = _factory(component)
    own = [p for p in inspect.signature(factory).parameters.values() if p.name not in GIVEN[component.kind]]
    target = factory.__init__ if inspect.isclass(factory) else factory
    try:
        hints = typing.get_type_hints(target)
    except (NameError, TypeError):
        hints = {}
    arguments = ["*of: Node"] if component.kind == "combinator" else []
    by_keyword = [p for p in own if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    arguments += ["*"] if by_keyword and not arguments else []
    arguments += [_argument(p, hints.get(p.name, Any)) for p in by_keyword]
    arguments += ["**arguments: Any"] if any(p.kind is p.VAR_KEYWORD for p in own) else []
    said = _without((inspect.getdoc(factory) or component.summary or name).strip(), GIVEN[component.kind])
    return f"{_signature(name, arguments)}\n{_quoted(said)}"


def _without(text: str, given: Sequence[str]) -> str:
    """Documentation without the arguments that a factory is given, as Google lays it out."""
    entry = rf"^    (?:{'|'.join(given)}):.*\n?(?:^     .*\n?)*"
    rest = re.sub(entry, "", text, flags=re.MULTILINE)
    return re.sub(r"\n*^Args:\n(?=\n|\Z)", "\n", rest, flags=re.MULTILINE).strip()


def _factory(component: Component) -> Any:
    module, _, attribute = component.factory.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"component {component.name!r}: cannot import {component.factory!r}: {error}") from error


def _signature(name: str, arguments: Sequence[str]) -> str:
    """The line or lines of a definition, as ruff and black lay them out."""
    line = f"def {name}({', '.join(arguments)}) -> Node:"
    if len(line) <= LINE:
        return line
    inside = f"    {', '.join(arguments)}"
    if len(inside) <= LINE and not any(a.startswith("**") for a in arguments):
        return f"def {name}(\n{inside}\n) -> Node:"
    return "\n".join((f"def {name}(", *(f"    {argument}," for argument in arguments), ") -> Node:"))


def _quoted(text: str) -> str:
    """A docstring; what only a raw text or an escape could hold is written as a plain literal."""
    if "\\" in text or '"""' in text or text.endswith('"'):
        return f"    {text!r}"
    lines = text.splitlines()
    inside = [f"    {line}".rstrip() for line in lines[1:]]
    return "\n".join((f'    """{lines[0]}', *inside, '    """')) if inside else f'    """{lines[0]}"""'


def _argument(parameter: inspect.Parameter, hint: Any) -> str:
    text = f"{parameter.name}: {_type(hint)}"
    if parameter.default is parameter.empty:
        return text
    whole = f"{text} = {_literal(parameter.default)}"
    return whole if len(whole) + 5 <= LINE else f"{text} = ..."


def _literal(value: Any) -> str:
    """A default as source; "..." for what is no plain value."""
    if isinstance(value, tuple):
        inside = [_literal(one) for one in value]
        return f"({', '.join(inside)}{',' if len(inside) == 1 else ''})" if "..." not in inside else "..."
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    finite = not isinstance(value, float) or math.isfinite(value)
    return repr(value) if (value is None or type(value) in PLAIN) and finite else "..."


def _type(hint: Any) -> str:
    """What Python code may give for an annotation of a factory: trees for builders, any sequence for lists."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is None or hint is types.NoneType:
        return "None"
    if hint in PLAIN:
        return str(hint.__name__)
    if origin is Literal:
        return f"Literal[{', '.join(map(_literal, inside))}]"
    if origin in (Union, types.UnionType):
        return _union(inside)
    if origin is Callable or hint in (Callable, typing.Callable):
        return "Node"
    bare = origin or hint
    if isinstance(bare, type) and issubclass(bare, Mapping):
        return f"Mapping[str, {_type(inside[1]) if len(inside) == 2 else 'Any'}]"
    if isinstance(bare, type) and issubclass(bare, Collection) and bare is not bytes:
        return f"Sequence[{_union([one for one in inside if one is not Ellipsis] or [Any])}]"
    return "Any"


def _union(hints: Sequence[Any]) -> str:
    texts = list(dict.fromkeys(map(_type, hints)))
    return " | ".join(sorted(texts, key=lambda text: text == "None"))


def main(modules: Sequence[str]) -> None:
    """Write the stub of each module beside it, and print its path."""
    if not modules:
        raise InputError("usage: python -m zoo.plugin.stubs MODULE ...")
    for module in modules:
        text = stub_of(module)
        path = stub_path(module)
        write_text(path, text)
        print(path)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (InputError, PluginError) as error:
        sys.exit(f"error: {error}")
