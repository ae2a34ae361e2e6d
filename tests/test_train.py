"""Training on the embedded digits: real models, real runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from run_modules import load_run as load

from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import DeviceError, InputError, RunError, SpecError, TrainingError, UnknownNameError
from zoo.evaluate.opened import open_run, recorded_metrics
from zoo.runs.curves import draw
from zoo.runs.find import read
from zoo.runs.folder import read_metrics, read_result
from zoo.runs.record import CURVES, METRICS, RECORD, RESULT, WEIGHTS, read_record, write_record
from zoo.train.events import Listener
from zoo.train.loop import Stop, Trainer
from zoo.train.plan import resolve
from zoo.train.recipe_settings import Beginning, resolved_recipe
from zoo.train.run_options import Request

SMALL = """
[models.tiny]
summary = "a small mixture for tests"
family = "test"
recipe = "tiny"
dataset = "digits"
[models.tiny.build]
use = "hybrid.classifier"
body = { use = "cnn.residual", widths = [8, 8] }

[recipes.tiny]
epochs = 2
batch_size = 128
lr = 3e-3
augment = [{ op = "crop", padding = 1 }]
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "registry.toml").write_text(SMALL)
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(folder))
    return "tiny"


def train(folder: Path, listener: Listener | None = None, stop: Any = lambda: 0, **asked: Any) -> dict[str, Any]:
    plan = resolve(Request(**{"model": "tiny", "device": "cpu", **asked}))
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, plan.record)
    return Trainer(plan, folder, listener, stop).fit()


def test_a_run_learns_and_its_folder_reloads_to_the_same_test_result(tiny: str, tmp_path: Path) -> None:
    result = train(tmp_path / "run", epochs=4)
    assert result["test"]["top1"] > 0.5
    rows = read_metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert result == read_result(tmp_path / "run")
    for key in ("seconds", "images_per_second"):
        assert result["train"][key] > 0
    assert open_run(tmp_path / "run").measure().as_dict() == recorded_metrics(tmp_path / "run")
    for name in (RECORD, METRICS, WEIGHTS, RESULT, CURVES):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert (tmp_path / "run" / CURVES).read_bytes() == draw([read(tmp_path / "run")])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny: str, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / name, seed=seed, epochs=1)
    a, b, c = ((tmp_path / name / WEIGHTS).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_clean_protocol_reads_the_test_split_once_and_paper_selects_on_it(tiny: str, tmp_path: Path) -> None:
    clean = train(tmp_path / "clean")
    paper = train(tmp_path / "paper", protocol="paper")
    assert clean["selection"]["split"] == "validation"
    assert paper["selection"]["split"] == "test"
    assert all("test_top1" not in row for row in read_metrics(tmp_path / "clean"))
    best = max(row["test_top1"] for row in read_metrics(tmp_path / "paper"))
    assert paper["test"]["top1"] == pytest.approx(best, abs=0.02)
    record = read_record(tmp_path / "paper")
    assert record.data.validation == 0
    assert record.data.train > read_record(tmp_path / "clean").data.train


def test_an_altered_training_set_is_validated_on_images_of_every_alteration(tiny: str, tmp_path: Path) -> None:
    """The first alteration here leaves nothing to see, so that images of it alone score as chance does."""
    dataset = "sklearn:digits?alter_train=brightness:0,original"
    result = train(tmp_path / "run", dataset=dataset, epochs=3)["validation"]
    assert result["count"] == read_record(tmp_path / "run").data.validation == 2 * 144
    assert result["top1"] > 0.3
    again = CliRunner().invoke(cli, ["eval", str(tmp_path / "run"), "--split", "val"])
    assert "the same as recorded" in again.stderr, again.stdout


def test_the_selected_weights_are_those_of_the_best_epoch_not_the_last(tiny: str, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Keep(Listener):
        def epoch(self, row: dict[str, Any], best: bool) -> None:
            seen.append({k: v.clone() for k, v in trainer.module.state_dict().items()})

    plan = resolve(Request(model="tiny", device="cpu", epochs=6, lr=0.05))
    folder = tmp_path / "run"
    folder.mkdir()
    write_record(folder, plan.record)
    trainer = Trainer(plan, folder, Keep())
    result = trainer.fit()
    scores = [row["val_top1"] for row in read_metrics(folder)]
    best = result["selection"]["epoch"]
    assert scores[best - 1] == max(scores)
    assert best == scores.index(max(scores)) + 1
    kept = load(folder).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[best - 1].items())


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "nesterov", "muon", "timm:lion"])
def test_every_optimizer_name_trains(name: str, tiny: str, tmp_path: Path) -> None:
    lr = 0.003 if name != "timm:lion" else 3e-4
    settings = (f"recipe.optimizer={name}", "recipe.weight_decay=0.01")
    train(tmp_path / "run", settings=settings, lr=lr, epochs=2)
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_averaged_weights_are_what_is_kept(tiny: str, tmp_path: Path) -> None:
    train(tmp_path / "run", settings=("ema=0.9", "select=last"), epochs=2)
    plain = train(tmp_path / "plain", settings=("select=last",), epochs=2)
    a, b = load(tmp_path / "run").state_dict(), load(tmp_path / "plain").state_dict()
    assert a.keys() == b.keys()
    assert not all(torch.equal(a[k], b[k]) for k in a)
    assert plain["train"]["steps"] == read_result(tmp_path / "run")["train"]["steps"]


def test_a_recipe_turns_a_models_dropout_off(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"dataset": "digits", "limit_train": 256, "limit_test": 64, "epochs": 1}
    train(tmp_path / "plain", model="cnn-baseline", **asked)
    train(tmp_path / "drops", model="cnn-baseline-dropout", **asked)
    train(tmp_path / "off", model="cnn-baseline-dropout", settings=("recipe.dropout=0.0",), **asked)
    plain, drops, off = (read_metrics(tmp_path / n)[0]["train_loss"] for n in ("plain", "drops", "off"))
    assert off == plain != drops
    assert read_record(tmp_path / "off").build == read_record(tmp_path / "drops").build
    with pytest.raises(InputError, match="no dropout layer"):
        train(tmp_path / "none", model="cnn-baseline", settings=("recipe.dropout=0.1",), **asked)


def test_accumulated_micro_batches_are_one_step(tiny: str, tmp_path: Path) -> None:
    settings = ("batch_size=64", "augment=[]", "optimizer=sgd")
    text = SMALL.replace("cnn.residual", "cnn.residual")
    assert text
    one = train(tmp_path / "one", settings=settings, max_steps=3, precision="fp32")
    two = train(tmp_path / "two", settings=(*settings, "accumulate=4"), max_steps=3, precision="fp32")
    assert one["train"]["steps"] == two["train"]["steps"] == 3
    first, second = (read_metrics(tmp_path / n)[0]["train_loss"] for n in ("one", "two"))
    assert first == pytest.approx(second, rel=0.1)  # batch norm sees smaller batches


def test_max_steps_ends_the_run_in_the_middle_of_an_epoch(tiny: str, tmp_path: Path) -> None:
    result = train(tmp_path / "run", max_steps=3, epochs=5)
    assert result["train"]["steps"] == 3
    assert len(read_metrics(tmp_path / "run")) == 1


def test_patience_ends_a_run_that_no_longer_gets_better(tiny: str, tmp_path: Path) -> None:
    result = train(tmp_path / "run", epochs=30, settings=("patience=2",), lr=1e-9, limit_train=300)
    assert result["train"]["epochs"] < 30


def test_a_stop_between_two_steps_keeps_the_best_weights(tiny: str, tmp_path: Path) -> None:
    asked = iter([0] * 15 + [15] * 99)
    with pytest.raises(Stop) as stopped:
        train(tmp_path / "run", epochs=5, stop=lambda: next(asked))
    assert stopped.value.signal == 15
    assert len(read_metrics(tmp_path / "run")) == 1
    assert sum(p.numel() for p in load(tmp_path / "run").parameters()) > 0
    assert recorded_metrics(tmp_path / "run") is None
    assert open_run(tmp_path / "run").measure().count == read_record(tmp_path / "run").data.test


def test_a_loss_that_is_not_finite_ends_the_run_with_step_and_lr(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite in step \d+ \(lr 1e\+30, training images \d+.*lower --lr"):
        train(tmp_path / "run", lr=1e30, settings=("optimizer=sgd",))


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"model": "hybrid-alt-9"}, UnknownNameError, "hybrid-alt"),
        ({"dataset": "digitz"}, UnknownNameError, "digits"),
        ({"recipe": "tinny"}, UnknownNameError, "tiny"),
        ({"recipe": "best"}, InputError, "no recipe `best`"),
        ({"settings": ("recipe.lrr=1",)}, SpecError, "unknown field `lrr`; allowed: .*lr,"),
        ({"settings": ("recipe.lr=fast",)}, SpecError, "expected `float`.*'fast'"),
        ({"settings": ("lr",)}, SpecError, "KEY=VALUE"),
        ({"settings": ("optimizer=adma",)}, SpecError, "no optimizer named 'adma'; allowed: adam"),
        ({"epochs": 0}, InputError, "--epochs must be at least 1, given 0"),
        ({"device": "tpu"}, InputError, "no device named 'tpu'"),
        ({"device": "cuda:63"}, DeviceError, "not available on this machine"),
        ({"precision": "fp8"}, SpecError, "'fp32', 'bf16'"),
        ({"limit_train": 0}, InputError, "at least 1"),
        ({"image_size": 0}, InputError, "--image-size must be at least 1, given 0"),
    ],
)
def test_bad_input_is_one_clear_line(
    asked: dict[str, Any], error: type[Exception], message: str, tiny: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        train(tmp_path / "run", **asked)
    assert "\n" not in str(caught.value)


def test_a_run_from_a_newer_version_and_damaged_runs_are_refused(tiny: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, epochs=1)
    record = (folder / RECORD).read_text()
    (folder / RECORD).write_text(record.replace("format = 1", "format = 99"))
    with pytest.raises(RunError, match=r"newer version .*format 99"):
        load(folder)
    (folder / RECORD).write_text(record[: len(record) // 2] + "\n= =")
    with pytest.raises(RunError, match="damaged"):
        load(folder)
    (folder / RECORD).write_text(record)
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(RunError, match=r"model\.safetensors: .*(damaged|describes)"):
        load(folder)
    with pytest.raises(RunError, match="no run folder"):
        load(tmp_path)


def test_record_and_result_are_plain_and_complete(tiny: str, tmp_path: Path) -> None:
    result = train(tmp_path / "run", epochs=1, seed=7)
    record = read_record(tmp_path / "run")
    assert record.seed == 7
    assert record.environment["torch"] == torch.__version__
    assert record.plugins["hybrid.classifier"].startswith("hybrid-zoo ")
    assert len(record.data.fingerprint) == 64
    assert math.isfinite(result["test"]["loss"])
    json.dumps(result)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (("warmup_epochs=3.5",), "the warm-up of 3.5 epochs is longer than the run of 2"),
        (("warmup_epochs=2",), ""),
        (('augment=[{op="cutout",size=8}]',), "cutout: a square of 8 pixels is as large as the images (8x8)"),
        (('augment=[{op="crop",padding=500}]',), "crop: a padding of 500 pixels is as wide as the images (8x8)"),
        (('augment=[{op="brightness",factor=0.0}]',), "brightness: a factor of 0 makes images black"),
        (('augment=[{op="cutout",size=7},{op="crop"},{op="brightness",factor=0.5}]',), ""),
    ],
)
def test_settings_that_make_no_sense_here_are_said(tiny: str, settings: tuple[str, ...], line: str) -> None:
    plan = resolve(Request(model=tiny, dataset="digits", device="cpu", epochs=2, settings=settings))
    said = [finding.line() for finding in plan.findings]
    assert [text[: len(line)] for text in said] == ([line] if line else [])


def test_a_dataset_adapts_a_models_own_recipe_and_not_one_that_is_named(tiny: str) -> None:
    own = resolve(Request(model="hybrid-alt-1", dataset="digits", device="cpu")).recipe
    named = resolve(Request(model="hybrid-alt-1", dataset="digits", recipe="mixture-vit", device="cpu")).recipe
    asked = resolve(Request(model="hybrid-alt-1", dataset="digits", epochs=3, device="cpu")).recipe
    assert [type(step).__name__ for step in own.augment] == ["Crop"]  # digits must not be mirrored
    assert [type(step).__name__ for step in named.augment] == ["Flip", "Jitter"]
    assert named.epochs == 50
    assert asked.epochs == 3


def test_a_dataset_without_views_leaves_no_margin_that_would_spare_them() -> None:
    registry = load_registry()
    request, model = Request(model="speedrun-94", dataset="digits"), registry.model("speedrun-94")
    _, recipe = resolved_recipe(request, registry, model, "digits", Beginning(recipe="speedrun-cpu"))
    assert (recipe.tta, recipe.tta_margin) == ("none", None)
    _, recipe = resolved_recipe(request, registry, model, "cifar10", Beginning(recipe="speedrun-cpu"))
    assert (recipe.tta, recipe.tta_margin) == ("mirror-translate", 0.5)


@pytest.mark.slow
def test_a_compiled_run_learns_what_the_plain_one_learns(tiny: str, tmp_path: Path) -> None:
    settings = ("augment=[]", "epochs=3")
    asked: dict[str, Any] = {"precision": "fp32", "settings": settings, "limit_train": 700}
    plain = train(tmp_path / "off", compile="off", **asked)
    compiled = train(tmp_path / "default", compile="default", **asked)
    assert plain["train"]["warm_up_seconds"] == 0 < compiled["train"]["warm_up_seconds"]
    both = zip(read_metrics(tmp_path / "off"), read_metrics(tmp_path / "default"), strict=True)
    for off, on in both:
        assert on["train_loss"] == pytest.approx(off["train_loss"], rel=1e-4)
        # Adam moves a bias in front of a batch norm by the rounding of a zero gradient; running means follow.
        assert on["val_loss"] == pytest.approx(off["val_loss"], rel=1e-2)
    assert compiled["test"]["count"] == 360
