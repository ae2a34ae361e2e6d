"""`zoo new plugin NAME --from FILE.py`: a package out of a file of the user's own."""

from __future__ import annotations

import ast
import inspect
import io
import json
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.base.files import write_text
from zoo.base.paths import local_path
from zoo.catalogue.own_code import SIZES, OwnCode, in_file
from zoo.catalogue.own_model import kind_of, model_of
from zoo.catalogue.source_text import parsed, read
from zoo.catalogue.tree_check import GIVEN
from zoo.errors import InputError
from zoo.plugin.scaffold import TEMPLATES, free_folder, values_of, write_package

MODULE = "components"
FAMILY = "own"
SIDES = (8, 16, 28, 32, 64, 96, 128, 224, 256, 299)
"""Sides of square images that a model is tried with; the first that it takes is that of the plugin's model."""

DIGITS = 8
"""The side of the images that the plugin's model is trained on where it takes them."""

PLAIN = ("bool", "float", "int", "str")
"""Annotations that are kept."""


class Offered(NamedTuple):
    """A component of the package.

    Attributes:
        name: of the component and of the function that makes it. attribute: in the user's file.
        signature, call: of that function, and of the user's, as Python. text: its docstring.
        summary: in quotes. channels: the name of the argument that says how many come in.
    """

    name: str
    attribute: str
    kind: str
    summary: str
    text: str
    signature: str
    call: str
    channels: str


def plugin_of(source: str, name: str, folder: Path | None = None) -> Path:
    """Write a plugin's package folder around a file of the user's own, which is copied as it is.

    The files beside it that it imports are copied too, and imported from the package then.

    Args:
        source: "FILE.py": every class and function of it that can be a component; or "FILE.py:NAME": this one.
        name: the plugin's name, "waves" or "zoo-waves". folder: the folder to write; default: ./zoo-NAME.
    Returns:
        The folder.
    Raises:
        InputError: as `zoo.plugin.scaffold.new_plugin`, or nothing in the file can be a component.
    """
    codes = [in_file(source)] if _names_one(source) else _offered(source)
    offered = [_component(code) for code in codes]
    twice = [one.name for i, one in enumerate(offered) if one.name in [other.name for other in offered[:i]]]
    if twice:
        raise InputError(f"{source}: two components would be called {twice[0]!r}; name one: {source}:NAME")
    side = _side(codes[0], offered[0])
    module = _module_name(Path(codes[0].file).stem)
    values = values_of(name, offered[0].name, offered[0].kind, MODULE, offered[0].text, FAMILY)
    beside = {f"{module}.py": codes[0].text, **codes[0].beside}
    files = {path: within(text, values["package"], _tops(codes[0].beside)) for path, text in beside.items()}
    folder = free_folder(values, folder)
    more = {"components": offered, "code": module, "side": side if side != DIGITS else None}
    write_package({**values, **more}, folder, TEMPLATES / FAMILY)
    package = folder / "src" / values["package"]
    for path, text in files.items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(package / path, text)
    return folder


def _names_one(source: str) -> bool:
    path, _, name = source.rpartition(":")
    return path.endswith(".py") and bool(name)


def _offered(source: str) -> list[OwnCode]:
    """The classes and functions of a file that can be components: told enough, and needing no more.

    Raises:
        InputError: there is none.
    """
    path = source.rstrip(":")
    if not local_path(path).is_file():
        raise InputError(f"{source!r}: the file {path!r} does not exist; write FILE.py or FILE.py:NAME")
    body = parsed(read(local_path(path)), path).body
    names = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    codes = [in_file(f"{path}:{name}") for name in names if not name.startswith("_")]
    found = [code for code in codes if _can_be(code)]
    if not found:
        raise InputError(
            f"{path}: has no class and no function that can be a component: in_channels, height, width and num_classes "
            "make a classifier, channels, height and width a part; further arguments need defaults"
        )
    found.sort(key=lambda code: kind_of(code) != "classifier")  # the plugin's model is of the first
    return found


def _can_be(code: OwnCode) -> bool:
    try:
        _side(code, _component(code))
    except InputError:
        return False
    return True


def _component(code: OwnCode) -> Offered:
    """A component of a class or function.

    Raises:
        InputError: it needs an argument that nothing tells.
    """
    own = model_of(code)
    kind = own.component.kind
    made = code.load()
    taken = inspect.signature(made).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    of_the_image = ("height", "width") if "height" in taken and "width" in taken else ()
    told = [size for size in GIVEN[kind] if open_ended or (size in taken and size not in ("height", "width"))]
    told = list(dict.fromkeys((*told, *(of_the_image if not open_ended else ()))))
    more = {key: p for key, p in taken.items() if key not in told and p.kind is not p.VAR_KEYWORD}
    more = {key: p for key, p in more.items() if p.kind is not p.VAR_POSITIONAL}
    needed = [key for key, p in more.items() if p.default is p.empty]
    if needed:
        raise InputError(f"{code}: needs {needed[0]}, which nothing tells a component; give it a default")
    written = {key: text for key, p in more.items() if key not in SIZES and (text := _argument(key, p))}
    text = re.sub(r"[^ -~]|[\"\\\\{}]", "", own.component.summary).strip().rstrip(".") or code.attribute
    if code.file in own.component.summary:
        text = code.attribute
    return Offered(
        name=_snake(code.attribute),
        attribute=code.attribute,
        kind=kind,
        summary=json.dumps(text),
        text=text,
        signature=", ".join((*(f"{size}: int" for size in GIVEN[kind]), *written.values())),
        call=", ".join(f"{key}={key}" for key in (*told, *written)),
        channels=GIVEN[kind][0],
    )


def _argument(key: str, parameter: inspect.Parameter) -> str:
    """An argument as Python writes it; "" for one whose default cannot be written, which keeps it."""
    value, kind = parameter.default, type(parameter.default).__name__
    if kind not in PLAIN:
        return ""
    given = parameter.annotation
    annotation = given if isinstance(given, str) else getattr(given, "__name__", "")
    written = json.dumps(value) if kind == "str" else repr(value)
    if kind == "float" and not math.isfinite(value):
        written = f'float("{value!r}")'
    return f"{key}: {annotation if annotation in PLAIN else kind} = {written}"


def _side(code: OwnCode, offered: Offered) -> int:
    """The side of the smallest images that the component takes.

    Raises:
        InputError: it takes none; says what went wrong.
    """
    import torch

    why = ""
    channels = 32 if offered.kind == "part" else 3
    for side in SIDES:
        sizes = {"height": side, "width": side, "num_classes": 10, offered.channels: channels}
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                given = {key: value for key, value in sizes.items() if key in GIVEN[offered.kind]}
                out = code.load()(**given).eval()(torch.zeros(2, channels, side, side))
            if offered.kind != "classifier" or tuple(out.shape) == (2, 10):
                return side
            why = f"for 10 classes it gives {tuple(out.shape)} of 2 images"
        except Exception as error:
            why = why or f"{type(error).__name__}: {error}".partition("\n")[0]
    raise InputError(f"{code}: takes no square images of {SIDES[0]} to {SIDES[-1]} pixels; {why}")


def _snake(name: str) -> str:
    """A class's name as a component is called: MyNet becomes my_net."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower().strip("_")
    return f"{words}_" if keyword.iskeyword(words) else words


def _module_name(stem: str) -> str:
    name = re.sub(r"\W", "_", stem)
    name = name if name.isidentifier() and not keyword.iskeyword(name) else f"code_{name}"
    return "code" if name in (MODULE, "__init__") else name


def _tops(beside: Mapping[str, str]) -> list[str]:
    """The top-level names of files that are imported from a folder."""
    return sorted({path.partition("/")[0].removesuffix(".py") for path in beside})


def within(text: str, package: str, moved: Sequence[str]) -> str:
    """A source whose imports of the files beside it lead into the package.

    Raises:
        InputError: an import that cannot be rewritten: `import a.b` of such a file.
    """
    lines = io.StringIO(text, newline="").readlines()  # as `ast` counts them: a form feed ends no line
    for node in ast.walk(parsed(text, "it")):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] in moved:
            lines[node.lineno - 1] = re.sub(r"\bfrom(\s+)", rf"from\1{package}.", lines[node.lineno - 1], count=1)
        elif isinstance(node, ast.Import):
            _move(node, lines, package, moved)
    return "".join(lines)


def _move(node: ast.Import, lines: list[str], package: str, moved: Sequence[str]) -> None:
    ours = [alias.name for alias in node.names if alias.name.partition(".")[0] in moved]
    if not ours:
        return
    if len(node.names) > 1 or "." in ours[0]:
        raise InputError(f"line {node.lineno}: `{ast.unparse(node)}`: write it as `from {ours[0]} import ...`")
    line = lines[node.lineno - 1]
    lines[node.lineno - 1] = re.sub(r"\bimport\b", f"from {package} import", line, count=1)
