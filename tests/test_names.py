"""What texts call by a dotted name exists: docstrings, docs, templates and messages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_imports import Module, read_modules

ROOT = Path(__file__).resolve().parent.parent
DOTTED = re.compile(r"(?<![\w./@-])zoo(?:\.[a-z_]\w*)+(?:\.[A-Za-z]\w*)*")
SUFFIXES = {".py", ".md", ".tmpl", ".toml", ".ipynb", ".j2"}


def texts() -> list[Path]:
    places = ("zoo", "plugins", "docs", "benchmarks", "examples")
    inside = [path for place in places for path in (ROOT / place).rglob("*")]
    return [p for p in [*inside, *ROOT.glob("*.md")] if p.suffix in SUFFIXES and "_build" not in p.parts]


def names_in(module: Module) -> set[str]:
    """All that can be taken from a module: what it defines and what it imports."""
    names = set[str]()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def is_there(name: str, modules: dict[str, Module]) -> bool:
    parts = name.split(".")
    if len(parts) < 3 or f"zoo.{parts[1]}" not in modules:
        return True  # a function of `zoo`, or a key of metadata that looks alike
    known = max((n for n in range(2, len(parts) + 1) if ".".join(parts[:n]) in modules), default=0)
    return known == len(parts) or parts[known] in names_in(modules[".".join(parts[:known])])


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return read_modules(ROOT)


def test_every_dotted_name_of_ours_exists(modules: dict[str, Module]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for path in texts()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for name in DOTTED.findall(line)
        if not is_there(name, modules)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", ["zoo.train.loop.Trainr", "zoo.train.lop.Trainer", "zoo.runs.lock.RunLock2"])
def test_a_name_that_does_not_exist_is_found(name: str, modules: dict[str, Module]) -> None:
    assert not is_there(name, modules)
