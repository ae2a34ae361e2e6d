"""Code of the user's own in the place of a plugin: `FILE.py:NAME`, or a class or function given in Python.

Nothing is imported to find it: the file is parsed. It is imported, once per process, when something is built, under a
name that follows from its content and that of the files beside it which it imports.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import linecache
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from shlex import quote
from types import MappingProxyType, ModuleType
from typing import Any

from zoo.base.did_you_mean import nearest
from zoo.base.paths import cache_dir, local_path
from zoo.catalogue.own_import import IN_TURN, PREFIX, imported
from zoo.catalogue.source_text import bound_by, digest_of, excerpt, files_beside, hash_of, parsed, read
from zoo.errors import InputError

SIZES = ("in_channels", "channels", "height", "width", "num_classes")
"""What a factory may be told; one of the user's own is told those of them that it takes."""

KEPT = "_zoo_kept"
"""Marks a module that a function keeps and gives again."""

SHORT = 12
"""Hexadecimal digits of a hash, as messages show it."""


class OwnCode(str):
    """A component's factory that stands in no package; as text, "FILE.py:NAME".

    Attributes:
        attribute: the name of the class or function. file: where it stands; "" where it was typed in.
        text: the source; "" where it is not known. beside: other files that it imports, by their paths from the
            file's folder: their texts.
        target: the class or function itself, where that was given; else it is imported from the file.
        script: whether the file is a script that was running: then the text is what the code needs of it.
        ready: whether the target gives copies of a module that was given ready.
        kept: whether the file is the copy in a run folder: it is imported only if it was run here before.
        original: where the code of such a copy came from.
    """

    attribute: str
    file: str
    text: str
    beside: Mapping[str, str]
    target: Callable[..., Any] | None
    script: bool
    ready: bool
    kept: bool
    original: str

    @classmethod
    def made(
        cls,
        attribute: str,
        file: str = "",
        text: str = "",
        *,
        beside: Mapping[str, str] = MappingProxyType({}),
        target: Callable[..., Any] | None = None,
        script: bool = False,
        ready: bool = False,
        kept: bool = False,
        original: str = "",
    ) -> OwnCode:
        """See the class."""
        code = cls(f"{file or 'own'}:{attribute}")
        code.attribute, code.file, code.text, code.beside = attribute, file, text, beside
        code.script = script
        code.target, code.ready, code.kept, code.original = target, ready, kept, original or file
        return code

    @property
    def sha256(self) -> str:
        """Of the source alone, hexadecimal: what `sha256sum` says of its copy; "" where it is not known."""
        return hash_of(self.text) if self.text else ""

    @property
    def hashes_beside(self) -> dict[str, str]:
        """Of the files beside it, by their paths."""
        return {path: hash_of(text) for path, text in self.beside.items()}

    @property
    def digest(self) -> str:
        """Of the source and of the files beside it."""
        return digest_of(self.sha256, self.hashes_beside)

    def load(self) -> Callable[..., Any]:
        """The class or function, taking sizes that it has no use for; imports the file where that is needed.

        Raises:
            InputError: it cannot be imported, or it is the copy of a run that no one has run here.
        """
        if self.target is not None:
            return adapted(self.target)
        if self.kept and not is_known(self):
            raise InputError(
                f"{self.file}: code that has not run on this machine before, and is not run unasked; read it, and "
                f"allow it by `zoo info {quote(f'{self.file}:{self.attribute}')} --build`"
            )
        made = getattr(self._module(), self.attribute, None)
        if not callable(made):
            raise InputError(f"{self}: is no class and no function")
        if not self.kept:
            make_known(self)
        return adapted(made)

    def _module(self) -> ModuleType:
        name = f"{PREFIX}{self.digest[:16]}"
        with IN_TURN:  # another thread's half of a module has not all of its names
            if name in sys.modules:
                return sys.modules[name]
            return imported(name, Path(self.file), self.text, self.beside, search=not self.kept)


# ---- which code was run here before -----------------------------------------------------------------


def is_known(code: OwnCode) -> bool:
    """Whether the user has run this code here: only then it is run out of a run folder, which may be a stranger's.

    The same text is not enough: a record may name anything that the text imports, `os.system` too.
    """
    return _mark(code).is_file()


def make_known(code: OwnCode) -> None:
    """Note that the user runs this code."""
    mark = _mark(code)
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _mark(code: OwnCode) -> Path:
    return cache_dir() / "own-code" / hash_of(f"{code.digest}:{code.attribute}")


# ---- a file -----------------------------------------------------------------------------------------


def is_own(reference: str) -> bool:
    """Whether a model's name is meant as FILE.py:NAME."""
    path, _, _ = reference.rpartition(":")
    return path.endswith(".py") or (reference.endswith(".py") and not path)


def written_as(module: str) -> str:
    """How "MODULE", "MODULE.NAME" or "MODULE:NAME" is written if it is a file here: "FILE.py:NAME"; else ""."""
    whole, colon, name = module.rpartition(":")
    around, _, last = module.rpartition(".")
    for place, part in ((whole, name or "NAME"),) if colon else ((module, "NAME"), (around, last)):
        file = f"{place.replace('.', '/')}.py"
        if place and "/" not in module and os.path.isfile(file):
            return f"{file}:{part}"
    return ""


def in_file(reference: str, *, script: bool = False) -> OwnCode:
    """The code that "FILE.py:NAME" names; the file is read and parsed, not run.

    Args:
        script: see `OwnCode`.
    Raises:
        InputError: no such file, no such name in it, or a syntax error; says where.
    """
    path, _, name = reference.rpartition(":")
    if not path:
        path, name = reference, ""
    file = local_path(path)
    if not file.is_file():
        raise InputError(f"{reference!r}: the file {path!r} does not exist; write FILE.py:NAME")
    text = read(file)
    tree = parsed(text, path)
    offered = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    bound = {name for node in tree.body for name in bound_by(node)}
    if not name or (name not in bound and "*" not in bound):
        near = nearest(name, offered, 1) if name else []
        what = f"has no {name!r}" if name else "which class or function of it"
        listed = ", ".join(offered) or "none"
        hint = f"did you mean {path}:{near[0]}?" if near else f"write {path}:NAME; it has {listed}"
        raise InputError(f"{path}: {what}; {hint}")
    if script:
        text = excerpt(text, name)
        tree = parsed(text, path)
    return OwnCode.made(name, str(file.absolute()), text, beside=files_beside(file, tree), script=script)


# ---- a class or function ----------------------------------------------------------------------------


def of_object(target: Callable[..., Any]) -> OwnCode:
    """The code of a class or function that was given in Python.

    Where it stands at the top of a file, that file is its source: of the script that is running, what the class or
    function needs of it. Else its source is what was typed.
    """
    inner = target.func if isinstance(target, functools.partial) else target
    attribute = str(getattr(inner, "__name__", type(inner).__name__))
    attribute = attribute if attribute.isidentifier() else "model"
    with suppress(TypeError, OSError):
        file = inspect.getsourcefile(inner)
        if file and os.path.isfile(file) and getattr(inner, "__qualname__", "") == attribute:
            with suppress(InputError):
                script = getattr(inner, "__module__", "") == "__main__"
                return _with_target(in_file(f"{file}:{attribute}", script=script), target)
    return OwnCode.made(attribute, text=_typed(inner), target=target)


def _with_target(code: OwnCode, target: Callable[..., Any]) -> OwnCode:
    """Code of a file whose class or function is at hand."""
    return OwnCode.made(
        code.attribute, code.file, code.text, beside=code.beside, target=target, script=code.script, original=code.file
    )


def _typed(target: Any) -> str:
    """The text of what was typed into a notebook or a prompt; what cannot be had of it is "".

    Of a class that no file holds Python finds the text through its functions only, and then gives the whole cell.
    """
    with suppress(TypeError, OSError):
        return inspect.getsource(target)
    for function in (target, *vars(target).values()) if inspect.isclass(target) else (target,):
        code = getattr(function, "__code__", None)
        if code is not None and (lines := linecache.getlines(code.co_filename)):
            return "".join(lines)
    return ""


def places(code: OwnCode) -> set[str]:
    """The files of the code and of what it imports beside it, or what stands for a file, as tracebacks name them."""
    found = {code.file, *(str(Path(code.file).parent / path) for path in code.beside)} if code.file else set[str]()
    target = code.target.func if isinstance(code.target, functools.partial) else code.target
    for function in (target, *vars(target).values()) if inspect.isclass(target) else (target,):
        made = getattr(function, "__code__", None)
        found |= {made.co_filename} if made is not None and not code.ready else set()
    return found


def parameters_of(code: OwnCode) -> tuple[str, ...] | None:
    """The names of the arguments of a class or function; None where any is taken.

    They are read from the source where it shows them plainly, without importing it.

    Raises:
        InputError: as `OwnCode.load`, or it has no signature.
    """
    if code.target is None:
        found = [node for node in parsed(code.text, code.file).body if code.attribute in bound_by(node)]
        if len(found) == 1 and (taken := _plain_arguments(found[0])) is not None:
            return None if taken.kwarg else tuple(a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs))
    made = code.load()
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        raise InputError(f"{code}: its signature cannot be read; give a class or function written in Python") from None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return tuple(p.name for p in parameters)


def _plain_arguments(node: ast.stmt) -> ast.arguments | None:
    """The arguments of a function or of a class's `__init__`, where no decorator, metaclass or base changes them."""
    if isinstance(node, ast.FunctionDef) and not node.decorator_list:
        return node.args
    if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
        return None
    makers = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    if len(makers) != 1 or makers[0].decorator_list:
        return None
    arguments = makers[0].args
    arguments.args = arguments.args[1:]  # without self
    return arguments


def adapted(target: Callable[..., Any]) -> Callable[..., Any]:
    """The class or function as a factory that may be told every size: it gets those that it takes.

    Who takes a `width` and no `height` does not mean the image's.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return target
    taken = signature.parameters
    every = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    of_the_image = ("height", "width") if "height" in taken and "width" in taken else ()
    unknown = {name for name in SIZES if name not in taken} | ({"height", "width"} - {*of_the_image})
    unknown = set() if every else unknown

    def make(**given: Any) -> Any:
        return _its_own(target(**{key: value for key, value in given.items() if key not in unknown}))

    maker = target.__init__ if inspect.isclass(target) else target
    make.__annotations__ = dict(getattr(maker, "__annotations__", {}))
    make.__dict__["__signature__"] = signature
    make.__name__ = str(getattr(target, "__name__", "make"))
    return make


def _its_own(module: Any) -> Any:
    """A module that nobody else has: one that a function gives whenever it is asked would be trained itself.

    A model is built on the device meta first, where what was made just now has no values.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        return module
    kept = getattr(module, KEPT, False)
    if not kept and torch.get_default_device().type == "meta":
        kept = any(not value.is_meta for value in (*module.parameters(), *module.buffers()))
        if kept:
            object.__setattr__(module, KEPT, True)
    return copy.deepcopy(module) if kept else module
