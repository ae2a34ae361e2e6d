"""Listeners that plugins bring: `zoo train --log NAME`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugin_site import Site, site_in

from zoo.base.install import install_line
from zoo.catalogue.registry import load_registry
from zoo.errors import InputError, UnknownNameError
from zoo.train.events import Listener
from zoo.train.listeners import Guarded, Several, attach, find_listeners
from zoo_loggers.scalars import of_epoch, of_record, of_result

PLUGIN = """
from zoo.plugin import Component, hookimpl

@hookimpl
def zoo_components():
    names = ("diary", "faulty", "tensorboard")
    return [Component(name=n, kind="listener", factory=f"zoo_watch_parts:{n}") for n in names]
"""
LISTENERS = """
import json

class Diary:
    def __init__(self, folder):
        self.path = folder / "diary.jsonl"

    def write(self, event, **values):
        print("noise on stdout")
        with self.path.open("a") as file:
            file.write(json.dumps({"event": event, **values}) + "\\n")

    def start(self, record, parameters):
        self.write("start", model=record["model"], parameters=parameters)

    def epoch(self, row, best):
        self.write("epoch", row=row, best=best)

    def end(self, result):
        self.write("end", top1=result["test"]["top1"])

class Faulty:
    def epoch(self, row, best):
        raise ConnectionError("the server is down")

def diary(*, folder):
    return Diary(folder)

def faulty(*, folder):
    return Faulty()

tensorboard = diary
"""
SHORT = ("train", "cnn-baseline", "--dataset", "digits", "--limit-train", "128", "--limit-test", "40")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = site_in(tmp_path)
    found.add("watch", PLUGIN, parts=LISTENERS)
    return found


@pytest.mark.slow
def test_a_plugin_s_listener_is_told_of_start_epochs_and_end_and_a_faulty_one_ends_nothing(site: Site) -> None:
    logs = ("--log", "watch.diary", "--log", "faulty")
    done = site.run(*SHORT, "--epochs", "2", "--set", "recipe.epochs=2", *logs, "--output", "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run\n"
    assert done.stderr.count("--log watch.faulty failed and was switched off") == 1
    assert "ConnectionError: the server is down" in done.stderr
    told = [json.loads(line) for line in (site.work / "run/diary.jsonl").read_text().splitlines()]
    assert [t["event"] for t in told] == ["start", "epoch", "epoch", "end"]
    rows = [json.loads(line) for line in (site.work / "run/metrics.jsonl").read_text().splitlines()]
    assert [t["row"] for t in told[1:3]] == rows
    assert told[0]["parameters"] > 10_000
    result = json.loads((site.work / "run/result.json").read_text())
    assert told[3]["top1"] == result["test"]["top1"]


def test_a_wrong_name_is_refused_before_anything_is_loaded(site: Site) -> None:
    done = site.run(*SHORT, "--log", "diery", "--output", "run")
    assert done.returncode == 2
    assert "no logger named 'diery'; did you mean diary" in done.stderr
    assert not (site.work / "run").exists()


def test_a_short_name_of_two_plugins_must_be_written_whole(site: Site) -> None:
    done = site.run(*SHORT, "--log", "tensorboard", "--output", "run")
    assert done.returncode == 2
    assert "--log 'tensorboard' is ambiguous: loggers.tensorboard or watch.tensorboard" in done.stderr


def test_listing_the_loggers_imports_none_of_them(site: Site) -> None:
    site.hide_heavy()
    done = site.run("plugins", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    expected = ["loggers.tensorboard", "loggers.trackio", "loggers.wandb"]
    assert rows["loggers"]["components"] == expected


def test_a_logger_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    site = site_in(tmp_path)
    site.folder.mkdir()
    for name in ("tensorboard", "trackio", "wandb"):
        (site.folder / f"{name}.py").write_text("raise ImportError('not here')")
    code = "import sys\nfrom zoo.catalogue.registry import load_registry\nfrom zoo.train.listeners import *\n"
    code += "from zoo.errors import PluginError\nfrom pathlib import Path\n"
    code += "for name in sys.argv[1:]:\n  try:\n    attach(Listener(), find_listeners([name], load_registry()),"
    code += " Path('.'), print)\n  except PluginError as error:\n    print(error)\n"
    done = site.python("-c", code, "tensorboard", "trackio", "wandb")
    lines = [line for line in done.stdout.splitlines() if "needs its library" in line]
    assert lines == [
        f"the logger {n} needs its library: {install_line(n)}" for n in ("tensorboard", "trackio", "wandb")
    ], done.stderr


def test_an_unknown_logger_in_python_is_named_too() -> None:
    with pytest.raises(UnknownNameError, match="did you mean tensorboard"):
        find_listeners(["tensorbord"], load_registry())


@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit("disk full")])
def test_a_factory_that_fails_ends_the_command_with_one_line(error: BaseException, tmp_path: Path) -> None:
    def broken(*, folder: Path) -> None:
        raise error

    with pytest.raises(InputError, match=r"--log x cannot be started: \w+: disk full"):
        attach(Listener(), {"x": broken}, tmp_path, print)


def test_without_loggers_the_display_stays_as_it_is(tmp_path: Path) -> None:
    display = Listener()
    assert attach(display, {}, tmp_path, print) is display
    assert isinstance(attach(display, {"x": lambda folder: object()}, tmp_path, print), Several)


def test_a_listener_that_exits_does_not_end_the_run() -> None:
    class Exiting:
        def epoch(self, row: dict[str, object], best: bool) -> None:
            raise SystemExit("quota")

    said: list[str] = []
    Guarded("x", Exiting(), said.append).epoch({}, True)
    assert said == ["--log x failed and was switched off; the run continues (SystemExit: quota)"]


def test_a_listener_is_told_of_the_end_once() -> None:
    told: list[dict[str, object]] = []

    class Ending:
        def end(self, result: dict[str, object]) -> None:
            told.append(result)

    guarded = Guarded("x", Ending(), print)
    guarded.end({"test": {}})
    guarded.end({})
    assert told == [{"test": {}}]


def test_the_names_of_scalars() -> None:
    row = {"epoch": 3, "step": 9, "lr": 0.1, "train_loss": 2, "val_top1": 0.5, "images_per_second": 7.0}
    assert of_epoch(row) == {"lr": 0.1, "loss/train": 2.0, "top1/val": 0.5, "images_per_second": 7.0}
    assert of_result({}) == {}
    assert of_result({"test": {"top1": 0.5, "count": 2}}) == {"final/top1": 0.5, "final/count": 2.0}
    record = {"model": "m", "settings": {"lr": 0.1, "augment": []}, "data": {"spec": "digits"}}
    assert of_record(record) == {"model": "m", "recipe.lr": 0.1, "data.spec": "digits"}


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    site = site_in(tmp_path)
    done = site.run(*SHORT, "--epochs", "1", "--max-steps", "2", "--log", "tensorboard", "--output", "run")
    assert done.returncode == 0, done.stderr
    events = accumulator.EventAccumulator(str(site.work / "run/tensorboard")).Reload()
    (row,) = [json.loads(line) for line in (site.work / "run/metrics.jsonl").read_text().splitlines()]
    (loss,) = events.Scalars("loss/train")
    assert loss.step == 1
    assert loss.value == pytest.approx(row["train_loss"], rel=1e-6)
    result = json.loads((site.work / "run/result.json").read_text())
    assert events.Scalars("final/top1")[0].value == pytest.approx(result["test"]["top1"], rel=1e-6)


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_keeps_the_run_without_a_network(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    site = site_in(tmp_path)
    offline = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "TRACKIO_DIR": str(tmp_path / "trackio")}
    words = (*SHORT, "--epochs", "1", "--max-steps", "2", "--log", name, "--output", "run")
    done = site.run(*words, **offline)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run\n"
    assert "is left out" not in done.stderr
    kept = (tmp_path / "trackio").glob("*.db") if name == "trackio" else (site.work / "run").rglob("*.wandb")
    assert len(list(kept)) == 1
