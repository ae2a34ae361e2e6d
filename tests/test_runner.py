"""One way to train a run, and one list of its options."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click_tree import command_at

from zoo.cli.shared.display import Bars
from zoo.errors import BusyError, InputError
from zoo.runs.folder import read_metrics
from zoo.runs.lock import RunLock
from zoo.runs.record import METRICS, RESULT, WEIGHTS, read_record
from zoo.studies.reproduce.rows import Ask
from zoo.train.events import Listener
from zoo.train.loop import Saving, Stop
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request, flag, options
from zoo.train.runner import Watch, finish, train_in
from zoo.train.start import continued

ROOT = Path(__file__).resolve().parent.parent
FEW = {
    "limit_train": 100,
    "batch_size": 32,
    "limit_test": 50,
    "dataset": "digits",
    "device": "cpu",
    "epochs": 2,
}


class Heard(Listener):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self, plan: Plan, parameters: int) -> None:
        self.told.append("start")

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        self.told.append(f"resumed after {len(rows)}")

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        self.told.append(f"epoch {row['epoch']}")

    def end(self, result: dict[str, Any]) -> None:
        self.told.append("end" if result else "ended early")


@pytest.fixture
def plan() -> Plan:
    return resolve(Request(model="cnn-baseline", **FEW))


def stopping_after(steps: int) -> Any:
    asked = iter(range(1000))
    return lambda: 15 * (next(asked) >= steps)


def test_the_trainer_is_made_in_one_place_beside_the_benchmark() -> None:
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "zoo").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Trainer"
    }
    bench = {"zoo/studies/bench/model.py", "zoo/studies/bench/rounds.py"}
    assert makers - bench == {"zoo/train/runner.py"}


def test_a_stopped_run_goes_on_in_its_folder_and_its_listener_is_told(plan: Plan, tmp_path: Path) -> None:
    first, second = Heard(), Heard()
    with pytest.raises(Stop):
        train_in(tmp_path / "run", plan, Watch(listener=first, stop=stopping_after(4), saving=Saving(0)))
    assert first.told == ["start", "epoch 1", "ended early"]
    result = finish(tmp_path / "run", lambda: continued(tmp_path / "run"), Watch(listener=second))
    assert result == json.loads((tmp_path / "run" / RESULT).read_text())
    assert second.told == ["start", "resumed after 1", "epoch 2", "end"]
    whole = train_in(tmp_path / "whole", plan, Watch())
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert whole["test"] == result["test"]


def test_a_finished_run_is_not_planned_again(plan: Plan, tmp_path: Path) -> None:
    train_in(tmp_path, plan, Watch())
    before = (tmp_path / RESULT).read_bytes()

    def never() -> Plan:
        raise AssertionError("planned again")

    assert finish(tmp_path, never, Watch()) is None
    assert (tmp_path / RESULT).read_bytes() == before


def test_a_folder_that_somebody_trains_in_is_left_alone(plan: Plan, tmp_path: Path) -> None:
    heard = Heard()
    with RunLock(tmp_path):
        with pytest.raises(BusyError, match="is being trained by process"):
            train_in(tmp_path, plan, Watch(listener=heard))
        with pytest.raises(BusyError):
            finish(tmp_path, lambda: plan, Watch())
        assert heard.told == ["ended early"]
        assert not (tmp_path / METRICS).exists()
        assert finish(tmp_path, lambda: plan, Watch(), locked=True) is not None  # whose lock it is


def test_bars_of_a_run_that_never_started_can_be_closed() -> None:
    Bars().end({})


def test_an_extended_run_has_no_result_until_its_new_end(plan: Plan, tmp_path: Path) -> None:
    train_in(tmp_path, plan, Watch())
    longer = continued(tmp_path, epochs=4)
    with pytest.raises(Stop):
        train_in(tmp_path, longer, Watch(stop=stopping_after(1)))
    assert not (tmp_path / RESULT).exists()
    assert read_record(tmp_path).settings.epochs == 4
    train_in(tmp_path, continued(tmp_path), Watch())
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


# ---- one list of options ------------------------------------------------------------------------


def names_of(command: str) -> set[str]:
    return {name for parameter in command_at(command).params for name in parameter.opts}


def test_every_field_of_a_request_is_an_option_of_train() -> None:
    assert set(options()) == set(Request.__struct_fields__) - {"model"}
    assert {flag(name) for name in options()} <= names_of("zoo train")
    assert flag("settings") == "--set"


def test_sweep_and_reproduce_have_the_options_that_say_so() -> None:
    every = {flag(name) for name in options()} - {"--epochs", "--recipe", "--dataset"}  # of its own meaning
    for command in ("sweep", "reproduce"):
        wanted = {flag(name) for name, option in options().items() if getattr(option, command)}
        assert wanted <= names_of(f"zoo {command}")
        assert names_of(f"zoo {command}") & every <= wanted
    assert {name for name, option in options().items() if option.reproduce} <= set(Ask.__struct_fields__)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, given 0"),
        ({"batch_size": -1}, "--batch-size must be at least 1, given -1"),
        ({"workers": -1}, "--workers must be at least 0, given -1"),
        ({"weights": ""}, "--weights is empty; give weights"),
        ({"weights": "w", "pretrained": True}, "give one of them"),
    ],
)
def test_an_impossible_request_names_the_option(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(Request(model="cnn-baseline", dataset="digits", **given))
