"""The architecture: who may import whom. Read from the source, so that an import nobody runs counts too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ABOVE_THE_LINE = (
    "zoo.errors",
    "zoo.base.version",
    "zoo.base.explain",
    "zoo.catalogue.augmentation",
    "zoo.catalogue.recipe",
    "zoo.catalogue.spec",
    "zoo.catalogue.study",
    "zoo.plugin.hooks",
    "zoo.catalogue.choose",
    "zoo.base.paths",
    "zoo.base.stamps",
    "zoo.base.files",
    "zoo.base.drawing",
    "zoo.base.web_page",
    "zoo.catalogue.plugins",
    "zoo.catalogue.isolation",
    "zoo.catalogue.discovery",
    "zoo.catalogue.index",
    "zoo.catalogue.registry_file",
    "zoo.catalogue.registry",
    "zoo.catalogue.picture",
    "zoo.catalogue.vary",
    "zoo.plugin.scaffold",
)
BELOW_THE_LINE = (
    "zoo.models.tensors",
    "zoo.plugin.layers",
    "zoo.models.compose",
    "zoo.models.header",
    "zoo.data",
    "zoo.runs.folder",
    "zoo.evaluate.views",
    "zoo.evaluate.accuracy",
    "zoo.models.device",
    "zoo.models.window",
    "zoo.runs.images",
    "zoo.runs.lock",
    "zoo.train.checkpoint",
    "zoo.train.events",
    "zoo.train.fit_to_images",
    "zoo.train.listeners",
    "zoo.train.loop",
    "zoo.train.not_finite",
    "zoo.train.optim",
    "zoo.train.out_of_memory",
    "zoo.train.plan",
    "zoo.train.precise_bn",
    "zoo.train.processes",
    "zoo.train.result",
    "zoo.train.speed",
    "zoo.evaluate.new_images",
    "zoo.evaluate.opened",
    "zoo.predict",
    "zoo.serve",
    "zoo.hub.package",
    "zoo.hub.card",
    "zoo.hub.pack",
    "zoo.hub.copy",
    "zoo.hub.fetch",
    "zoo.hub.publish",
    "zoo.hub.ref",
    "zoo.hub.search",
    "zoo.hub.session",
    "zoo.hub.verify",
    "zoo.train.start",
    "zoo.studies.bench",
    "zoo.studies.workers",
    "zoo.studies.figures",
    "zoo.evaluate.calibration",
    "zoo.evaluate.classes",
    "zoo.evaluate.corruptions",
    "zoo.evaluate.evaluation",
    "zoo.evaluate.latency",
    "zoo.evaluate.paired",
    "zoo.evaluate.pictures",
    "zoo.evaluate.robustness",
    "zoo.studies.reproduce",
    "zoo.runs.curves",
    "zoo.runs.find",
    "zoo.runs.remove",
    "zoo.studies.report",
    "zoo.studies.sweep",
    "zoo.export",
)
FACADES = ("zoo", "zoo.cli", "zoo.testing", "zoo.__main__")
ORDER = ABOVE_THE_LINE + BELOW_THE_LINE + FACADES
"""A module imports only those before it. A package stands for all of its modules."""

ON_ONE_FLOOR = (
    (
        "zoo.evaluate.calibration",
        "zoo.evaluate.classes",
        "zoo.evaluate.corruptions",
        "zoo.evaluate.evaluation",
        "zoo.evaluate.latency",
        "zoo.evaluate.paired",
        "zoo.evaluate.pictures",
        "zoo.evaluate.robustness",
    ),
    (
        "zoo.hub.copy",
        "zoo.hub.fetch",
        "zoo.hub.publish",
        "zoo.hub.ref",
        "zoo.hub.search",
        "zoo.hub.session",
    ),
    (
        "zoo.models.device",
        "zoo.models.window",
        "zoo.runs.images",
        "zoo.runs.lock",
        "zoo.train.checkpoint",
        "zoo.train.events",
        "zoo.train.fit_to_images",
        "zoo.train.listeners",
        "zoo.train.loop",
        "zoo.train.not_finite",
        "zoo.train.optim",
        "zoo.train.out_of_memory",
        "zoo.train.plan",
        "zoo.train.precise_bn",
        "zoo.train.processes",
        "zoo.train.result",
        "zoo.train.speed",
    ),
    (
        "zoo.runs.curves",
        "zoo.runs.find",
        "zoo.runs.remove",
        "zoo.studies.report",
    ),
)
"""Groups whose modules may import one another."""

LAZY = ("zoo", "zoo.cli")
"""May import anything, whatever the order, inside a function."""

LIGHT = (*ABOVE_THE_LINE, "zoo", "zoo.cli", "zoo.__main__")
HEAVY = ("numpy", "sklearn", "scipy", "timm", "torch", "torchvision")
OPEN_TO_PLUGINS = ("zoo.catalogue.spec", "zoo.plugin.hooks", "zoo.errors", "zoo.plugin.layers")
LIBRARIES_OF_PLUGINS = ("torch", "torchvision", "timm", "tensorboard", "trackio", "wandb")
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
    if name == "zoo":
        return name
    return next((n for n in reversed(_with_parents(name)[1:]) if n in ORDER), None)


def rank(entry: str) -> int:
    """Its place in ORDER; modules on one floor share theirs."""
    floor = next((group for group in ON_ONE_FLOOR if entry in group), (entry,))
    return max(map(ORDER.index, floor))


def is_a_room(name: str) -> bool:
    """Whether it is a folder, whose modules have places of their own."""
    return any(entry.startswith(f"{name}.") for entry in ORDER)


def is_ours(name: str) -> bool:
    return name == "zoo" or name.startswith("zoo.")


def is_plugin(name: str) -> bool:
    return name.startswith("zoo_")


def without_a_place(ours: dict[str, Module]) -> list[str]:
    strays = [m for m in ours.values() if is_ours(m.name) and unit(m.name) is None and not is_a_room(m.name)]
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
            if there is None and is_a_room(found.target):
                continue
            if there is None or rank(there) > rank(here):
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
    "no_mutable_module_globals": mutable_globals,
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
        ("imports_follow_the_order", "zoo/catalogue/spec.py", "from zoo.catalogue.registry import Registry"),
        ("imports_follow_the_order", "zoo/catalogue/spec.py", "from . import registry"),
        ("imports_follow_the_order", "zoo/catalogue/spec.py", "def f():\n    import zoo.catalogue.registry"),
        (
            "imports_follow_the_order",
            "zoo/catalogue/spec.py",
            "if TYPE_CHECKING:\n    import zoo.catalogue.registry",
        ),
        ("imports_follow_the_order", "zoo/data/deep/er.py", "from ...train.loop import A"),
        ("imports_follow_the_order", "zoo/train/loop.py", "import zoo"),
        ("imports_follow_the_order", "zoo/train/loop.py", "import zoo_cnn.blocks"),
        ("no_heavy_library_above_the_line", "zoo/catalogue/registry.py", "if A:\n    from torch import nn"),
        ("no_heavy_library_above_the_line", "zoo/catalogue/registry.py", "class A:\n    import numpy.typing"),
        ("no_heavy_library_above_the_line", "zoo/cli/list.py", "import zoo.plugin.layers.attention"),
        ("no_heavy_library_above_the_line", "zoo/__init__.py", "from zoo.plugin.layers import attention"),
        ("plugin_packages_import_light", "plugins/zoo_cnn/__init__.py", "from . import blocks"),
        ("plugin_packages_import_light", "plugins/zoo_cnn/__init__.py", "from zoo_cnn.blocks import A"),
        (
            "plugins_use_only_what_a_stranger_may",
            "plugins/zoo_cnn/blocks.py",
            "def f():\n  import zoo.runs.folder",
        ),
        ("plugins_use_only_what_a_stranger_may", "plugins/zoo_cnn/blocks.py", "import zoo_vit"),
        ("plugins_use_only_what_a_stranger_may", "plugins/zoo_cnn/blocks.py", "import requests"),
        ("no_mutable_module_globals", "zoo/catalogue/spec.py", "CACHE: dict[str, int] = {}"),
        (
            "no_mutable_module_globals",
            "zoo/catalogue/spec.py",
            "try:\n    A = 1\nexcept E:\n    A = [x for x in y]",
        ),
        ("no_mutable_module_globals", "plugins/zoo_cnn/blocks.py", "A = collections.defaultdict(list)"),
        ("no_mutable_module_globals", "zoo/catalogue/spec.py", "def f():\n    global A\n    A = 1"),
    ],
)
def test_a_breach_is_named_by_file_and_line(rule: str, file: str, source: str, tmp_path: Path) -> None:
    write_tree(tmp_path, {file: source})
    wrong = RULES[rule](read_modules(tmp_path))
    places = (
        f"{file}:",
        *(f"{heavy}:1:" for heavy in ("zoo/plugin/layers/attention.py", "plugins/zoo_cnn/blocks.py")),
    )
    assert wrong
    assert all(line.startswith(places) for line in wrong)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("zoo/cli/train.py", "def train():\n    import torch\n    from zoo.testing import check"),
        ("zoo/__init__.py", "def __getattr__(name):\n    from zoo.plugin.layers import attention"),
        ("zoo/catalogue/registry.py", "if TYPE_CHECKING:\n    import torch"),
        (
            "zoo/catalogue/spec.py",
            "__all__ = ['A']\nA = (1, 2)\nB = frozenset({1})\nC = MappingProxyType({'a': 1})",
        ),
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
        "plugins/zoo_cnn/__init__.py": "from zoo.plugin.hooks import hookimpl",
        "plugins/zoo_cnn/blocks.py": "import torch",
        "plugins/zoo_vit/__init__.py": "",
        "zoo/plugin/hooks.py": "",
    }
    for file, source in {**tree, **changes}.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(source + "\n", "utf-8")
