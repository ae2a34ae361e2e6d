"""A repetition trains as its options say, on the machine that it is on; what cannot be changed is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hub_server.runs import own_caches, untrained_run

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import InputError
from zoo.runs.record import read_record, write_record
from zoo.studies.reproduce.rows import Ask, rows_of
from zoo.train import plan as planning
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request
from zoo.train.start import plan_from


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("repeat")
    with own_caches(base):
        yield untrained_run(
            base / "run", "cnn-baseline", limit_train=100, limit_test=64, settings=("compile=off", "precision=auto")
        )


def repeated(run: Path, folder: Path, recorded: dict[str, Any], **given: Any) -> Plan:
    """The plan of a repetition, where the record had said this as well."""
    record = read_record(run)
    settings = msgspec.structs.replace(record.settings, **recorded.pop("settings", {}))
    shutil.copytree(run, folder)
    write_record(folder, msgspec.structs.replace(record, **recorded, settings=settings))
    return plan_from(str(folder), given)


def test_a_precision_that_is_given_is_trained_in(run: Path, tmp_path: Path) -> None:
    plan = repeated(run, tmp_path / "run", {"precision": "bf16", "channels_last": True}, precision="fp32")
    assert (plan.record.precision, plan.hardware.precision) == ("fp32", "fp32")
    assert plan.record.channels_last == plan.hardware.channels_last is False
    same = repeated(run, tmp_path / "same", {"precision": "bf16", "channels_last": True}, lr=1e-4)
    assert (same.record.precision, same.hardware.precision, same.record.channels_last) == ("bf16", "bf16", True)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_run_of_a_gpu_is_repeated_on_a_cpu_as_suits_it(run: Path, tmp_path: Path, precision: str) -> None:
    there = {"device": "cuda", "compile": "graph", "precision": precision, "settings": {"compile": "auto"}}
    plan = repeated(run, tmp_path / "run", there, device="cpu")
    assert (plan.record.compile, plan.hardware.compile, str(plan.hardware.device)) == ("off", "off", "cpu")
    new = resolve(Request(model="cnn-baseline", dataset="digits", device="cpu", precision="auto"))
    assert plan.record.precision == new.record.precision


def test_a_recorded_step_is_not_kept_where_the_recipe_is_another_one(run: Path, tmp_path: Path) -> None:
    there = {"compile": "graph", "settings": {"compile": "auto"}}
    assert repeated(run, tmp_path / "run", dict(there), settings=("accumulate=2",)).hardware.compile == "off"
    assert repeated(run, tmp_path / "same", dict(there)).hardware.compile == "graph"


@pytest.mark.parametrize("setting", ["normalize=imagenet", "image_size=16"])
def test_settings_of_the_images_are_refused(run: Path, setting: str) -> None:
    with pytest.raises(InputError, match=rf"recipe\.{setting.partition('=')[0]} cannot be changed; a new run can"):
        plan_from(str(run), {"settings": (setting,)})


def test_a_run_that_was_limited_to_some_steps_is_not_repeated_for_more_epochs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--epochs 7: this run was limited to 2 steps"):
        repeated(run, tmp_path / "run", {"max_steps": 2}, epochs=7)
    assert repeated(run, tmp_path / "same", {"max_steps": 2}).record.max_steps == 2


def test_python_refuses_what_the_command_refuses(run: Path) -> None:
    with pytest.raises(InputError, match="--from already says what to train; leave out MODEL and --resume"):
        zoo.train(from_run=run, resume=True)


def test_a_run_in_a_folder_of_ones_own_is_gone_on_with_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words: dict[str, Any] = {"dataset": "digits", "limit_train": 64, "limit_test": 64, "epochs": 2, "device": "cpu"}
    begun = zoo.train("cnn-baseline", **words, output="mine", stop=iter([0, 15] + [15] * 9).__next__)
    assert begun.state == "stopped"
    with pytest.raises(InputError, match=r"--output mine: its run has another configuration"):
        zoo.train("cnn-baseline", **{**words, "epochs": 3}, output="mine", resume=True)
    done = zoo.train("cnn-baseline", **words, output="mine", resume=True)
    assert (done.state, done.folder.name) == ("finished", "mine")
    assert not Path("runs").exists()
    with pytest.raises(InputError, match=r"--output mine: its run is finished"):
        zoo.train("cnn-baseline", **words, output="mine", resume=True)


def test_a_micro_batch_is_timed_and_not_the_whole_batch(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []
    monkeypatch.setattr(planning, "measure_pace", lambda module, shape, *_, **__: timed.append(shape))
    monkeypatch.setattr(planning, "choose", lambda mode, device, steps, pace, trials: (pace(), ("off", "said"))[1])
    request = Request(model="cnn-baseline", dataset="digits", device="cpu", settings=("accumulate=4", "batch_size=128"))
    resolve(request)
    assert timed == [(32, 3, 8, 8)]


def test_a_recipe_by_its_name_is_reproduced_as_it_is() -> None:
    registry = load_registry()
    for recipe, adapt in (("default", {}), ("source", registry.datasets["digits"].adapt)):
        row = rows_of(Ask(target="cnn-baseline", dataset="digits", recipe=recipe), registry)[0]
        assert row.images.adapt == adapt


def test_keys_of_tables_are_in_the_recipe_that_a_sweep_found(run: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"dataset": "digits", "limit_train": 64, "epochs": 1, "output": tmp_path / "sweep"}
    settings = {"lookahead.every": 2, "lookahead.alpha": 0.5}
    zoo.sweep("cnn-baseline", grid={"lr": [1e-3]}, settings=settings, device="cpu", **words)
    recipe = (tmp_path / "sweep" / "recipe.toml").read_text()
    assert "every = 2" in recipe
    assert "alpha = 0.5" in recipe


def test_a_list_of_what_would_be_trained_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cnn-to-others", "--train", "--only", "cnn-*", "--budget", "small", "--dataset", "digits", "--list"]
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    cli.main(["reproduce", *words, *places], standalone_mode=False)
    assert "cnn-baseline-bn-dropout" in capsys.readouterr().out
    assert not list(tmp_path.rglob("metrics.jsonl"))
