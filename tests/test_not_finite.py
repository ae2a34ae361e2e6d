"""Losses that are not finite: a run stops before them, or leaves them out, and never takes one for the best."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_modules import load_run
from test_train import SMALL

from zoo.data.split import Split
from zoo.errors import TrainingError
from zoo.evaluate.one_pass import Metrics
from zoo.runs.folder import read_metrics
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
    assert all(
        torch.isfinite(t).all() for t in load_run(folder).state_dict().values() if t.is_floating_point()
    )


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
