"""`zoo sweep`: validation alone decides, a killed sweep goes on, and the best trial is a recipe."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from zoo.base.reporter import Reporter
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import DataError, InputError
from zoo.studies.sweep.outcome import as_toml
from zoo.studies.sweep.space import parse_space
from zoo.studies.sweep.trials import Search, _revive, open_study, plan_of, work
from zoo.train.run_options import Request

optuna = pytest.importorskip("optuna", reason="needs Optuna: pip install -e '.[sweep]'")

BASE = ("sweep", "cnn-baseline-bn", "--dataset", "digits", "--limit-train", "200", "--output", "found")
GRID = (*BASE, "--epochs", "2", "--grid", "lr=1e-3,1e-2", "--grid", "build.dropout=0.0,0.1")
RANGES = ("--sample", "lr=log:1e-4..1e-1", "--sample", "batch_size=16..64")
DRAWN = (*BASE, "--epochs", "12", *RANGES, "--trials", "3")


class Said(Reporter):
    """Keeps what is said."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def say(self, line: str) -> None:
        self.lines.append(line)


def zoo(*words: str) -> None:
    cli.main(list(words), standalone_mode=False)


def trials(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "found" / "sweep.json").read_text())["trials"]
    return sorted(found, key=lambda trial: trial["folder"])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished grid, and what it printed."""
    base = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(base)
        patch.setenv("ZOO_CACHE_DIR", str(base / "cache"))
        zoo(*GRID)
    return base, printed.getvalue()


def test_a_grid_tries_every_combination_once(swept: tuple[Path, str]) -> None:
    found = [(t["changes"]["recipe.lr"], t["changes"]["build.dropout"]) for t in trials(swept[0])]
    assert found == [(1e-3, 0.0), (1e-3, 0.1), (1e-2, 0.0), (1e-2, 0.1)]


def test_validation_decides_and_no_trial_has_a_test_result(swept: tuple[Path, str]) -> None:
    base, _ = swept
    for trial in trials(base):
        folder = base / "found" / trial["folder"]
        result = json.loads((folder / "result.json").read_text())
        assert result["protocol"] == "clean"
        assert result["test"] is None
        assert result["validation"]["top1"] == trial["top1"]
        assert tomllib.loads((folder / "run.toml").read_text())["data"]["test"] == 0
        assert "test" not in (folder / "metrics.jsonl").read_text()


def test_the_outcome_is_a_recipe_that_the_catalogue_takes(swept: tuple[Path, str], tmp_path: Path) -> None:
    base, printed = swept
    best = max(trials(base), key=lambda trial: trial["top1"])
    file = tmp_path / "mine.toml"
    file.write_text(printed)
    registry = load_registry(extra=(file,))
    recipe = registry.recipe("cnn-baseline-bn-swept")
    assert (recipe.lr, recipe.epochs, recipe.source) == (best["changes"]["recipe.lr"], 2, "cnn-to-others")
    assert "validation" in recipe.summary
    model = registry.model("cnn-baseline-bn-swept")
    assert model.build.args == {"batch_norm": True, "dropout": best["changes"]["build.dropout"]}
    assert printed == (base / "found" / "recipe.toml").read_text()


def test_a_sweep_from_best_extends_that_recipe_by_its_name(tmp_path: Path) -> None:
    registry = load_registry()
    space = parse_space(["lr=0.01"], [])
    sweep = Search(
        request=Request(model="cnn-baseline-bn", recipe="best"), space=space, folder="f", storage="s", trials=1
    )
    printed = as_toml(sweep, registry, "cnn-baseline-bn", {"changes": {"recipe.lr": 0.01}, "top1": 0.5}, 1)
    (tmp_path / "mine.toml").write_text(printed)
    recipe = load_registry(extra=(tmp_path / "mine.toml",)).recipe("cnn-baseline-bn-swept")
    assert (recipe.lr, recipe.precise_bn) == (0.01, registry.recipe("best-small-cnn-bn").precise_bn)


def test_the_outcome_trains_as_its_trial_did(tmp_path: Path) -> None:
    registry = load_registry()
    sweep = Search(
        request=Request(model="resnet9", dataset="digits", epochs=1, settings=("epochs=2",)),
        space=parse_space(["lr=0.01"], []),
        folder=str(tmp_path),
        storage="s",
        trials=1,
    )
    changes = {"recipe.lr": 0.01}
    trial = plan_of(sweep, (registry, "resnet9", registry.model("resnet9")), changes).recipe
    assert [type(step).__name__ for step in trial.augment] == ["Crop"]  # as digits are
    for name in ("resnet9-swept", "resnet9-swept-2"):  # the second goes on from the first
        printed = as_toml(sweep, registry, "resnet9", {"changes": changes, "top1": 0.5}, 1)
        with (tmp_path / "mine.toml").open("a") as file:
            file.write(printed)
        registry = load_registry(extra=(tmp_path / "mine.toml",))
        found = registry.recipe(name)
        assert msgspec.structs.replace(found, summary=trial.summary, source=trial.source) == trial
        request = msgspec.structs.replace(sweep.request, recipe=name)
        sweep = msgspec.structs.replace(sweep, request=request)


def test_what_mattered_is_drawn(swept: tuple[Path, str]) -> None:
    base, _ = swept
    mattered = json.loads((base / "found" / "sweep.json").read_text())["importance"]
    assert set(mattered) == {"recipe.lr", "build.dropout"}
    assert sum(mattered.values()) == pytest.approx(1)
    assert (base / "found" / "importance.png").stat().st_size > 5000
    assert "<svg" in (base / "found" / "importance.svg").read_text()


def test_the_same_command_again_trains_nothing(
    swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, printed = swept
    monkeypatch.chdir(base)
    before = trials(base)
    zoo(*GRID)
    said = capsys.readouterr()
    assert trials(base) == before
    assert said.out == printed
    assert "trial-0000:" not in said.err


def test_each_trial_says_when_it_begins_and_how_many_run_and_wait(tmp_path: Path) -> None:
    registry, said = load_registry(), []
    sweep = Search(
        request=Request(model="cnn-baseline", dataset="digits", epochs=1, limit_train=64, limit_test=10, device="cpu"),
        space=parse_space(["lr=0.01,0.02"], []),
        folder=str(tmp_path),
        storage=f"sqlite:///{tmp_path}/trials.db",
        trials=2,
    )
    work(sweep, (registry, "cnn-baseline", registry.model("cnn-baseline")), lambda: 0, Said(said))
    begun = [line for line in said if "begins" in line]
    assert begun == [
        "trial-0000: recipe.lr=0.01: begins; 0 trials finished, 1 running, 1 waiting",
        "trial-0001: recipe.lr=0.02: begins; 1 trial finished, 1 running, 0 waiting",
    ]


def test_a_folder_with_another_sweep_is_refused(swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept[0])
    with pytest.raises(InputError, match="contains another sweep"):
        zoo(*GRID[:-1], "build.dropout=0.0,0.2")


MINE = """
[recipes.mine]
extends = "cnn-to-others"
weight_decay = 0.01

[models.mine]
summary = "mine"
family = "cnn"
recipe = "mine"
dataset = "digits"
build = { use = "cnn.baseline" }
"""


def test_a_sweep_whose_names_mean_something_else_by_now_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("registry.toml")
    words = ("sweep", "mine", "--limit-train", "64", "--epochs", "1", "--output", "found", "--grid", "lr=1e-3,1e-2")
    file.write_text(MINE)
    zoo(*words, "--trials", "1")
    file.write_text(MINE.replace('summary = "mine"', 'summary = "in other words"'))
    zoo(*words, "--trials", "2")
    file.write_text(MINE.replace("0.01", "0.02"))
    with pytest.raises(InputError, match=r"trials.db: contains a sweep with what recipes.mine was before an edit"):
        zoo(*words)
    file.write_text(MINE.replace("0.01", "0.02").replace("cnn.baseline", "cnn.resnet9"))
    with pytest.raises(InputError, match=r"with what models.mine, recipes.mine were before an edit"):
        zoo(*words)


def test_a_sweep_whose_images_have_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("cat", "dog")):
        Path("images", name).mkdir(parents=True)
        for j in range(12):
            Image.new("RGB", (8, 8), (100 * i, 20 * j, 0)).save(f"images/{name}/{j}.png")
    words = ("sweep", "cnn-baseline", "--dataset", "folder:images", "--epochs", "1", "--output", "found")
    words = (*words, "--grid", "lr=1e-3,1e-2,1e-1", "--grid", "normalize=false,true", "--set", "batch_size=8")
    zoo(*words, "--trials", "5")
    Image.new("RGB", (8, 8), (9, 9, 9)).save("images/dog/new.png")
    with pytest.raises(DataError, match=r"folder:images: its images have changed since trial-000. was trained"):
        zoo(*words)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
def test_a_killed_sweep_goes_on_and_finds_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    cut.mkdir()
    whole.mkdir()
    words = (*DRAWN, "--checkpoint-seconds", "0.1")
    environment = {**os.environ, "ZOO_CACHE_DIR": str(cut / "cache")}
    with subprocess.Popen([sys.executable, "-m", "zoo", *words], cwd=cut, env=environment) as process:
        deadline = time.monotonic() + 120
        while not list(cut.glob("found/trial-0001/checkpoints/0*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (cut / "found" / "trial-0001" / "result.json").exists()
    for folder in (cut, whole):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            zoo(*words)
    assert "trial-0001: its process died; the trial is resumed" in capsys.readouterr().err
    assert (cut / "found" / "trial-0001" / "result.json").exists()
    keys = ("changes", "top1", "state")
    found = [sorted([str({k: t[k] for k in keys}) for t in trials(folder)]) for folder in (cut, whole)]
    assert len(found[0]) == 3
    assert found[0] == found[1]


def test_a_hopeless_trial_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = "lr=0.01,0.011,0.012,0.013,1e-9"
    zoo(*BASE, "--epochs", "8", "--grid", grid, "--prune", "--storage", "found/trials.journal", "--quiet")
    states = {trial["changes"]["recipe.lr"]: trial["state"] for trial in trials(tmp_path)}
    assert states.pop(1e-9) == "pruned"
    assert set(states.values()) == {"complete"}


def test_trials_that_fail_are_counted_and_the_first_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"no trial was completed: .*dropout"):
        zoo(*BASE, "--epochs", "1", "--grid", "build.dropout=1.5,2.5", "--quiet")


def test_a_sweep_without_its_data_goes_on_when_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "cnn-baseline", "--dataset", "folder:photos", "--output", "found", "--epochs", "1"]
    words += ["--grid", "lr=1e-3,3e-3", "--quiet"]
    with pytest.raises(InputError, match="no folder photos"):
        zoo(*words)
    for i in range(40):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 200 * (i % 2), 0)).save(folder / f"{i}.png")
    zoo(*words)
    assert [(t["state"], t["changes"]["recipe.lr"]) for t in trials(tmp_path)] == [
        ("complete", 1e-3),
        ("complete", 3e-3),
    ]


def test_a_trial_that_ended_while_others_looked_is_not_tried_again(tmp_path: Path) -> None:
    space = parse_space(["lr=1,2"], [])
    sweep = Search(
        request=Request(model="m"), space=space, folder=str(tmp_path), storage=str(tmp_path / "log"), trials=2
    )
    study = open_study(sweep)
    trial = study.ask()
    trial.suggest_categorical("recipe.lr", [1, 2])
    trial.set_user_attr("folder", "trial-0000")
    (tmp_path / "trial-0000").mkdir()
    (seen,) = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    study.tell(trial, 0.5)  # its process finishes, and lets the folder go
    said: list[str] = []
    _revive(sweep, study, seen, Said(said))
    assert said == []
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--grid", "model=1,2"], "model takes a name from the catalogue, not 1"),
        (["--sample", "recipe=1..3"], "recipe takes a name from the catalogue, not 1"),
        (["--grid", "lr=2020-01-01,1"], "lr=.*expected"),
        (["--grid", "lr=1e-3", "--recipe", "bset"], "no recipe named 'bset'"),
        (["--grid", "lr=1e-3", "--set", "lrr=1"], "lrr"),
        (["--grid", "lr=1e-3", "--output", "/dev/null/x"], "--output /dev/null/x: cannot be created: Not a dir"),
        (["--grid", "lr=1e-3", "--output", "o", "--storage", "nonsense://x"], "nonsense://x: cannot be used: Can"),
        (["--grid", "lr=1e-3", "--output", "o", "--storage", "mysql://u@127.0.0.1/x"], "cannot be used: "),
        (["--grid", "lr=1e-3", "--output", "o", "--storage", "/dev/null/x.db"], "x.db: cannot be used: "),
        (["--grid", "lrr=1"], "did you mean lr"),
        (["--grid", "lr=-1,1"], "recipe.lr=-1"),
        (["--grid", "build.body.norm=1"], "it has: use, batch_norm"),
        (["--grid", "build.dropuot=0.1"], "'cnn.baseline' takes no argument 'dropuot'; allowed: "),
        (["--grid", "build.use=cnn.nonsense"], "no component named 'cnn.nonsense'"),
        (["--grid", "build.dropout=much"], "build.dropout: expected `float`"),
        (["--grid", "lr"], "write --grid KEY=A,B,C"),
        (["--grid", "lr=1e-3,,1e-2"], "an empty value"),
        (["--sample", "lr=1e-3"], "LOW..HIGH"),
        (["--sample", "lr=log:0..1"], "0 < LOW < HIGH"),
        (["--sample", "lr=1..0.1"], "LOW < HIGH"),
        (["--grid", "lr=1", "--sample", "recipe.lr=0.1..1"], "given twice"),
        (["--grid", "dataset=digits,cifar10"], "cannot search over dataset"),
        (["--grid", "lr=0.1,0.2", "--trials", "3"], "the grid has 2 points"),
        ([], "nothing to sweep over"),
    ],
)
def test_a_wrong_key_or_range_is_said_before_anything_starts(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        zoo("sweep", "cnn-baseline-bn", *words)
    assert not list(tmp_path.rglob("trial-*"))


def test_values_and_ranges_are_read_as_toml_reads_them() -> None:
    space = parse_space(
        ["optimizer=adam,sgd", "recipe.betas=[0.9, 0.99],[0.9, 0.999]", 'augment=[],[{ op = "flip" }],[]', "ema=0"],
        ["epochs=5..20", "lr=log:1e-4..1e-2", "momentum=0..1", "build.depth=2..8"],
    )
    assert [choice.values for choice in space.choices] == [
        ("adam", "sgd"),
        ([0.9, 0.99], [0.9, 0.999]),
        ([], [{"op": "flip"}]),
        (0,),
    ]
    kinds = [(drawn.low, drawn.high, drawn.log, drawn.whole) for drawn in space.ranges]
    assert kinds == [(5, 20, False, True), (1e-4, 1e-2, True, False), (0, 1, False, False), (2, 8, False, True)]
    assert len(list(space.grid())) == 8


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_two_processes_share_a_sweep(engine: str, swept: tuple[Path, str], tmp_path: Path) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
    environment = {**os.environ, "ZOO_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "zoo", *GRID, "--jobs", "2", "--engine", engine]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = [[(str(t["changes"]), t["top1"]) for t in trials(base)] for base in (tmp_path, swept[0])]
    assert sorted(found[0]) == sorted(found[1])
