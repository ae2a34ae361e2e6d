"""Losses that are not finite: a run stops before them, or leaves them out, and never takes one for the best."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from run_modules import load_run
from test_train import SMALL

from zoo.cli import cli
from zoo.data.split import Split
from zoo.errors import RunError, TrainingError
from zoo.evaluate.one_pass import Metrics
from zoo.runs.folder import append_metrics, read_metrics, read_result, rewrite_metrics, write_result, write_weights
from zoo.runs.record import write_record
from zoo.train.loop import Trainer
from zoo.train.plan import resolve
from zoo.train.run_options import Request


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "registry.toml").write_text(SMALL)
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(tmp_path / "user"))
    return "tiny"


def poisoned(folder: Path, at: tuple[int, ...], precision: str, **more: Any) -> Trainer:
    """A trainer of 9 steps an epoch whose images are NaN in the steps `at`."""
    plan = resolve(Request(model="tiny", device="cpu", limit_train=300, batch_size=32, **more))
    plan = replace(plan, hardware=plan.hardware._replace(precision=precision))
    write_record(folder, plan.record)
    trainer = Trainer(plan, folder)
    change = trainer.change

    def with_nan(*args: Any, **more: Any) -> Any:
        images, targets = change(*args, **more)
        return (images * float("nan") if trainer.at.total in at else images), targets

    trainer.change = with_nan
    return trainer


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_loss_that_is_not_finite_stops_the_run(tiny: str, tmp_path: Path, precision: str) -> None:
    with pytest.raises(TrainingError, match="the loss is not finite in step 5 "):
        poisoned(tmp_path / "stop", (4,), precision).fit()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_steps_that_are_not_finite_are_skipped_when_asked(tiny: str, tmp_path: Path, precision: str) -> None:
    folder = tmp_path / "skip"
    trainer = poisoned(folder, (4, *range(9, 18)), precision, on_nan="skip", epochs=2)
    assert trainer.steps == 9
    result = trainer.fit()
    assert result["train"]["skipped_steps"] == 10
    first, second = read_metrics(folder)
    assert 2.0 < first["train_loss"] < 3.0  # near the log of ten classes: the mean of the eight others
    assert math.isnan(second["train_loss"])
    assert all(torch.isfinite(t).all() for t in load_run(folder).state_dict().values() if t.is_floating_point())


def test_what_is_not_finite_is_null_in_the_files_of_a_run_and_reads_as_before(tmp_path: Path) -> None:
    row = {"epoch": 1, "train_loss": math.nan, "val_loss": math.inf, "train_top1": 0.1, "lr": None}
    append_metrics(tmp_path, row)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "train_loss": NaN}\n')  # as earlier versions wrote it
    result = {"test": {"loss": math.nan, "correct": 1, "count": 10}, "validation": None, "parameters": 1}
    write_result(tmp_path, result)
    first, second = read_metrics(tmp_path)
    assert [math.isnan(first[key]) for key in ("train_loss", "val_loss")] == [True, True]
    assert first["lr"] is None
    assert math.isnan(second["train_loss"])
    assert math.isnan(read_result(tmp_path)["test"]["loss"])
    rewrite_metrics(tmp_path, [first, second])
    for name in ("metrics.jsonl", "result.json"):
        assert "NaN" not in (tmp_path / name).read_text()
        assert "Infinity" not in (tmp_path / name).read_text()


def test_a_training_that_diverges_is_warned_of_at_its_end(tiny: str, tmp_path: Path) -> None:
    words = [
        "train",
        tiny,
        "--device",
        "cpu",
        "--limit-train",
        "100",
        "--epochs",
        "2",
        "--on-nan",
        "skip",
        "--lr",
        "1e30",
    ]
    done = CliRunner().invoke(cli, [*words, "--output", str(tmp_path / "run")], catch_exceptions=False)
    result = read_result(tmp_path / "run")
    skipped, steps = (result["train"][name] for name in ("skipped_steps", "steps"))
    assert 0 < skipped < steps
    assert f"warning: {skipped} of {steps} steps left out: the loss or the gradients were not finite" in done.stderr
    assert "warning: the model's outputs are not finite numbers: the training diverged" in done.stderr
    usual = CliRunner().invoke(cli, [*words[:-4], "--output", str(tmp_path / "usual")], catch_exceptions=False)
    assert "warning" not in usual.stderr


def test_a_trial_that_diverges_is_warned_of_in_a_sweep(tiny: str, tmp_path: Path) -> None:
    words = ["sweep", tiny, "--grid", "lr=1e30", "--device", "cpu", "--limit-train", "100", "--epochs", "2"]
    more = ["--set", "on_nan=skip", "--output", str(tmp_path / "sweep")]
    done = CliRunner().invoke(cli, [*words, *more], catch_exceptions=False)
    assert "trial-0000: the model's outputs are not finite numbers: the training diverged" in done.stderr


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose weights are NaN, and an image."""
    base = tmp_path_factory.mktemp("ruined")
    (base / "user").mkdir()
    (base / "user" / "registry.toml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CONFIG_DIR", str(base / "user"))
        plan = resolve(Request(model="tiny", device="cpu", epochs=1, limit_train=100))
        (base / "run").mkdir()
        write_record(base / "run", plan.record)
        state = {k: v * math.nan if v.is_floating_point() else v for k, v in plan.build().state_dict().items()}
        write_weights(base / "run", state, plan.record)
    Image.new("RGB", (8, 8)).save(base / "digit.png")
    return base


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "run"),
        ("eval", "run", "--json"),
        ("eval", "run", "--what", "classes,calibration", "--output", "out"),
        ("predict", "run", "digit.png"),
        ("predict", "run", "digit.png", "--json"),
    ],
)
def test_outputs_that_are_not_numbers_are_an_error(
    words: tuple[str, ...], ruined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ruined)
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, RunError)
    assert "not finite numbers" in str(done.exception)
    assert "NaN" not in done.stdout
    for line in done.stdout.splitlines() if "--json" in words else ():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("losses", "best", "epochs"),
    [((0.5, math.nan, math.nan, 0.4), 1, 3), ((math.nan, math.inf, 0.6, 0.7), 3, 4), ((math.nan,) * 4, 1, 3)],
)
def test_a_validation_loss_that_is_not_finite_is_the_worst(
    losses: tuple[float, ...], best: int, epochs: int, tiny: str, tmp_path: Path
) -> None:
    settings = ("recipe.select=loss", "recipe.patience=2")
    plan = resolve(Request(model="tiny", device="cpu", epochs=4, settings=settings))
    write_record(tmp_path / "run", plan.record)
    trainer = Trainer(plan, tmp_path / "run")
    measure = trainer.measure

    def told(split: Split, *, exact: bool = False) -> Metrics:
        found = measure(split, exact=exact)
        return found if exact else replace(found, loss=losses[trainer.at.epoch])

    trainer.measure = told
    result = trainer.fit()
    assert (result["selection"]["epoch"], result["train"]["epochs"]) == (best, epochs)
