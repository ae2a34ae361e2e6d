"""The architecture: who may import whom. Read from the source, so that an import nobody runs counts too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).resolve().parent.parent

ABOVE_THE_LINE = ("zoo.base.did_you_mean", "zoo.errors", "zoo.base", "zoo.plugin", "zoo.catalogue")
BELOW_THE_LINE = (
    "zoo.plugin.layers",
    "zoo.models",
    "zoo.data",
    "zoo.runs",
    "zoo.evaluate",
    "zoo.predict",
    "zoo.serve",
    "zoo.export",
    "zoo.hub",
    "zoo.train",
    "zoo.studies",
)
DOORS = tuple(
    f"zoo.{room}.api"
    for room in (
        *("runs", "catalogue", "data", "evaluate", "predict", "serve", "export", "models", "hub", "train", "studies"),
        "studies.probe",
    )
)
"""The public calls of each room: above all rooms, since a call may need any of them."""

FACADES = (*DOORS, "zoo", "zoo.cli", "zoo.testing", "zoo.__main__")
ORDER = ABOVE_THE_LINE + BELOW_THE_LINE + FACADES
"""A room imports only those before it. A room stands for all of its modules but those with an entry of their own."""

LAZY = ("zoo", "zoo.cli")
"""May import anything, whatever the order, inside a function."""

LIGHT = (*ABOVE_THE_LINE, "zoo", "zoo.cli", "zoo.__main__")
HEAVY = ("jinja2", "numpy", "sklearn", "scipy", "timm", "torch", "torchvision")
OPEN_TO_COMMANDS = ("zoo.base", "zoo.cli", "zoo.errors", "zoo.testing")
"""What a command imports beside `zoo` itself, whose calls it makes."""

OWN_OF_THE_COMMAND_LINE = ("zoo.cli.shared", "zoo.cli.doctor")
"""How commands print and end, and what examines an installation: these look behind the calls."""

OPEN_TO_PLUGINS = ("zoo.plugin", "zoo.plugin.layers", "zoo.errors")
MOST_NAMES_AT_THE_TOP = 16
"""Folders and files of `zoo/`, without `__init__.py`, `__main__.py` and `py.typed`, which Python asks for."""

COMMANDS_AND_ROOMS = "a command's file is called as the command, and so is the room that does its work"
SAME_NAME = MappingProxyType(
    {
        "api": "the public calls of a room",
        "__main__": "Python's name for what `python -m` runs",
        **dict.fromkeys(
            ("bench", "evaluate", "export", "hub", "plugin", "predict", "report", "reproduce", "runs"),
            COMMANDS_AND_ROOMS,
        ),
        **dict.fromkeys(("serve", "soup", "sweep", "train", "plugins"), COMMANDS_AND_ROOMS),
        "probe": "a command, the room that does its work, and the process that asks what devices compute",
        "new": "the command `zoo new`, and the folder of a new run",
        "load": "a dataset, and a run's model: the names of the functions that people call",
        "folder": "a run folder, and a dataset in a folder: `folder:` is its scheme",
        "files": "files on disk, and the room of image files",
        "data": "the room, and the kit's small dataset",
        "display": "how a training is shown, and how commands show it",
        "parts": "the parts of a model, and those of an installation",
        "page": "the page of `zoo serve`, and the page of `zoo report`",
        "stream": "streamed training images, and streamed predictions: each beside its other half",
    }
)
"""Modules that share a name with another one, and why."""

LIBRARIES_OF_PLUGINS = ("torch", "torchvision", "timm", "tensorboard", "trackio", "wandb", "executorch")
MUTABLE_MAKERS = ("list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque")


@dataclass(frozen=True)
class Module:
    """One source file of ours; `name` is how it is imported."""

    name: str
    tree: ast.Module
    file: str
    is_package: bool


@dataclass(frozen=True)
class Import:
    """One import of `target` by `module`; `eager` where it happens as soon as `module` is imported."""

    module: str
    target: str
    where: str
    eager: bool


def read_modules(root: Path) -> dict[str, Module]:
    found = {}
    for base in (root, root / "plugins"):
        for path in sorted(base.glob("zoo*/**/*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            file = path.relative_to(root).as_posix()
            found[name] = Module(name, ast.parse(path.read_text("utf-8"), file), file, is_package)
    return found


def imports_of(module: Module, ours: dict[str, Module]) -> Iterator[Import]:
    for node, eager in _import_nodes(module.tree.body, True):
        where = f"{module.file}:{node.lineno}"
        for target in _targets(node, module, ours):
            yield Import(module.name, target, where, eager)


def _import_nodes(body: list[ast.stmt], eager: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, eager
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _import_nodes(node.body, False)
            yield from _import_nodes(node.orelse, eager)
        else:
            inside = eager and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _import_nodes(_statements_in(node), inside)


def _statements_in(node: ast.stmt) -> list[ast.stmt]:
    """The statements directly inside a compound statement, those of handlers and cases included."""
    found: list[ast.stmt] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            found.append(child)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            found += child.body
    return found


def _targets(node: ast.Import | ast.ImportFrom, module: Module, ours: dict[str, Module]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    source = node.module or ""
    if node.level:
        package = module.name.split(".")
        package = package[: len(package) - node.level + module.is_package]
        source = ".".join([*package, *([node.module] if node.module else [])])
    names = [f"{source}.{alias.name}" for alias in node.names]
    return sorted({name if name in ours else source for name in names})


def unit(name: str) -> str | None:
    """The entry of ORDER that a module belongs to: the longest one that begins its name."""
    if "." not in name:
        return name if name in ORDER else None
    return next((n for n in reversed(_with_parents(name)[1:]) if n in ORDER), None)


def is_ours(name: str) -> bool:
    return name == "zoo" or name.startswith("zoo.")


def is_plugin(name: str) -> bool:
    return name.startswith("zoo_")


def without_a_place(ours: dict[str, Module]) -> list[str]:
    strays = [m for m in ours.values() if is_ours(m.name) and unit(m.name) is None]
    return [f"{m.file}: {m.name} is not in ORDER" for m in strays]


def against_the_order(ours: dict[str, Module]) -> list[str]:
    wrong = []
    for module in filter(lambda m: is_ours(m.name), ours.values()):
        for found in imports_of(module, ours):
            here, there = unit(module.name), unit(found.target)
            if found.target.startswith("zoo_"):
                wrong.append(f"{found.where}: {module.name} imports the plugin {found.target}")
            if not is_ours(found.target) or here is None or (here in LAZY and not found.eager):
                continue
            if there is None or ORDER.index(there) > ORDER.index(here):
                wrong.append(f"{found.where}: {module.name} must not import {found.target}")
    return wrong


def heavy_paths(ours: dict[str, Module], start: str) -> list[str]:
    """How importing `start` reaches a heavy library, through our modules: "file:line: a > b > torch"."""
    wrong, seen, todo = [], {start}, [(start, (start,))]
    while todo:
        name, path = todo.pop()
        for found in imports_of(ours[name], ours):
            if found.eager and found.target.split(".")[0] in HEAVY:
                wrong.append(f"{found.where}: {' > '.join((*path, found.target))}")
            for target in _with_parents(found.target) if found.eager else ():
                if target in ours and target not in seen:
                    seen.add(target)
                    todo.append((target, (*path, target)))
    return wrong


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def heavy_above_the_line(ours: dict[str, Module]) -> list[str]:
    return [w for name in ours if unit(name) in LIGHT for w in heavy_paths(ours, name)]


def heavy_plugin_inits(ours: dict[str, Module]) -> list[str]:
    tops = [name for name in ours if is_plugin(name) and "." not in name]
    return [w for name in tops for w in heavy_paths(ours, name)]


def beyond_a_plugin(ours: dict[str, Module]) -> list[str]:
    wrong = []
    for module in filter(lambda m: is_plugin(m.name), ours.values()):
        own = module.name.split(".")[0]
        for found in imports_of(module, ours):
            top = found.target.split(".")[0]
            allowed = top in (own, *LIBRARIES_OF_PLUGINS) or top in sys.stdlib_module_names
            if not allowed and unit(found.target) not in OPEN_TO_PLUGINS:
                wrong.append(f"{found.where}: a plugin must not import {found.target}")
    return wrong


def beyond_the_face(ours: dict[str, Module]) -> list[str]:
    """Imports of the command line that go past the public calls: a rule would live there."""
    wrong = []
    for module in ours.values():
        if not module.name.startswith("zoo.cli") or module.name.startswith(OWN_OF_THE_COMMAND_LINE):
            continue
        for found in imports_of(module, ours):
            if is_ours(found.target) and found.target != "zoo" and not found.target.startswith(OPEN_TO_COMMANDS):
                wrong.append(f"{found.where}: {module.name} must not import {found.target}, but call what `zoo` offers")
    return wrong


def circles(ours: dict[str, Module]) -> list[str]:
    """A circle of modules that import one another, in whatever room, also inside functions: "a > b > a"."""
    arrows = {
        name: sorted({found.target for found in imports_of(module, ours) if found.target in ours} - {name})
        for name, module in ours.items()
    }
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        ring = error.args[1][::-1]  # each imports the next
        return [f"{ours[ring[0]].file}:1: a circle of imports: {' > '.join(ring)}"]
    return []


def names_at_the_top(ours: dict[str, Module]) -> list[str]:
    given = {"__init__", "__main__"}
    names = sorted({name.split(".")[1] for name in ours if name.startswith("zoo.")} - given)
    if len(names) <= MOST_NAMES_AT_THE_TOP:
        return []
    return [f"zoo/:{len(names)} names, allowed {MOST_NAMES_AT_THE_TOP}: {', '.join(names)}"]


def names_twice(ours: dict[str, Module]) -> list[str]:
    places: dict[str, list[str]] = {}
    for module in ours.values():
        if is_ours(module.name) and module.name != "zoo":
            places.setdefault(module.name.rpartition(".")[2], []).append(module.file)
    wrong = [
        f"{files[-1]}: the name {name!r} stands at {' and '.join(files)}; rename one, or give the reason in SAME_NAME"
        for name, files in places.items()
        if len(files) > 1 and name not in SAME_NAME
    ]
    return wrong


def mutable_globals(ours: dict[str, Module]) -> list[str]:
    wrong = []
    for module in ours.values():
        for node in _module_level(module.tree.body):
            names = _assigned(node)
            if names and names != ["__all__"] and _is_mutable(getattr(node, "value", None)):
                wrong.append(f"{module.file}:{node.lineno}: {', '.join(names)} can be changed by anybody")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Global):
                wrong.append(f"{module.file}:{node.lineno}: global {', '.join(node.names)}")
    return wrong


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _module_level(_statements_in(node))


def _assigned(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [ast.unparse(node.target)] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []


def _is_mutable(value: ast.expr | None) -> bool:
    displays = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in MUTABLE_MAKERS
    if isinstance(value, ast.BinOp):
        return _is_mutable(value.left) or _is_mutable(value.right)
    if isinstance(value, ast.IfExp):
        return _is_mutable(value.body) or _is_mutable(value.orelse)
    if isinstance(value, ast.Tuple):
        return any(map(_is_mutable, value.elts))
    return isinstance(value, displays)


RULES = {
    "every_module_has_a_place": without_a_place,
    "imports_follow_the_order": against_the_order,
    "no_heavy_library_above_the_line": heavy_above_the_line,
    "plugin_packages_import_light": heavy_plugin_inits,
    "plugins_use_only_what_a_stranger_may": beyond_a_plugin,
    "commands_call_what_zoo_offers": beyond_the_face,
    "no_mutable_module_globals": mutable_globals,
    "no_circle_of_imports": circles,
    "few_names_at_the_top": names_at_the_top,
    "no_name_twice_without_a_reason": names_twice,
}


@pytest.fixture(scope="module")
def ours() -> dict[str, Module]:
    return read_modules(ROOT)


@pytest.mark.parametrize("rule", RULES)
def test_the_architecture_holds(rule: str, ours: dict[str, Module]) -> None:
    assert "zoo.catalogue.spec" in ours
    wrong = RULES[rule](ours)
    assert not wrong, "\n" + "\n".join(sorted(set(wrong)))


@pytest.mark.parametrize(
    ("rule", "file", "source"),
    [
        ("every_module_has_a_place", "zoo/mystery.py", ""),
        ("imports_follow_the_order", "zoo/base/paths.py", "from zoo.catalogue.registry import Registry"),
        ("imports_follow_the_order", "zoo/base/paths.py", "from ..catalogue import registry"),
        ("imports_follow_the_order", "zoo/base/paths.py", "def f():\n    import zoo.catalogue.registry"),
        ("imports_follow_the_order", "zoo/base/paths.py", "if TYPE_CHECKING:\n    import zoo.catalogue.registry"),
        ("imports_follow_the_order", "zoo/plugin/hooks.py", "from zoo.plugin.layers import attention"),
        ("imports_follow_the_order", "zoo/data/deep/er.py", "from ...train import loop"),
        ("imports_follow_the_order", "zoo/train/loop.py", "import zoo"),
        ("imports_follow_the_order", "zoo/train/loop.py", "import zoo_cnn.blocks"),
        ("no_heavy_library_above_the_line", "zoo/catalogue/registry.py", "if A:\n    from torch import nn"),
        ("no_heavy_library_above_the_line", "zoo/catalogue/registry.py", "class A:\n    import numpy.typing"),
        ("no_heavy_library_above_the_line", "zoo/cli/list.py", "import zoo.plugin.layers.attention"),
        ("no_heavy_library_above_the_line", "zoo/__init__.py", "from zoo.plugin.layers import attention"),
        ("plugin_packages_import_light", "plugins/zoo_cnn/__init__.py", "from . import blocks"),
        ("plugin_packages_import_light", "plugins/zoo_cnn/__init__.py", "from zoo_cnn.blocks import A"),
        ("plugins_use_only_what_a_stranger_may", "plugins/zoo_cnn/blocks.py", "def f():\n  import zoo.runs"),
        ("plugins_use_only_what_a_stranger_may", "plugins/zoo_cnn/blocks.py", "from zoo.catalogue.spec import A"),
        ("plugins_use_only_what_a_stranger_may", "plugins/zoo_cnn/blocks.py", "import zoo_vit"),
        ("plugins_use_only_what_a_stranger_may", "plugins/zoo_cnn/blocks.py", "import requests"),
        ("commands_call_what_zoo_offers", "zoo/cli/train.py", "def f():\n    from zoo.train.loop import Trainer"),
        ("commands_call_what_zoo_offers", "zoo/cli/train.py", "from zoo.train.api import train"),
        ("no_mutable_module_globals", "zoo/catalogue/spec.py", "CACHE: dict[str, int] = {}"),
        ("no_mutable_module_globals", "zoo/catalogue/spec.py", "try:\n    A = 1\nexcept E:\n    A = [x for x in y]"),
        ("no_mutable_module_globals", "plugins/zoo_cnn/blocks.py", "A = collections.defaultdict(list)"),
        ("no_mutable_module_globals", "zoo/catalogue/spec.py", "def f():\n    global A\n    A = 1"),
        ("no_circle_of_imports", "zoo/catalogue/spec.py", "def f():\n    from zoo.catalogue.registry import B"),
        ("no_name_twice_without_a_reason", "zoo/models/spec.py", ""),
    ],
)
def test_a_breach_is_named_by_file_and_line(rule: str, file: str, source: str, tmp_path: Path) -> None:
    write_tree(tmp_path, {file: source})
    wrong = RULES[rule](read_modules(tmp_path))
    places = (
        f"{file}:",
        *(f"{heavy}:1:" for heavy in ("zoo/plugin/layers/attention.py", "plugins/zoo_cnn/blocks.py")),
        "zoo/catalogue/registry.py:1: a circle",
    )
    assert wrong
    assert all(line.startswith(places) for line in wrong)


def test_a_seventeenth_name_at_the_top_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {})
    for left in range(MOST_NAMES_AT_THE_TOP - len(list((tmp_path / "zoo").glob("*/"))), -1, -1):
        assert RULES["few_names_at_the_top"](read_modules(tmp_path)) == []
        write_tree(tmp_path, {f"zoo/room{left}/__init__.py": ""})
    assert "17 names" in RULES["few_names_at_the_top"](read_modules(tmp_path))[0]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("zoo/cli/train.py", "def train():\n    import torch\n    from zoo.testing import check"),
        ("zoo/__init__.py", "def __getattr__(name):\n    from zoo.plugin.layers import attention"),
        ("zoo/catalogue/registry.py", "if TYPE_CHECKING:\n    import torch"),
        ("zoo/catalogue/spec.py", "__all__ = ['A']\nA = (1, 2)\nB = frozenset({1})\nC = MappingProxyType({'a': 1})"),
        ("plugins/zoo_cnn/blocks.py", "from zoo.plugin.layers import attention\nimport torch, timm, math"),
    ],
)
def test_what_is_allowed_is_not_reported(file: str, source: str, tmp_path: Path) -> None:
    write_tree(tmp_path, {file: source})
    modules = read_modules(tmp_path)
    assert [wrong for rule in RULES.values() for wrong in rule(modules)] == []


def write_tree(root: Path, changes: dict[str, str]) -> None:
    """A small tree that breaks no rule, with `changes` on top."""
    tree = {
        "zoo/__init__.py": "",
        "zoo/catalogue/registry.py": "from zoo.catalogue.spec import A",
        "zoo/catalogue/spec.py": "A = 1",
        "zoo/plugin/layers/__init__.py": "",
        "zoo/plugin/layers/attention.py": "import torch",
        "zoo/train/__init__.py": "",
        "plugins/zoo_cnn/__init__.py": "from zoo.plugin import hookimpl",
        "plugins/zoo_cnn/blocks.py": "import torch",
        "plugins/zoo_vit/__init__.py": "",
        "zoo/plugin/__init__.py": "from zoo.plugin.hooks import hookimpl",
        "zoo/plugin/hooks.py": "",
        "zoo/base/paths.py": "",
    }
    for file, source in {**tree, **changes}.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(source + "\n", "utf-8")
