"""The text of a Python source: what it binds, imports and needs. Nothing is run."""

from __future__ import annotations

import ast
import hashlib
import json
import symtable
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from zoo.errors import InputError

MOST_BESIDE = 200
"""Files beside the user's own that are looked at; more are not kept."""


def hash_of(text: str) -> str:
    """sha256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_of(sha256: str, beside: Mapping[str, str]) -> str:
    """One hash of a source and of the files beside it, by their hashes; the source's own where there are none."""
    return hash_of(json.dumps([sha256, sorted(beside.items())])) if beside else sha256


def read(file: Path) -> str:
    """A source file, as Python decodes it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{file}: cannot be read: {why}") from None


def parsed(text: str, path: str) -> ast.Module:
    """The syntax tree of a source.

    Raises:
        InputError: it is no Python; names the line.
    """
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"line {line}: " if line else ""
        raise InputError(f"{path}: {where}{getattr(error, 'msg', None) or error}") from None


def bound_by(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module may give a value; "*" where it may be any."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id
        elif isinstance(part, ast.alias):
            yield part.asname or part.name.partition(".")[0]
        elif isinstance(part, ast.FunctionDef | ast.ClassDef):
            yield part.name


def excerpt(text: str, name: str) -> str:
    """What a class or function of a script needs of it: opening a run shall not do all of the script's work again.

    Lines that are left out are empty, so that all others keep their numbers.
    """
    every = text.splitlines()
    body = [node for node in parsed(text, name).body if not _is_main(node)]
    kept: set[int] = set()
    needed = {name, "*", "annotations"}  # what follows from `from __future__ import annotations` too
    while more := [node for node in body if node.lineno not in kept and needed & {*bound_by(node)}]:
        for node in more:
            kept |= _lines(node)
            needed |= _needs("\n".join(every[line - 1] for line in sorted(_lines(node))))
    return "".join(f"{every[line - 1] if line in kept else ''}\n" for line in range(1, max(kept, default=0) + 1))


def _is_main(node: ast.stmt) -> bool:
    """Whether it is `if __name__ == ...:`."""
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
    )


def _lines(node: ast.stmt) -> set[int]:
    """The lines of a statement, those of its decorators included."""
    first = min((node.lineno, *(maker.lineno for maker in getattr(node, "decorator_list", ()))))
    return {*range(first, (node.end_lineno or first) + 1)}


def _needs(text: str) -> set[str]:
    """The names that statements of a module use of it, also within functions and classes."""
    tables, names = [symtable.symtable(text, "", "exec")], set[str]()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        used = (symbol for symbol in table.get_symbols() if symbol.is_referenced())
        names |= {symbol.get_name() for symbol in used if table.get_type() == "module" or symbol.is_global()}
    return names


def files_beside(file: Path, tree: ast.Module) -> dict[str, str]:
    """The sources in a file's folder that it imports, and those that these import: their texts by relative path."""
    found: dict[str, str] = {}
    todo = list(_imports(tree))
    while todo and len(found) < MOST_BESIDE:
        top = todo.pop(0)
        for path in _sources(file.parent, top):
            key = path.relative_to(file.parent).as_posix()
            if key in found or path == file:
                continue
            with suppress(InputError):  # whoever imports it will say what is wrong
                found[key] = read(path)
                todo += _imports(parsed(found[key], key))
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    """The top-level names of what a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _sources(folder: Path, top: str) -> list[Path]:
    """The files of a module or package in a folder."""
    package = folder / top
    if top == "zoo":  # whose checkout this may be: there is one zoo in a process
        return []
    if (package / "__init__.py").is_file():
        return sorted(package.rglob("*.py"))[:MOST_BESIDE]
    return [folder / f"{top}.py"] if (folder / f"{top}.py").is_file() else []
