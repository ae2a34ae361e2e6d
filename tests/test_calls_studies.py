"""`zoo.sweep`, `zoo.reproduce`, `zoo.bench`, `zoo.report`: they give what the commands print, and print nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec import structs

import zoo
from zoo.base.reporter import Reporter
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import Node
from zoo.cli import cli
from zoo.cli.shared.terminal import Terminal
from zoo.errors import DeviceError, InputError, TrainingError, ZooWarning
from zoo.runs.api import open_run
from zoo.runs.record import read_record, write_record
from zoo.studies import workers
from zoo.studies.bench import apart
from zoo.studies.bench.benched import WHAT
from zoo.studies.sweep.space import parse_space
from zoo.train.events import Listener

pytestmark = pytest.mark.filterwarnings("ignore:.*a commit with changes")  # of this checkout, while it is changed

TABLE = ("cnn-to-others/cifar10", "--only", "cnn-baseline", "--budget", "small", "--dataset", "digits")
FINISHED = "--device cpu holds for runs that begin: 1 finished run was trained on cuda:0"
SMALL = ("--limit-train", "64", "--limit-test", "48", "--epochs", "1")


class Heard(Reporter):
    """Keeps what is said, and how often it was closed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.closed = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def close(self) -> None:
        self.closed += 1


class Runs(Listener):
    """Counts the events of runs."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def start(self, plan: Any, parameters: int) -> None:
        self.events.append(f"start {plan.record.model}")

    def end(self, result: Mapping[str, Any]) -> None:
        self.events.append(f"end {result['test']['count']}")


def command(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def table(**more: Any) -> Any:
    small = {"limit_train": 64, "limit_test": 48, "epochs": 1}
    return zoo.reproduce(TABLE[0], only="cnn-baseline", budget="small", dataset="digits", **small, **more)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a table of one run."""
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ZOO_CACHE_DIR", str(folder / "cache"))
        runs, heard = Runs(), Heard()
        made = table(listeners=[runs], reporter=heard)
        (row,) = made.rows
        assert runs.events == ["start cnn-baseline", "end 48"]
        assert heard.lines == [f"cnn-baseline on cifar10, seed 0: started in {row['runs'][0]['folder']}"]
        assert heard.closed == 1
    return folder


@pytest.fixture(autouse=True)
def inside(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base)
    monkeypatch.setenv("ZOO_CACHE_DIR", str(base / "cache"))


@pytest.fixture(autouse=True)
def nothing_is_printed(inside: None, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


# ---- reproduce -------------------------------------------------------------------------------


def test_a_table_is_what_the_command_prints(base: Path) -> None:
    made = table()
    assert made.rows[0]["top1"] is not None
    assert (made.states, made.failed, made.stopped) == (("recorded",), (), False)
    printed = command("reproduce", *TABLE, *SMALL, "--json")
    assert json.loads(printed.stdout) == list(made.rows) == made.as_dict()["rows"]
    listed = command("reproduce", *TABLE, *SMALL, "--list").stdout.splitlines()
    assert listed[0] == made.heading
    assert listed[2].split()[-1] == "recorded"
    assert made.file is not None
    assert json.loads(made.file.read_text())["rows"] == list(made.rows)
    assert made.heading in repr(made)
    assert "<td>cnn-baseline</td>" in made._repr_html_()


def test_what_is_there_is_listed_without_training(tmp_path: Path) -> None:
    made = table(train=False, runs=tmp_path / "none")
    assert (made.states, made.rows[0]["top1"]) == (("missing",), None)
    assert not (tmp_path / "none").exists()
    targets = zoo.reproduce(train=False)
    assert json.loads(command("reproduce", "--list", "--json").stdout) == list(targets.rows)
    assert "cnn-to-others/cifar10" in targets.rows.column("name")
    with pytest.raises(InputError, match="zoo reproduce --list"):
        zoo.reproduce()


def test_a_table_that_is_stopped_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([0, 15])  # once, when the run has begun: who looks later must see it too
    made = table(runs=tmp_path / "runs", results=tmp_path, stop=lambda: next(asked, 0))
    assert (made.stopped, made.rows[0]["top1"], made.failed) == (True, None, ())
    assert "stopped" in repr(made)
    monkeypatch.setattr(Terminal, "say", lambda self, line: signal.raise_signal(signal.SIGTERM))
    handler = signal.getsignal(signal.SIGTERM)
    ended = command("reproduce", *TABLE, *SMALL, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path))
    assert ended.exit_code == 128 + signal.SIGTERM
    assert f"stopped; repeat the command to continue (the runs are in {tmp_path / 'runs'})" in ended.stderr
    assert signal.getsignal(signal.SIGTERM) is handler


def on_cuda(folder: Path) -> None:
    """Have a run say that it was begun on a GPU."""
    record = read_record(folder)
    write_record(folder, structs.replace(record, device="cuda:0"))


def test_a_device_that_holds_for_new_runs_only_is_told(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base / "runs", tmp_path / "runs")
    (result,) = (tmp_path / "runs").rglob("result.json")
    there = {"runs": tmp_path / "runs" / "reproduce", "results": tmp_path}
    assert table(device="cpu", **there).states == ("recorded",)
    with pytest.raises(InputError, match="warp"):
        table(device="warp", **there)
    on_cuda(result.parent)
    with pytest.warns(ZooWarning, match=re.escape(FINISHED)):
        assert table(device="cpu", **there).states == ("recorded",)
    assert table(**there).states == ("recorded",)

    result.unlink()
    told = f"stays on cuda:0, where it began, instead of cpu; to train it there, delete {result.parent}"
    with pytest.warns(ZooWarning, match=re.escape(f"cnn-baseline on cifar10, seed 0: {told}")):
        table(device="cpu", **there)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": 0}, "reproduce.seeds: expected `int` >= 1, given 0"),
        ({"budget": "tiny"}, "budget.*full"),
        ({"jobs": 0}, "jobs=0 must be at least 1"),
        ({"engine": "slurm"}, "engine='slurm': allowed: local, ray"),
    ],
)
def test_a_wrong_option_of_a_table_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        zoo.reproduce("cnn-to-others", train=True, **wrong)


# ---- sweep -----------------------------------------------------------------------------------


def sweep(**more: Any) -> zoo.Sweep:
    pytest.importorskip("optuna", reason="needs Optuna: pip install -e '.[sweep]'")
    small = {"dataset": "digits", "limit_train": 64, "epochs": 1, "settings": {"ema": 0.5}}
    return zoo.sweep("cnn-baseline", **{"grid": {"lr": [1e-3, 1e-2]}, "output": "found", **small, **more})


SWEEP = ("sweep", "cnn-baseline", "--grid", "lr=1e-3,1e-2", "--output", "found", "--dataset", "digits")
OPTIONS = ("--limit-train", "64", "--epochs", "1", "--set", "ema=0.5")


def test_a_sweep_is_what_the_command_prints(base: Path) -> None:
    heard = Heard()
    found = sweep(reporter=heard)
    assert [line for line in heard.lines if "begins" in line][1].startswith("trial-0001: recipe.lr=0.01: begins")
    printed = command(*SWEEP, *OPTIONS, "--json")
    assert json.loads(printed.stdout) == json.loads(json.dumps(found.as_dict()))
    assert "begins" not in printed.stderr  # the command goes on with what the call did
    printed = command(*SWEEP, *OPTIONS)
    assert printed.stdout == found.to_toml() == (base / "found" / "recipe.toml").read_text()
    assert f"best of 2 trials: {found.trials[0]['folder']}, validation top-1" in printed.stderr
    assert (found.finished, found.stopped, found.problems, found.importance) == (True, False, (), {})
    assert found.best == found.trials[0]
    assert found.best["top1"] == max(found.trials.column("top1"))
    run = found.best_run
    assert run is not None
    assert run.record.settings.lr == found.best["changes"]["recipe.lr"]
    assert run.metrics.column("val_top1")[-1] == found.best["top1"]
    assert "2 of 2 trials" in repr(found)
    assert "<th" in found._repr_html_()


def test_a_sweep_that_is_stopped_has_the_trials_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sweep(output=tmp_path, stop=lambda: 2)
    assert (found.stopped, len(found.trials), found.best, found.best_run, found.to_toml()) == (True, 0, None, None, "")
    assert not (tmp_path / "sweep.json").exists()
    monkeypatch.setattr(Terminal, "say", lambda self, line: signal.raise_signal(signal.SIGTERM))
    ended = command(*SWEEP, *OPTIONS, "--output", str(tmp_path))
    assert ended.exit_code == 128 + signal.SIGTERM
    assert ended.stderr == f"stopped; repeat the command to continue (the trials are in {tmp_path})\n"


def test_a_device_that_holds_for_new_trials_only_is_told(tmp_path: Path) -> None:
    sweep(output=tmp_path)
    sweep(output=tmp_path, device="cpu")
    on_cuda(tmp_path / "trial-0001")
    with pytest.warns(ZooWarning, match=re.escape(FINISHED)):
        assert sweep(output=tmp_path, device="cpu").finished


def test_processes_that_fail_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "a worker process ended with exit code 1: no folder photos"
    monkeypatch.setattr(workers, "spread", lambda *args, **more: [told])
    with pytest.warns(ZooWarning, match=told), pytest.raises(TrainingError, match=f"no trial was completed: {told}"):
        sweep(output=tmp_path, jobs=2)
    ended = command(*SWEEP, *OPTIONS, "--output", str(tmp_path), "--jobs", "2")
    assert f"warning: {told}\n" in ended.stderr


def test_tables_and_texts_are_the_same_space() -> None:
    grid = {"lr": (1e-3, 3e-4), "optimizer": ["adam", "sgd"], "build.depth": range(2, 4), "betas": [(0.9, 0.99)]}
    sample = {"momentum": (0, 1), "weight_decay": "log:1e-4..1e-2", "build.heads": (2, 8)}
    texts = ["lr=1e-3,3e-4", "optimizer=adam,sgd", "build.depth=2,3", "betas=[0.9, 0.99]"]
    ranges = ["momentum=0..1", "weight_decay=log:1e-4..1e-2", "build.heads=2..8"]
    assert parse_space(grid, sample) == parse_space(texts, ranges)
    assert parse_space({"lr": "1e-3,3e-4"}, ()) == parse_space("lr=1e-3,3e-4", ())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"grid": {"lr": []}}, "at least one value"),
        ({"grid": {"lr": 1e-3}}, "give a list of values"),
        ({"grid": {"lr": [None]}}, "allowed: texts, numbers"),
        ({"grid": {"lr": [object()]}}, "allowed: texts, numbers"),
        ({"sample": {"lr": (1e-3,)}}, "give two numbers"),
        ({"sample": {"momentum": (True, 2)}}, "give two numbers"),
        ({"grid": None}, "nothing to sweep over"),
        ({"trials": 0}, "trials=0 must be at least 1"),
        ({"epochs": 0}, "--epochs must be at least 1"),
    ],
)
def test_a_wrong_option_of_a_sweep_is_named(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        sweep(**{"output": tmp_path, **wrong})


def test_a_tree_is_swept_from_a_file_that_every_process_finds(tmp_path: Path) -> None:
    tree = load_registry().model("cnn-baseline").build
    options = {"grid": {"lr": [1e-3]}, "output": tmp_path, "dataset": "digits", "stop": lambda: 2}
    with pytest.raises(InputError, match="needs a dataset and a recipe"):
        zoo.sweep(tree, **options)
    with pytest.raises(InputError, match="no recipe named 'cnn'"):
        zoo.sweep(tree, recipe="cnn", **options)
    found = zoo.sweep(tree, recipe="best-cnn", **options)
    name = found.as_dict()["sweep"]["request"]["model"]
    assert name == f"{tmp_path / 'model.toml'}#tree-of-cnn-baseline"
    assert load_registry(extra=(tmp_path / "model.toml",)).model(name.partition("#")[2]).build == tree
    (tmp_path / "trial-0000").mkdir()
    other = Node(tree.use, {**tree.args, "dropout": 0.25})
    with pytest.raises(InputError, match="contains another tree"):
        zoo.sweep(other, recipe="best-cnn", **options)


# ---- bench -----------------------------------------------------------------------------------


def rate(median: float) -> dict[str, Any]:
    return {"median": median, "q1": median, "q3": median, "n": 1}


def fake(job: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a process would write it."""
    if job["model"] == "vgg16":
        return {"model": "vgg16", "error": "images of 8x8 are too small"}
    speed = {"images_per_second": rate(512.0), "milliseconds": rate(125.0)}
    return {
        "model": job["model"],
        "parameters": 7,
        "batch_size": job["batch_size"],
        "precision": "fp32",
        "flops_forward": 9,
        "environment": {"device": "a CPU"},
        "infer": speed,
        "memory": {"infer": None},
        "matrix": {"flops_per_second": rate(1e9)},
    }


def test_a_benchmark_is_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "measured", fake)
    heard = Heard()
    found = zoo.bench("vgg16", "resnet18", what="infer", batch_size=64, settings={"ema": 0.5}, reporter=heard)
    words = ("bench", "vgg16", "resnet18", "--what", "infer", "--set", "ema=0.5")
    printed = command(*words, "--json")
    assert json.loads(printed.stdout) == json.loads(json.dumps(found.as_dict()))
    assert command(*words, "--csv").stdout == found.to_csv()
    assert "error: vgg16: images of 8x8 are too small\n" in printed.stderr
    assert heard.lines == ["vgg16: infer", "resnet18: infer"] == printed.stderr.splitlines()[:2]
    assert found.errors == {"vgg16": "images of 8x8 are too small"}
    with pytest.raises(DeviceError, match="1 of 2 models could not be measured: vgg16"):
        found.check()
    assert found.as_dict()["settings"]["what"] == ("infer",)
    assert found.rows[1]["infer"]["images_per_second"]["median"] == 512
    assert "512" in repr(found)
    assert "<td>vgg16</td>" in found._repr_html_()


def test_without_names_five_models_are_measured_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "measured", fake)
    found = zoo.bench()
    assert (len(found.rows), found.errors) == (5, {})
    assert found.as_dict()["settings"] == json_settings(command("bench", "--json"))


def json_settings(printed: Result) -> dict[str, Any]:
    """The settings of a printed document, tuples as Python has them."""
    found: dict[str, Any] = json.loads(printed.stdout)["settings"]
    assert tuple(found["what"]) == WHAT
    return {**found, "what": WHAT, "settings": tuple(found["settings"])}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"what": "speed"}, "no measurement named 'speed'"),
        ({"what": ()}, "no measurement"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"seconds": 0}, "seconds=0 must be above 0"),
        ({"compile": "fast"}, "compile='fast': allowed: auto, off"),
    ],
)
def test_a_wrong_option_of_a_benchmark_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        zoo.bench("resnet18", **wrong)


# ---- report ----------------------------------------------------------------------------------


def test_a_page_is_the_one_that_the_command_writes(base: Path) -> None:
    pytest.importorskip("bokeh", reason="zoo report draws with Bokeh: pip install -e '.[report]'")
    run = open_run(next(base.glob("runs/reproduce/**/run.toml")).parent.relative_to(base))
    page = zoo.report(run, output="call.html", catalogue="none", images=2)
    printed = command("report", str(run.folder), "--output", "command.html", "--catalogue", "none", "--images", "2")
    assert printed.stdout == "command.html\n"
    assert Path(page).read_bytes() == (base / "command.html").read_bytes()
    assert (page.size, page.results, page.left_out, dict(page.unmeasured)) == (os.path.getsize(page), 0, (), {})
    assert "Measured again on the test split" in Path(page).read_text()
    assert printed.stderr == f"1 run, 0 results of the catalogue, {page.size / 1e6:.2f} MB\n"
    assert repr(page).startswith("Report('call.html': 1 run, ")
    quick = zoo.report("last", output="quick.html", catalogue="none", data=False, reporter=(heard := Heard()))
    assert "No images: left out by --no-data" in Path(quick).read_text()
    assert (quick.runs, heard.lines) == (page.runs, [f"last: {run.folder}"])


def test_a_wrong_option_of_a_page_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bokeh", reason="zoo report draws with Bokeh: pip install -e '.[report]'")
    with pytest.raises(InputError, match="images=49: allowed: 0 to 48"):
        zoo.report(images=49)
    with pytest.raises(InputError, match="catalogue='some': allowed"):
        zoo.report(catalogue="some")  # type: ignore[arg-type]  # wrong on purpose
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no runs below runs/"):
        zoo.report()


# ---- several processes -----------------------------------------------------------------------

WORK = """
import os, time
from zoo.errors import DataError

def work(given, stop, reporter):
    reporter.say(str(os.getpid()))
    print("of a library")
    if given == "fail":
        raise DataError("no images")
    while not stop():
        time.sleep(0.01)
"""


class Ended(Heard):
    """Interrupts the call at the second message."""

    def say(self, line: str) -> None:
        super().say(line)
        if len(self.lines) == 2:
            raise KeyboardInterrupt


def test_no_process_goes_on_when_a_call_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    ended = Ended()
    with pytest.raises(KeyboardInterrupt):
        workers.spread("some_work:work", "wait", 2, "local", lambda: 0, ended)
    assert len({*ended.lines}) == 2
    for line in ended.lines:
        with pytest.raises(ProcessLookupError):
            os.kill(int(line), 0)
    problems = workers.spread("some_work:work", "fail", 1, "local", lambda: 0, Heard())
    assert problems == ["a worker process ended with exit code 1: no images"]
    assert capfd.readouterr() == ("", "of a library\n" * 3)
