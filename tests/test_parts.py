"""Models composed in Python: the same data as in TOML, shown, written, built and checked."""

from __future__ import annotations

import ast
import base64
import importlib
import inspect
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import pytest
import torch
from click.testing import CliRunner
from plugin_site import PART

import zoo_hybrid
from zoo.catalogue import parts
from zoo.catalogue.parts import alternate, as_model, entry_of, joint, part
from zoo.catalogue.plugins import PluginRecord, import_factory
from zoo.catalogue.registry import find_model, load_registry
from zoo.catalogue.spec import Node, node_from_table
from zoo.cli import cli
from zoo.errors import InputError, PluginError, SpecError, UnknownNameError
from zoo.models.api import create
from zoo.plugin import stubs
from zoo.plugin.contract import GIVEN, Component
from zoo.plugin.names import Name, Names
from zoo.plugin.scaffold import families, new_plugin
from zoo.testing import cases_of
from zoo.testing.cases import check_names
from zoo.testing.subject import Failed
from zoo.train.plan import resolve
from zoo.train.run_options import Request
from zoo_cnn import residual, scaled_head, stem
from zoo_hybrid import classifier, pool
from zoo_vit import image

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = ("cnn", "hybrid", "mixer", "perceiver", "timm", "torchvision", "vit")
PATCH = ["embedding", "projection", "hidden", "output"]
SMALL = {"num_classes": 10, "image_size": 8}
MYPY = """
[mypy]
follow_imports = skip
[mypy-zoo_cnn,zoo_hybrid,zoo_vit,zoo.plugin,zoo.plugin.node]
follow_imports = normal
"""


def in_python() -> dict[str, Node]:
    """Models of our registry, as one writes them in Python."""
    cnn = part("cnn.residual", widths=(32, 32, 128, 128))
    return {
        "hybrid-alt-1": classifier(body=alternate(cnn, image(depth=1, heads=1, dropout_at=PATCH), repeat=1)),
        "hybrid-joint-perceiver-1": part(
            "hybrid.classifier",
            body=joint(
                residual(widths=[32, 32, 128, 128]),
                part("perceiver.image", depth=1, cross_heads=1, dropout_at=["projection", "hidden"]),
                repeat=1,
                norm="shared",
            ),
        ),
        "cnn-vit": classifier(
            stem=stem(widths=[32, 64, 128], strides=[1, 2, 1]),
            head=part("vit.timm", patch=2, embed=192, depth=6, heads=3),
        ),
    }


@pytest.mark.parametrize("name", in_python())
def test_a_tree_made_in_python_is_that_of_the_registry(name: str) -> None:
    tree, registry = in_python()[name], load_registry()
    assert tree == registry.model(name).build
    assert eval(repr(tree), {"zoo": parts}) == tree
    assert node_from_table(tomllib.loads(tree.to_toml())["build"], "build") == tree


def test_every_model_of_the_registry_reads_as_python_that_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry()
    monkeypatch.setattr(parts, "load_registry", lambda: registry)  # once for all is enough here
    for name, model in registry.models.items():
        assert eval(repr(model.build), {"zoo": parts}) == model.build, name


def test_arguments_that_are_not_given_are_not_in_the_tree() -> None:
    assert alternate(residual()) == Node("hybrid.alternate", {}, (Node("cnn.residual"),))
    assert alternate(residual(), repeat=1).args == {"repeat": 1}
    assert classifier(head=None, body=residual()) == classifier(body=residual())  # None is the default
    given = [8, [1]]
    tree = part("cnn.residual", widths=given)
    given[1].append(2)  # type: ignore[attr-defined]
    assert tree.args == {"widths": [8, [1]]}
    assert part("hybrid.classifier", body={"use": "cnn.residual"}) == classifier(body=residual())


def test_the_combinators_have_the_signatures_of_their_factories() -> None:
    for name, function in (("alternate", alternate), ("joint", joint)):
        factory = import_factory(load_registry().component(f"hybrid.{name}").factory, name)
        theirs = {p.name: (p.annotation, p.default) for p in inspect.signature(factory).parameters.values()}
        ours = {p.name: (p.annotation, p.default) for p in inspect.signature(function).parameters.values()}
        assert ours.pop("parts") == ("Node", inspect.Parameter.empty)
        assert ours == {key: value for key, value in theirs.items() if key not in GIVEN["combinator"]}
        said = (factory.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
        assert said in (function.__doc__ or "")


def test_the_python_of_the_documentation_is_its_toml() -> None:
    text = (ROOT / "docs" / "mix.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    table = tomllib.loads(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    calls = {"part": part, "alternate": alternate, "joint": joint, "create": create}
    names = {"zoo": SimpleNamespace(**calls, train=lambda tree, **options: (tree, options))}
    exec(first.replace("import zoo\n", ""), names)
    assert classifier(body=names["tree"]) == node_from_table(table["models"]["my-hybrid"]["build"], "build")
    assert names["model"](torch.zeros(1, 3, 8, 8)).shape == (1, 10)  # type: ignore[operator]
    exec(second, names)
    assert create(names["tree"], num_classes=10, image_size=32) is not None  # type: ignore[arg-type]


# ---- what is wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: part("cnn.residul"), UnknownNameError, "did you mean cnn.residual"),
        (lambda: part("cnn.residual", width=[3]), InputError, "takes no argument 'width'; allowed: widths"),
        (lambda: residual(channels=3), InputError, "takes no argument 'channels'"),
        (lambda: part("timm.model"), InputError, "needs the argument 'name'"),
        (lambda: part("cnn.residual", widths=None), InputError, "TOML cannot hold; leave the argument out"),
        (lambda: part("cnn.residual", widths={3}), InputError, "is of type set; allowed: a bool, a number"),
        (lambda: part("cnn.residual", widths=[[residual()]]), InputError, "list in a list has components in it"),
        (lambda: part("cnn.residual", widths={"a": [residual()]}), InputError, "widths is a table with a tree in it"),
        (lambda: classifier(head=pool), InputError, "'hybrid.pool' itself; call it, with or without arguments: pool()"),
        (lambda: residual(image()), InputError, "parts are for combinators"),
        (lambda: alternate(), InputError, "needs its parts"),
        (lambda: part("hybrid.alternate", of=[residual()]), InputError, "its parts come first"),
        (lambda: alternate("cnn.residual"), InputError, "is no tree but str; write zoo\\.part"),
        (lambda: joint(residual(), pool()), InputError, "'hybrid.pool' is a head; expected a part or a combinator"),
        (lambda: part("loggers.wandb"), InputError, "is a listener; a model's tree is made of"),
        (lambda: create(pool(), **SMALL), InputError, "is a head; a model is a classifier, a part or a combinator"),
        (lambda: create(pool, **SMALL), InputError, "call it"),
        (lambda: create(residual(widths="3"), **SMALL), InputError, r"build\.body\.widths: expected a list"),
        (lambda: residual().to_toml("My Model"), InputError, "is no name of a model"),
        (lambda: entry_of(residual(), name="resnet9"), InputError, "has another model named 'resnet9'"),
    ],
)
def test_a_mistake_is_named(make, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make()


def test_a_tree_that_no_file_could_hold_is_refused_when_it_is_made() -> None:
    tree = Node("cnn.residual")
    for _ in range(31):
        tree = Node("hybrid.alternate", of=(tree,))
    assert alternate(tree).of == (tree,)
    with pytest.raises(SpecError, match="nested more than 32 components"):
        alternate(alternate(tree))


# ---- models -----------------------------------------------------------------------------------


def test_any_part_mixes_with_any_other_in_one_line() -> None:
    model = create(alternate(residual(widths=[4]), image(mlp=8)), num_classes=5, image_size=32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    whole = create(classifier(body=residual(widths=[4]), head=scaled_head()), in_channels=1, **SMALL)
    assert whole(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_seed_gives_the_weights_of_the_toml_and_of_a_training(tmp_path: Path) -> None:
    tree = alternate(residual(widths=[4]), part("cnn.depthwise", kernel=3))
    (tmp_path / "mine.toml").write_text(tree.to_toml("mine", summary='a "mixture"', dataset="digits"))
    before = torch.random.get_rng_state()
    weights = create(tree, seed=3, **SMALL).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    entry = entry_of(tree, load_registry())
    plan = resolve(Request(model="", dataset="digits", seed=3, device="cpu"), entry=entry)
    assert plan.record.model == entry[1] == f"alternate-{entry[1][-6:]}"
    assert plan.record.recipe == "default"
    assert plan.record.build == classifier(body=tree).to_table()
    for other in (create(f"{tmp_path / 'mine.toml'}#mine", seed=3).state_dict(), plan.build().state_dict()):
        assert list(other) == list(weights)
        assert all(torch.equal(other[key], value) for key, value in weights.items())
    others = create(tree, seed=4, **SMALL).state_dict()
    assert any(not torch.equal(others[key], value) for key, value in weights.items())


def test_two_trees_are_two_models() -> None:
    names = {entry_of(tree)[1] for tree in (residual(), residual(widths=[8]), residual(widths=(8,)), classifier())}
    assert len(names) == 3
    registry, name, model = entry_of(residual(), name="mine")
    assert (registry.model(name), model.summary) == (model, "hybrid.classifier (cnn.residual)")
    same = load_registry().model("resnet9").build
    assert entry_of(same, name="resnet9")[1] == "resnet9"


def test_the_text_of_a_tree_is_a_model_that_the_command_shows(tmp_path: Path) -> None:
    tree, file = in_python()["cnn-vit"], tmp_path / "mine.toml"
    body = alternate(residual(), joint(residual(widths=[8]), image()), repeat=2)
    mine = tree.to_toml("mine", summary="one\\two", family="mine", recipe="fine-tune")
    file.write_text(mine + body.to_toml("a.b"))
    registry, _, model = find_model(f"{file}#mine")
    assert (model.build, model.summary, model.family, model.recipe) == (tree, "one\\two", "mine", "fine-tune")
    assert registry.model("a.b") == as_model(body, registry)
    shown = CliRunner().invoke(cli, ["info", f"{file}#a.b", "--tree"])
    assert shown.exit_code == 0
    assert "body: hybrid.alternate  repeat=2" in shown.stdout


def test_a_tree_is_drawn_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = alternate(residual(), image(), repeat=2)
    shown = tree._repr_html_()
    drawn = re.fullmatch(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]*)">', shown)
    assert drawn
    assert drawn[1] == "hybrid.alternate (cnn.residual → vit.image) × 2"
    assert b"</svg>" in base64.b64decode(drawn[2])
    model = as_model(tree, load_registry())
    assert model._repr_html_() == model.build._repr_html_()

    def broken(*_: object) -> bytes:
        raise RuntimeError

    monkeypatch.setattr("zoo.catalogue.picture.as_svg", broken)
    hostile = Node("cnn.residual", {"widths": "<script>"})
    assert alternate(residual())._repr_html_() == "<pre>hybrid.alternate\n└─ cnn.residual</pre>"
    assert hostile._repr_html_() == "<pre>cnn.residual  widths=&lt;script&gt;</pre>"


# ---- the plugins' own names --------------------------------------------------------------------


@pytest.mark.parametrize("plugin", PLUGINS)
def test_each_component_of_ours_can_be_imported_and_its_stub_is_true(plugin: str) -> None:
    module = importlib.import_module(f"zoo_{plugin}")
    offered = [c for c in module.zoo_components() if c.kind in GIVEN]
    for component in offered:
        name = component.name.replace("-", "_")
        made = getattr(module, name)
        assert isinstance(made, Name)
        assert made.use == f"{plugin}.{component.name}"
        assert name in dir(module)
    stub = Path(module.__file__ or "").with_suffix(".pyi")
    assert stub.read_text() == stubs.stub_of(f"zoo_{plugin}"), (
        f"write it again: python -m zoo.plugin.stubs zoo_{plugin}"
    )
    assert stubs.shadowed(f"zoo_{plugin}") == []
    assert (stub.parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_a_name_tells_a_notebook_what_it_takes() -> None:
    assert str(inspect.signature(residual)) == "(*, widths: Sequence[int] = (32, 32, 128, 128)) -> zoo.plugin.node.Node"
    assert str(inspect.signature(zoo_hybrid.alternate)).startswith("(*of: Node, repeat: int = 1, residual: bool = ")
    assert (inspect.getdoc(residual) or "").startswith("Residual layers at full resolution")
    assert "channels:" not in (inspect.getdoc(residual) or "")
    assert repr(scaled_head) == "<head cnn.scaled-head: call it for a node of a tree>"


def test_the_names_of_a_plugin_import_no_torch() -> None:
    for name in PLUGINS:
        source = (ROOT / "plugins" / f"zoo_{name}" / "__init__.py").read_text()
        tops = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
        assert {node.module for node in tops} == {"__future__", "zoo.plugin"}


def test_type_checkers_see_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    (tmp_path / "mypy.ini").write_text(MYPY)
    monkeypatch.setenv("MYPYPATH", f"{ROOT / 'plugins'}:{ROOT}")
    lines = {
        "from zoo_cnn import residual, scaled_head": "",
        "from zoo_hybrid import alternate, classifier": "",
        "from zoo_vit import image": "",
        "tree = alternate(residual(widths=(32, 64)), image(depth=1, read='patches'), repeat=2)": "",
        "classifier(body=tree, head=scaled_head(scale=None)).to_toml()": "",
        "residual(width=[3])": 'Unexpected keyword argument "width"',
        "alternate(tree, 3)": 'expected "Node"',
        "image(read='imag')": "expected \"Literal['image', 'patches']\"",
        "from zoo_cnn import residul": 'has no attribute "residul"',
    }
    file = tmp_path / "mine.py"
    file.write_text("\n".join(lines) + "\n")
    out, _, _ = api.run([f"--config-file={tmp_path / 'mypy.ini'}", "--cache-dir", str(tmp_path / "cache"), str(file)])
    said = dict(re.findall(r"mine\.py:(\d+): error: (.*)", out))
    for number, expected in enumerate(lines.values(), 1):
        assert expected in said.get(str(number), "") if expected else str(number) not in said, out


@pytest.mark.parametrize("family", [name for name, family in families().items() if family.kind in GIVEN])
def test_the_stub_of_a_generated_plugin_is_true(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_plugin(f"fresh-{family}", family, tmp_path / family)
    monkeypatch.syspath_prepend(folder / "src")
    module = f"zoo_fresh_{family}"
    assert (folder / "src" / module / "__init__.pyi").read_text() == stubs.stub_of(module)
    assert stubs.shadowed(module) == []
    rows = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == [3] * len(rows)
    assert any("`python -m zoo.plugin.stubs" in row for row in rows)


def test_the_stub_of_the_example_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples" / "zoo-fourier" / "src")
    assert (ROOT / "examples/zoo-fourier/src/zoo_fourier/__init__.pyi").read_text() == stubs.stub_of("zoo_fourier")


# ---- strangers ---------------------------------------------------------------------------------

STRANGER = """
from zoo.plugin import Component, named, offers

FACTORY = "zoo_waves_parts:same"
zoo_components = offers(Component("two-fold", "part", FACTORY), Component("9th", "part", FACTORY))
__getattr__, __dir__ = named(__name__, "waves", zoo_components)
helper = 3
"""


@pytest.fixture
def waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stranger's package on the path, not installed as a plugin."""
    (tmp_path / "zoo_waves").mkdir()
    (tmp_path / "zoo_waves" / "__init__.py").write_text(STRANGER)
    (tmp_path / "zoo_waves_parts.py").write_text(PART)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("zoo_waves", "zoo_waves_parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("zoo_waves")


def test_a_strangers_names_take_one_line(waves: ModuleType) -> None:
    assert [name for name in dir(waves) if "fold" in name or "9" in name] == ["two_fold"]
    assert str(inspect.signature(waves.two_fold)).startswith("(*of, **arguments)")
    with pytest.raises(UnknownNameError, match=r"no component named 'waves\.two-fold'"):
        waves.two_fold()
    text = stubs.stub_of("zoo_waves")
    assert "def two_fold(*, gain: float = 1.0) -> Node:" in text
    assert "helper: Any\n" in text
    stubs.main(["zoo_waves"])
    assert Path(waves.__file__ or "").with_suffix(".pyi").read_text() == text
    assert str(inspect.signature(waves.two_fold)).startswith("(*, gain: float = 1.0)")


def test_what_a_stub_cannot_be_written_of_is_said(waves: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has no line"):
        stubs.stub_of("zoo_waves_parts")
    with pytest.raises(InputError, match="cannot import 'zoo_wave'"):
        stubs.stub_of("zoo_wave")
    monkeypatch.delattr(sys.modules["zoo_waves_parts"], "same")
    with pytest.raises(PluginError, match="cannot import 'zoo_waves_parts:same'"):
        stubs.stub_of("zoo_waves")


def test_the_kit_holds_names_and_stub_true(waves: ModuleType) -> None:
    record = PluginRecord(name="waves", distribution="zoo-waves", version="1", module="zoo_waves", status="loaded")
    package = Path(waves.__file__ or "").parent
    assert "no __init__.pyi; write it by `python -m zoo.plugin.stubs zoo_waves`" in check_names(record)
    stubs.main(["zoo_waves"])
    assert check_names(record) == "1 name, and what each takes"
    stub = package / "__init__.pyi"
    stub.write_text(stub.read_text().replace("gain: float", "gain:\\\n  float"))
    assert check_names(record) == "1 name, and what each takes"  # how it is laid out is its author's choice
    stub.write_text(stub.read_text().replace("gain", "loss"))
    with pytest.raises(Failed, match="says something else than the factories"):
        check_names(record)
    vars(waves)["two_fold"] = None  # as by an import in __init__.py: `from zoo_waves import two_fold` would give that
    with pytest.raises(Failed, match="something else in zoo_waves are both named 'two_fold'; rename that"):
        check_names(record)
    del vars(waves)["two_fold"]
    (package / "two_fold.py").write_text("")
    with pytest.raises(Failed, match="something else in zoo_waves are both named 'two_fold'; rename that"):
        check_names(record)
    with pytest.raises(Failed, match="says that the plugin is 'waves'; its entry point is 'other'"):
        check_names(msgspec.structs.replace(record, name="other"))


def test_two_components_with_one_name_in_python_are_found() -> None:
    made = [Component(name=name, kind="part", factory="m:f") for name in ("two-fold", "two_fold", "other")]
    assert stubs.twice(Names("zoo_waves", "waves", lambda: made)) == ["two_fold"]


def test_the_kit_checks_names_where_there_are_some() -> None:
    assert [case.check for case in cases_of("mixer")][:2] == ["listing", "names"]
    assert "names" not in {case.check for case in cases_of("loggers")}
