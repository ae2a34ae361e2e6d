"""Temperature scaling against scipy, and where a run's temperature is applied."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from small_runs import small_catalogue

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.data.batches.open import open_source
from zoo.errors import InputError, RunError
from zoo.evaluate.opened import open_run
from zoo.evaluate.temperature import fit_temperature, logits_of
from zoo.runs.folder import read_result, write_result
from zoo.runs.record import read_record, write_record
from zoo.train.loop import Trainer
from zoo.train.plan import resolve
from zoo.train.run_options import Request


@pytest.fixture(scope="module")
def trained(plugin_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the digits."""
    base = tmp_path_factory.mktemp("runs")
    with small_catalogue(base, plugin_index):
        plan = resolve(Request(model="tiny", device="cpu", epochs=2))
        (base / "run").mkdir()
        write_record(base / "run", plan.record)
        Trainer(plan, base / "run").fit()
    return base / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(trained, tmp_path / "run")


def by_scipy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature by a search over its logarithm for the least mean negative log likelihood."""

    def loss(log_t: float) -> float:
        return float(-log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10}).x))


@pytest.mark.parametrize("scale", [0.2, 1.0, 6.0])
def test_the_temperature_is_the_one_that_scipy_finds(scale: float) -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 7, 400)
    logits = draw.normal(size=(400, 7)) * scale
    logits[np.arange(400), labels] += scale
    found = fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found == pytest.approx(by_scipy(logits, labels), abs=1e-5)


@pytest.mark.parametrize(("right", "words"), [(True, "are right"), (False, "tell nothing")])
def test_a_temperature_that_cannot_be_fitted_is_refused(right: bool, words: str) -> None:
    labels = torch.arange(6)
    logits = torch.eye(6)[labels] * (5.0 if right else -5.0)
    with pytest.raises(RunError, match=words):
        fit_temperature(logits, labels)


def test_a_calibrated_run_keeps_the_temperature_and_predicts_with_it(run: Path) -> None:
    before = zoo.load(run)
    opened = open_run(run, split="val", device="cpu")
    logits, labels = logits_of(opened)
    done = zoo.calibrate(run)
    assert done.temperature == pytest.approx(by_scipy(logits.double().numpy(), labels.numpy()), abs=1e-5)
    assert abs(done.temperature - 1) > 0.05
    assert done.after["loss"] < done.before["loss"]
    kept = read_result(run)["calibration"]
    assert (kept["temperature"], kept["split"], kept["images"]) == (done.temperature, "validation", len(labels))
    after = zoo.load(run)
    pixels, _ = open_source(opened.images).take(torch.arange(20))
    expected = softmax(logits[:20].double().numpy() / done.temperature, axis=1)
    np.testing.assert_allclose(after.probabilities(pixels).numpy(), expected, atol=1e-5)
    assert torch.equal(after.probabilities(pixels).argmax(1), before.probabilities(pixels).argmax(1))
    prepared = after.prepare(pixels)
    assert torch.equal(after(prepared), before(prepared))  # a call is the module's own
    assert zoo.evaluate(run).same_as_recorded


def test_an_evaluation_shows_the_calibration_before_and_after(run: Path) -> None:
    plain = zoo.evaluate(run, what="calibration").calibration
    done = zoo.calibrate(run)
    both = zoo.evaluate(run, what="calibration").calibration
    assert plain is not None
    assert both is not None
    assert "before" not in plain
    assert both["temperature"] == done.temperature
    assert both["before"] == {key: value for key, value in plain.items() if key != "bins"}
    assert both["accuracy"] == plain["accuracy"]
    assert both["brier"] < plain["brier"]
    shown = CliRunner().invoke(cli, ["eval", str(run), "--what", "calibration"])
    assert f"before temperature {done.temperature:.4f}: ECE {plain['ece']:.2%}" in shown.stdout


def test_an_exported_file_divides_its_logits_and_says_by_what(run: Path, tmp_path: Path) -> None:
    done = zoo.calibrate(run)
    made = zoo.export(run, tmp_path / "model.pt2", format="torch")
    assert float(made.metadata["zoo.temperature"]) == done.temperature
    images = torch.rand(2, 3, 8, 8)
    wanted = zoo.load(run)(images) / done.temperature
    torch.testing.assert_close(torch.export.load(made.path).module()(images), wanted, atol=1e-5, rtol=1e-5)


def test_a_package_carries_the_temperature_and_verify_says_it(run: Path) -> None:
    done = zoo.calibrate(run)
    folder = zoo.package(run)
    assert zoo.load(folder).temperature == done.temperature
    card = (folder / "README.md").read_text("utf-8")
    assert f"divides the logits by `{done.temperature:.6g}`" in card
    assert "calibrated by a temperature" in card
    checks = zoo.verify(folder)
    assert checks
    assert next(c.seen for c in checks.checks if c.name == "calibration").startswith(
        f"temperature {done.temperature:.6g}"
    )
    with pytest.raises(InputError, match="is a package"):
        zoo.calibrate(folder)


def test_the_command_prints_what_the_call_gives_and_removes_it(run: Path) -> None:
    before = read_result(run)
    done = CliRunner().invoke(cli, ["calibrate", str(run), "--json"])
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["temperature"] == read_result(run)["calibration"]["temperature"]
    assert found["after"]["ece"] >= 0
    again = CliRunner().invoke(cli, ["calibrate", str(run), "--remove"])
    assert again.stdout == "the temperature was removed\n"
    assert read_result(run) == before
    assert "none was removed" in CliRunner().invoke(cli, ["calibrate", str(run), "--remove"]).stdout
    assert zoo.load(run).temperature == 1


@pytest.mark.parametrize(
    ("change", "words"), [({"protocol": "paper"}, "no validation images"), ({"task": "multi-label"}, "several labels")]
)
def test_a_run_without_what_a_temperature_needs_is_refused(run: Path, change: dict[str, str], words: str) -> None:
    record = read_record(run)
    data = msgspec.structs.replace(record.data, **{k: v for k, v in change.items() if k == "task"})
    rest = {k: v for k, v in change.items() if k != "task"}
    write_record(run, msgspec.structs.replace(record, data=data, **rest))
    with pytest.raises(InputError, match=words):
        zoo.calibrate(run)


@pytest.mark.parametrize("value", [0, -1, "warm", None, [1]])
def test_a_damaged_temperature_is_named(run: Path, value: object) -> None:
    write_result(run, {**read_result(run), "calibration": {"temperature": value}})
    with pytest.raises(RunError, match=r"calibration.temperature"):
        zoo.load(run)
    assert load_registry()


def test_a_run_that_is_extended_says_that_its_calibration_ends(plugin_index: Path, run: Path, tmp_path: Path) -> None:
    zoo.calibrate(run)
    with (
        small_catalogue(tmp_path, plugin_index),
        pytest.warns(UserWarning, match="its calibration is that of the shorter"),
    ):
        longer = zoo.resume(run, epochs=3)
    assert "calibration" not in read_result(longer.folder)
