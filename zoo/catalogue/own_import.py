"""Importing code of the user's own: what is run is the text that was read and hashed, and what it imports beside it.

A folder is not enough to say what an import in it runs: a module of the same name that was imported before, compiled
files, or a package in the place of a module would come first. So the files beside a source are imported from their
texts too, under names of their own, which no other code of the process sees.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.util
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from zoo.base.text import first_line
from zoo.errors import InputError, ZooError

PREFIX = "zoo_own_"
IN_TURN = threading.RLock()
"""Held while a module is looked up or imported."""

IMPORTING = "__zoo_importing__"
PACKAGE = "__init__.py"


def imported(name: str, file: Path, text: str, beside: Mapping[str, str], *, search: bool) -> ModuleType:
    """Run a source as a module of this name, or leave nothing behind.

    Args:
        beside: texts of the files that it may import, by their paths from the file's folder.
        search: whether the file's folder is searched too, for what is not among them.
    Raises:
        InputError: it cannot be imported; says where.
    """
    finder = _Beside(name, file, beside, search=search)
    module = ModuleType(name)
    module.__dict__[IMPORTING] = threading.get_ident()
    module.__spec__ = ModuleSpec(name, None, origin=str(file))
    sys.modules[name] = module
    try:
        with _on_the_path(file.parent if search else None):
            finder.run(module, str(file), text)
    except ZooError:
        _forget(name)
        raise
    except (Exception, SystemExit) as error:
        _forget(name)
        why = f"{_line_in(error, file)}{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{file}: cannot be imported: {why}") from error
    except BaseException:
        _forget(name)
        raise
    del module.__dict__[IMPORTING]
    return module


class _Beside(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and runs the files beside a source; their modules' names begin with the source's."""

    def __init__(self, name: str, file: Path, texts: Mapping[str, str], *, search: bool) -> None:
        self.name, self.file, self.texts, self.search = name, file, texts, search
        self.tops = {path.partition("/")[0].removesuffix(".py") for path in texts}
        self.builtins = {**vars(builtins), "__import__": self.imported}

    def imported(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What an import statement in one of these files means."""
        top, dot, rest = name.partition(".")
        if level == 0 and top in self.tops:
            name = f"{self.name}__{name}"
        elif level == 0 and top == self.file.stem:
            name = self.name + dot + rest
        sys.meta_path.insert(0, self)
        try:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        finally:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As Python's own finders, by the texts."""
        if not name.startswith(f"{self.name}__"):
            return None
        place = name.removeprefix(f"{self.name}__").replace(".", "/")
        found = next((p for p in (f"{place}/{PACKAGE}", f"{place}.py") if p in self.texts), None)
        if found is None and not any(path.startswith(f"{place}/") for path in self.texts):
            return None
        package = found is None or found.endswith(f"/{PACKAGE}")
        spec = ModuleSpec(name, self if found else None, origin=str(self.file.parent / (found or place)))
        if package:
            spec.submodule_search_locations = [str(self.file.parent / place)] if self.search else []
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run one of the files."""
        spec = module.__spec__
        assert spec is not None
        assert spec.origin is not None
        self.run(module, spec.origin, self.texts[Path(spec.origin).relative_to(self.file.parent).as_posix()])

    def run(self, module: ModuleType, path: str, text: str) -> None:
        """Run a text as this module; what it imports beside itself is found here."""
        module.__file__ = path
        module.__dict__["__builtins__"] = self.builtins
        exec(compile(text, path, "exec"), module.__dict__)


def _forget(name: str) -> None:
    for other in [other for other in sys.modules if other == name or other.startswith(f"{name}__")]:
        del sys.modules[other]


def _line_in(error: BaseException, file: Path) -> str:
    """The last line of the file that the error came through, for a message."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"line {lines[-1]}: " if lines else ""


@contextmanager
def _on_the_path(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


def refuse_while_importing() -> None:
    """Refuse to train from within a file that is being imported for its model: it would do so each time.

    Raises:
        InputError: names the file.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(PREFIX) and getattr(module, IMPORTING, None) == threading.get_ident():
            raise InputError(
                f"{module.__file__}: trains as soon as it is imported; put that below `if __name__ == '__main__':`"
            )
