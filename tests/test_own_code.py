"""Models, recipes, batches and listeners of one's own, without a package."""

from __future__ import annotations

import functools
import importlib
import linecache
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from own_things import ARRAYS, NETS, plan_with, train, write_nets
from torch import Tensor, nn

import zoo
from zoo.catalogue.own_code import in_file, of_object
from zoo.catalogue.own_model import own_model
from zoo.catalogue.registry import find_model, load_registry
from zoo.catalogue.source_text import excerpt
from zoo.errors import InputError, RunError, ShapeError, SpecError, ZooError, ZooWarning
from zoo.hub.pack import package
from zoo.models.own_module import own_of
from zoo.runs.folder import read_weights
from zoo.runs.load import load
from zoo.runs.own_source import _remembered, with_model
from zoo.runs.record import configuration, read_record
from zoo.train.events import Listener
from zoo.train.given import again
from zoo.train.listeners import attach_objects
from zoo.train.runner import Watch, train_in
from zoo.train.start import continued, plan_from


class Home:
    """A folder with the user's file, and runs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, write_nets(folder / "code")

    def run(self, name: str, model: Any = None, *, steps: int | None = None, **given: Any) -> Path:
        """A run of this name; trained once."""
        folder = self.folder / "runs" / name
        if not folder.exists():
            train(folder, plan_with(model or f"{self.file}:MyNet", **given), steps=steps)
        return folder

    @property
    def nets(self) -> ModuleType:
        """The file as a module that a program imported."""
        if str(self.file.parent) not in sys.path:
            sys.path.insert(0, str(self.file.parent))
        return importlib.import_module("my_nets")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, plugin_index: Path) -> Iterator[Home]:
    folder, path = tmp_path_factory.mktemp("own"), list(sys.path)
    shutil.copytree(plugin_index, folder / "cache")
    yield Home(folder)
    sys.path[:] = path
    for name in ("my_nets", "net_blocks"):
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def one_cache(own_folders: None, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of this file have one cache, so that what ran in one test is known in the next."""
    monkeypatch.setenv("ZOO_CACHE_DIR", str(home.folder / "cache"))


def equal(one: Path, other: Path) -> bool:
    first, second = read_weights(one), read_weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def resume(folder: Path, **given: Any) -> list[str]:
    """Resume a run to its end; returns the warnings."""
    said: list[str] = []
    train_in(folder, continued(folder, warn=said.append, given=again(**given)), Watch())
    return said


def copied(run: Path, folder: Path) -> Path:
    """A run folder in another place, as a stranger sends it."""
    shutil.copytree(run, folder)
    return folder


# ---- training and opening -----------------------------------------------------------------------------


def test_a_file_and_the_class_in_it_give_the_same_run_bit_by_bit(home: Home) -> None:
    one, other = home.run("file"), home.run("class", home.nets.MyNet)
    assert equal(one, other)
    records = [read_record(run) for run in (one, other)]
    assert configuration(records[0]) == configuration(records[1])
    part = records[0].own[0]
    assert (part.use, part.kind, part.attribute, part.file) == ("own.MyNet", "classifier", "MyNet", str(home.file))
    assert (one / part.copy).read_text() == NETS
    assert part.beside.keys() == {"net_blocks.py"}
    assert records[0].model == "MyNet"


def test_a_run_is_opened_again_in_this_process_and_in_another(home: Home) -> None:
    run, images = home.run("file"), torch.ones(2, 3, 6, 6)
    with torch.no_grad():
        here = load(run, load_registry())(images).tolist()
    code = (
        "import sys, torch; from zoo.catalogue.registry import load_registry; from zoo.runs.load import load\n"
        "with torch.no_grad(): print(load(sys.argv[1], load_registry())(torch.ones(2, 3, 6, 6)).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(here)


@pytest.mark.parametrize(("name", "kind"), [("blur", "part"), ("patches", "stem")])
def test_a_part_and_a_stem_get_the_rest_of_a_classifier(name: str, kind: str, home: Home) -> None:
    run = home.run(name, f"{home.file}:{name}", epochs=1)
    assert load(run, load_registry())(torch.ones(1, 3, 6, 6)).shape == (1, 3)
    assert read_record(run).own[0].kind == kind


def test_arguments_that_were_given_by_partial_are_in_the_tree(home: Home) -> None:
    plan = plan_with(functools.partial(home.nets.MyNet, depth=3))
    assert plan.record.build == {"use": "own.MyNet", "depth": 3}
    assert len(plan.build().body) == 3


def test_a_ready_module_is_trained_as_a_copy_from_its_present_weights(home: Home) -> None:
    torch.manual_seed(5)
    module = home.nets.MyNet(3)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    plan = plan_with(module)
    assert all(torch.equal(value, before[key]) for key, value in plan.build().state_dict().items())
    run = train(home.folder / "runs" / "ready", plan)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not equal_to(run, before)
    as_in_another_process()
    with pytest.raises(InputError, match=r"MyNet was given ready: give it again by zoo.load\(.*, model=MyNet\)"):
        load(run, load_registry())
    registry = with_model(run, read_record(run), load_registry(), own_of(module))
    assert equal_to(run, dict(load(run, registry).state_dict()))


def equal_to(run: Path, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in read_weights(run).items())


@pytest.mark.slow
def test_a_ready_module_s_run_is_resumed_and_repeated_with_it_alone(home: Home) -> None:
    torch.manual_seed(6)
    module = home.nets.MyNet(3)
    whole, stopped = home.run("module", module), home.run("module-stopped", module, steps=3)
    assert resume(stopped, model=module) == []
    assert equal(whole, stopped)
    repeated = train(home.folder / "runs" / "module-again", plan_from(str(whole), {}, own=again(model=module)))
    assert equal(whole, repeated)
    with pytest.raises(InputError, match="cannot be repeated"):
        plan_from(str(whole), {}, own=again(model=home.nets.MyNet(3)))


# ---- what changed since -------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_with_its_own_copy_and_says_what_changed(home: Home, tmp_path: Path) -> None:
    file = write_nets(tmp_path)
    stopped = train(tmp_path / "run", plan_with(f"{file}:MyNet"), steps=3)
    then = in_file(f"{file}:MyNet").sha256
    file.write_text(NETS.replace("self.head(", "0 * self.head("))
    now = in_file(f"{file}:MyNet").sha256
    with pytest.warns(ZooWarning, match="has changed since this run"):
        load(stopped, load_registry())
    (line,) = resume(stopped)
    assert f"{file} has changed since this run (sha256 {now[:12]} now, {then[:12]} then)" in line
    assert "the run's own copy of it is used" in line
    assert equal(stopped, home.run("file"))


def test_a_file_beside_it_that_changed_is_said_and_a_missing_file_is_not(home: Home, tmp_path: Path) -> None:
    file = write_nets(tmp_path)
    stopped = train(tmp_path / "run", plan_with(f"{file}:MyNet"), steps=3)
    (tmp_path / "net_blocks.py").write_text("block = None\n")
    assert "imports net_blocks.py, which has changed since this run" in warned(stopped)
    file.unlink()
    assert resume(stopped) == []
    assert equal(stopped, home.run("file"))


def warned(run: Path) -> str:
    with pytest.warns(ZooWarning) as caught:
        load(run, load_registry())
    return str(caught[0].message)


def test_other_code_that_is_given_again_is_used_and_said(home: Home, tmp_path: Path) -> None:
    stopped = home.run("stopped", steps=3)
    changed = write_nets(tmp_path / "code")
    changed.write_text(NETS + "\n# changed\n")
    lines: list[str] = []
    plan = continued(stopped, given=again(model=f"{changed}:MyNet"), warn=lines.append)
    assert any("own.MyNet: from own " in line and "will not be bit-identical" in line for line in lines)
    assert plan.record.own[0].file == str(changed)
    assert plan.record.own[0].sha256 == in_file(f"{changed}:MyNet").sha256
    with pytest.raises(InputError, match="was made of a classifier"):
        continued(stopped, given=again(model=f"{home.file}:blur"))


# ---- code of strangers --------------------------------------------------------------------------------


def test_code_in_a_stranger_s_run_folder_is_not_run(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_nets(tmp_path / "theirs")
    file.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n{NETS}")
    run = train(tmp_path / "run", plan_with(f"{file}:MyNet", epochs=1))
    (tmp_path / "ran").unlink()
    forget_modules()
    home_cache = home.folder / "cache"
    shutil.copytree(home_cache, tmp_path / "cache", ignore=shutil.ignore_patterns("own-code"))
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"my_nets.py: code that has not run on this machine before, .*zoo info"):
        load(run, load_registry())
    assert not (tmp_path / "ran").exists()
    registry, _, model = find_model(f"{run / 'source' / 'my_nets.py'}:MyNet")
    registry.component(model.build.use).factory.load()  # type: ignore[attr-defined]
    assert load(run, load_registry())(torch.ones(1, 3, 6, 6)).shape == (1, 3)


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("zoo_own_")]:
        del sys.modules[name]


def test_a_copy_that_was_changed_and_a_package_with_code_are_refused(home: Home, tmp_path: Path) -> None:
    run = copied(home.run("file"), tmp_path / "changed")
    (run / "source" / "my_nets.py").write_text("raise SystemExit\n")
    with pytest.raises(RunError, match=r"my_nets.py: was changed after the run \(sha256 "):
        load(run, load_registry())
    (run / "source" / "my_nets.py").unlink()
    with pytest.raises(RunError, match=r"my_nets.py: is missing"):
        load(run, load_registry())
    forged = copied(home.run("file"), tmp_path / "forged")
    (forged / "config.json").write_text("{}")
    with pytest.raises(RunError, match="no code is run out of a package"):
        load(forged, load_registry())


def test_a_path_out_of_the_run_folder_is_refused(home: Home, tmp_path: Path) -> None:
    run = copied(home.run("file"), tmp_path / "run")
    toml = run / "run.toml"
    toml.write_text(toml.read_text().replace('copy = "source/my_nets.py"', 'copy = "../code/my_nets.py"'))
    with pytest.raises(RunError, match="leads out of the run folder"):
        load(run, load_registry())


def test_a_package_of_it_is_refused_before_anything_is_measured(home: Home, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"zoo new plugin NAME --from {home.file}:MyNet"):
        package(home.run("stopped", steps=3), tmp_path / "package")


def test_runs_without_code_of_one_s_own_are_recorded_as_before() -> None:
    plan = plan_with("cnn-baseline", image_size=8)
    assert not plan.record.own
    assert "own" not in msgspec.to_builtins(plan.record)


# ---- finding it ---------------------------------------------------------------------------------------


def test_a_file_is_looked_at_without_running_it(tmp_path: Path) -> None:
    file = tmp_path / "loud.py"
    file.write_text("raise SystemExit\nclass Loud:\n    '''Is loud.'''\n    def __init__(self, num_classes): ...\n")
    registry, name, model = find_model(f"{file}:Loud")
    assert (name, model.build.use, model.summary) == ("Loud", "own.Loud", "Is loud")
    assert registry.component("own.Loud").kind == "classifier"
    assert registry.model("Loud") == model


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyNut", "has no 'MyNut'; did you mean .*my_nets.py:MyNet?"),
        ("", "which class or function of it; write .*:NAME; it has MyNet, blur, patches, odd"),
        ("odd", "my_nets.py:odd: takes n, so that it cannot be built for a dataset; let it take in_channels, height"),
        ("mixed", "my_nets.py:mixed: takes parts, as a combinator"),
        ("block", "my_nets.py:block: takes before, after, so that"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_in_one_line(name: str, message: str, home: Home) -> None:
    with pytest.raises(InputError, match=message):
        find_model(f"{home.file}:{name}")


def test_what_fails_when_it_is_built_is_said_with_its_line(home: Home) -> None:
    with pytest.raises(InputError, match=r"own.breaks\): 'mine' \(KeyError in my_nets.py, line 3"):
        plan_with(f"{home.file}:breaks")
    with pytest.raises(ShapeError, match=r"own.flat\): gives \(4,\) for each image, expected \(3,\)"):
        plan_with(f"{home.file}:flat")
    with pytest.raises(ShapeError, match=r"own.MyNet\): gives \(7,\) for each image, expected \(3,\)"):
        plan_with(home.nets.MyNet(7))
    with pytest.raises(InputError, match="a model of type int cannot be trained"):
        plan_with(3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", "own.py: line 1: '\\(' was never closed"),
        ("import nowhere_at_all\ndef net(num_classes): ...\n", "cannot be imported: line 1: ModuleNotFoundError"),
        ("net = 3\n", "own.py:net: is no class and no function"),
        (
            "def net(num_classes): ...\nfrom zoo.train.start import plan_of\nplan_of(None)\n",
            "if __name__ == '__main__'",
        ),
    ],
)
def test_a_file_that_cannot_be_run_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ZooError, match=message) as caught:
        plan_with(f"{tmp_path / 'own.py'}:net")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the file '.*nowhere.py' does not exist; write FILE.py:NAME"):
        find_model(f"{tmp_path}/nowhere.py:Net")


SCRIPT = """\
import sys
import torch
from torch import nn

SIZE = 4

def width(n):
    return n * SIZE

@torch.no_grad()
def unused():
    sys.exit(3)

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        x = width(1)

x = unused()
if __name__ == "__main__":
    width = None
"""


def test_of_a_script_only_what_the_class_needs_is_kept() -> None:
    kept = excerpt(SCRIPT, "Net")
    lines = [line for line in SCRIPT.splitlines() if line]
    expected = [lines[2], *lines[3:6], *lines[9:13]]
    assert [line for line in kept.splitlines() if line] == expected
    assert kept.splitlines().index("class Net(nn.Module):") == SCRIPT.splitlines().index("class Net(nn.Module):")
    assert "@torch.no_grad()" in excerpt(SCRIPT, "unused")


def test_a_class_that_was_typed_in_must_be_given_again(home: Home) -> None:
    text = "from torch import nn\nclass Typed(nn.Sequential):\n    def __init__(self, num_classes):\n"
    text += "        super().__init__(nn.Flatten(), nn.Linear(108, num_classes))\n"
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell 1>", "exec"), space)
    linecache.cache["<cell 1>"] = (len(text), None, text.splitlines(keepends=True), "<cell 1>")
    run = home.run("typed", space["Typed"], steps=3)
    assert (run / read_record(run).own[0].copy).read_text() == text
    as_in_another_process()
    with pytest.raises(
        InputError, match=r"Typed was typed in, or given arguments that no file holds: give it again by zoo.load\("
    ):
        continued(run)
    assert resume(run, model=space["Typed"]) == []


def test_a_width_without_a_height_is_no_image_s(home: Home) -> None:
    made = own_model(f"{home.file}:MyNet").code.load()
    assert made(in_channels=3, height=6, width=6, num_classes=2).head.in_features == 4
    assert of_object(home.nets.MyNet).digest == in_file(f"{home.file}:MyNet").digest


# ---- recipes, batches, listeners ----------------------------------------------------------------------


def test_a_recipe_may_be_a_table_or_taken_whole(home: Home) -> None:
    model = f"{home.file}:MyNet"
    usual = plan_with(model).recipe
    changed = plan_with(model, recipe={"lr": 0.5, "augment": []}).record
    assert (changed.recipe, changed.settings.lr, changed.settings.augment) == ("default", 0.5, ())
    assert changed.settings.weight_decay == usual.weight_decay
    extended = plan_with(model, recipe={"extends": "fine-tune", "lr": 0.5}).record
    assert (extended.recipe, extended.settings.lr) == ("fine-tune", 0.5)
    whole = plan_with(model, recipe=changed.settings, lr=0.25).record
    assert (whole.recipe, whole.settings.lr, whole.settings.augment) == ("own", 0.25, ())
    with pytest.raises(SpecError, match=r"recipe: unknown key 'weight_decy'; did you mean weight_decay\?"):
        plan_with(model, recipe={"weight_decy": 1})
    with pytest.raises(SpecError, match=r"recipe default.lr: expected `float`"):
        plan_with(model, recipe={"lr": "fast"})
    with pytest.raises(InputError, match="recipe: of type int; give a name, a table of its keys, or a Recipe"):
        plan_with(model, recipe=3)


def noisy(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Noise from torch's generator."""
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    return (images / 255 + 0.1 * torch.rand(images.shape)).clamp(0, 1), labels


def test_a_function_changes_the_batches_and_a_resumed_run_does_so_alike(home: Home) -> None:
    whole, stopped = home.run("noisy", augment=noisy), home.run("noisy-stopped", augment=noisy, steps=3)
    assert not equal(whole, home.run("file"))
    with pytest.raises(InputError, match=r"changed its batches by noisy, .*zoo.resume\(RUN, augment=noisy\)"):
        continued(stopped)
    assert resume(stopped, augment=noisy) == []
    assert equal(whole, stopped)
    part = read_record(whole).own[1]
    assert (part.kind, part.attribute) == ("augment", "noisy")
    assert (whole / part.copy).read_text() == Path(__file__).read_text()
    with pytest.raises(InputError, match="the run was made without noisy"):
        continued(home.run("stopped", steps=3), given=again(augment=noisy))


def test_another_function_than_before_is_said(home: Home) -> None:
    lines: list[str] = []
    continued(home.run("noisy-other", augment=noisy, steps=0), given=again(augment=torch.abs), warn=lines.append)
    assert any("augment abs has changed since the run was made (sha256 " in line for line in lines)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images, labels: images[:, :, :2], r"made \(2, 3, 2, 6\) of images \(2, 3, 6, 6\); the shape must stay"),
        (lambda images, labels: images.long(), "returned images of torch.int64; give uint8, or floats of 0..1"),
        (lambda images, labels: (images, labels.float()), r"returned labels \(2,\) of torch.float32"),
        (lambda images, labels: None, "returned NoneType; give the images"),
        (lambda images: images, "failed: TypeError"),
        (3, "of type int; give a function"),
    ],
)
def test_a_function_that_makes_no_batch_is_refused_before_the_run(function: Any, message: str, home: Home) -> None:
    with pytest.raises(InputError, match=message):
        plan_with(f"{home.file}:MyNet", augment=function)


class Diary:
    """A listener with some of the methods."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def start(self, record: dict[str, Any], parameters: int) -> None:
        self.told.append((record["model"], parameters))

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        self.told.append(row.pop("epoch"))


class Faulty:
    def epoch(self, row: dict[str, Any], best: bool) -> None:
        raise ConnectionError("the server is down")


def test_listeners_are_told_and_a_failing_one_ends_nothing(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    diary, said = Diary(), []
    folder = home.folder / "runs" / "told"
    listener = attach_objects(Listener(), [Faulty(), diary], said.append)
    train_in(folder, plan_with(f"{home.file}:MyNet"), Watch(listener=listener))
    assert diary.told == [("MyNet", 127), 1, 2]
    assert said == [
        "listener Faulty failed and was switched off; the run continues (ConnectionError: the server is down)"
    ]
    assert equal(folder, home.run("file"))
    for wrong in (Diary, object()):
        with pytest.raises(InputError, match=r"listeners: give objects with any of start\(record, parameters\)"):
            attach_objects(Listener(), [wrong], said.append)


def test_the_arrays_are_as_they_were() -> None:
    assert ARRAYS[0][0].dtype == "uint8"


def as_in_another_process() -> None:
    """Forget what this process was given for runs."""
    _remembered.cache_clear()


def test_code_that_was_typed_in_is_known_to_this_process_and_is_given_again_to_another(tmp_path: Path) -> None:
    typed: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(TYPED, "<cell>", "exec"), typed)
    run = zoo.train(typed["Typed"], dataset="digits", max_steps=1, limit_train=60, limit_test=30, output=tmp_path / "a")
    assert run.evaluate().same_as_recorded
    shown = zoo.load(run).predict(np.zeros((8, 8), np.uint8), top=1)
    as_in_another_process()
    with pytest.raises(InputError, match=r"give it again by zoo\.load\(.*, model=Typed\)"):
        run.evaluate()
    assert zoo.load(run, model=typed["Typed"]).predict(np.zeros((8, 8), np.uint8), top=1) == shown
    assert run.evaluate().same_as_recorded
    with pytest.raises(RunError, match="does not fit"):
        zoo.load(run, model=nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)))


TYPED = """
from torch import nn


class Typed(nn.Module):
    def __init__(self, *, in_channels, height, width, num_classes):
        super().__init__()
        self.rows = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * height * width, num_classes))

    def forward(self, images):
        return self.rows(images)
"""
