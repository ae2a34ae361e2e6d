"""One way to train a run, and one list of its options."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click_tree import command_at

from zoo.base.files import WriteError
from zoo.errors import BusyError, InputError, RunError
from zoo.evaluate.opened import open_run, recorded_metrics
from zoo.runs.before import BEFORE
from zoo.runs.find import find
from zoo.runs.folder import read_metrics, read_result
from zoo.runs.lock import RunLock
from zoo.runs.record import METRICS, RESULT, WEIGHTS, read_record, write_record
from zoo.runs.remove import check_removable
from zoo.studies.reproduce.rows import Ask
from zoo.train import checkpoint
from zoo.train.display import Bars
from zoo.train.events import Listener, Tick
from zoo.train.loop import Saving, Stop
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request, flag, options
from zoo.train.runner import Watch, finish, train_in
from zoo.train.start import continued, plan_from

ROOT = Path(__file__).resolve().parent.parent
FEW = {"limit_train": 100, "batch_size": 32, "limit_test": 50, "dataset": "digits", "device": "cpu", "epochs": 2}


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


class Noted(Bars):
    """Bars that keep what stands beside them at each tick."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def tick(self, tick: Tick) -> None:
        super().tick(tick)
        self.notes += [self.bars.tasks[0].fields["note"], self.bars.tasks[1].fields["note"]]


def test_the_live_lines_tell_the_learning_rate_and_the_time_so_far(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.train.loop.TICK_SECONDS", 0.0)
    bars = Noted()
    train_in(tmp_path, plan, Watch(listener=bars))
    step, run = bars.notes[-2:]
    assert re.search(r"  lr 0\.001  [\d,]+ img/s$", step), step
    assert re.match(r"[\d.]+ (s|min)(, best [\d.]+% \(epoch 1\))?$", run), run


def test_an_extended_run_has_no_result_until_its_new_end(plan: Plan, tmp_path: Path) -> None:
    train_in(tmp_path, plan, Watch())
    longer = continued(tmp_path, epochs=4)
    with pytest.raises(Stop):
        train_in(tmp_path, longer, Watch(stop=stopping_after(1)))
    assert not (tmp_path / RESULT).exists()
    assert read_record(tmp_path).settings.epochs == 4
    train_in(tmp_path, continued(tmp_path), Watch())
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "lock"}


class Killed(BaseException):
    """What ends an extension in these tests."""


class Killing(Listener):
    """Ends the run before its first step, after a look at the folder as a killed process leaves it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, {}

    def start(self, plan: Plan, parameters: int) -> None:
        self.kept = whole(self.folder / BEFORE)
        raise Killed


def test_an_extension_that_ends_before_it_saves_anything_changes_nothing(plan: Plan, tmp_path: Path) -> None:
    train_in(tmp_path, plan, Watch())
    finished, killing = whole(tmp_path), Killing(tmp_path)
    with pytest.raises(Killed):
        train_in(tmp_path, continued(tmp_path, epochs=4), Watch(listener=killing))
    assert killing.kept == finished  # what a process that is killed by the system leaves
    assert whole(tmp_path) == finished
    assert not (tmp_path / BEFORE).exists()


def test_a_full_disk_does_not_take_the_result_of_a_run_that_is_extended(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_in(tmp_path, plan, Watch())
    finished, longer = whole(tmp_path), continued(tmp_path, epochs=4)

    def full(path: Path, data: bytes) -> None:
        raise WriteError(f"{path}: cannot be written: No space left on device")

    for place in ("zoo.runs.record.write_text", "zoo.runs.before.write_bytes", "zoo.train.checkpoint.write_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(WriteError, match="No space left"):
                train_in(tmp_path, longer, Watch())
        assert whole(tmp_path) == finished, place


def test_the_finished_run_is_kept_until_the_longer_one_is_finished(plan: Plan, tmp_path: Path) -> None:
    folder, said = tmp_path / "run", []
    train_in(folder, plan, Watch())
    finished = whole(folder)
    with pytest.raises(Stop):
        train_in(folder, continued(folder, epochs=4), Watch(stop=stopping_after(3), say=said.append))
    assert said == [f"{folder / BEFORE} keeps the finished run, until the longer one is finished"]
    assert whole(folder / BEFORE) == finished
    measured = open_run(folder / BEFORE, device="cpu").measure().as_dict()
    recorded = recorded_metrics(folder / BEFORE)
    assert measured["correct"] == recorded["correct"]
    assert unfinished_is(folder)
    with pytest.raises(RunError, match=f"{BEFORE} keeps what it was before it was extended"):
        read_result(folder)
    check_removable(folder)
    with pytest.raises(Stop):  # stopped again: the run that was finished is still that of two epochs
        train_in(folder, continued(folder), Watch(stop=stopping_after(1)))
    assert whole(folder / BEFORE) == finished
    train_in(folder, continued(folder), Watch())
    assert read_result(folder)["train"]["epochs"] == 4
    assert not (folder / BEFORE).exists()


def test_checkpoints_are_in_the_order_of_their_steps_however_many_digits_those_have(tmp_path: Path) -> None:
    for step in (99_999_998, 99_999_999, 100_000_000):
        checkpoint.save(tmp_path, step, {"step": step}, keep=2)
    assert [int(name.partition("-")[0]) for name in checkpoint.names(tmp_path)] == [99_999_999, 100_000_000]


def unfinished_is(folder: Path) -> bool:
    """Whether `zoo runs` shows the run as stopped, and nothing inside of it."""
    runs, _ = find([str(folder.parent)])
    return [(run.folder, run.state) for run in runs] == [(folder, "stopped")]


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


def test_a_repeated_run_records_this_machine_and_not_the_one_that_it_repeats(plan: Plan, tmp_path: Path) -> None:
    elsewhere = {**plan.record.environment, "torch": "0.1", "device": "another, 99 threads", "commit": "0" * 12}
    record = msgspec.structs.replace(plan.record, environment=elsewhere, plugins={"cnn.baseline": "hybrid-zoo 0.0.1"})
    write_record(tmp_path, record)
    (tmp_path / WEIGHTS).touch()
    again = plan_from(str(tmp_path), {}).record
    assert again.environment == plan.record.environment
    assert again.plugins == plan.record.plugins
    assert msgspec.structs.replace(again, environment={}, plugins={}) == msgspec.structs.replace(
        plan.record, environment={}, plugins={}
    )
