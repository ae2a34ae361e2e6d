"""Learning without labels: hidden squares are filled in, and what is learnt so begins a fine-tuning."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from hub_server.runs import own_caches
from small_runs import trained, trainer
from torch import nn

import zoo
from zoo.cli import cli
from zoo.errors import InputError, RunError
from zoo.runs.folder import read_metrics, read_result, read_weights
from zoo.runs.record import CHECKPOINTS, read_record
from zoo.runs.without_labels import refuse_without_labels
from zoo.train import checkpoint
from zoo.train.hidden_squares import draw_hidden, hidden_of_held_out, pixels_of, squares
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.masked_images import Decoder, Reconstruction, difference
from zoo.train.optim.freeze import logits_layer
from zoo.train.plan import resolve
from zoo.train.processes.world import World
from zoo.train.run_options import Request
from zoo.train.start import plan_from, plan_of, resumed

MODEL = "cnn-baseline-bn"
ALONE = "was trained without labels and tells no classes apart; fine-tune it: zoo train cnn-baseline-bn --weights"


def request(*settings: str, **more: Any) -> Request:
    asked = {"model": MODEL, "recipe": "pretrain", "dataset": "digits", "limit_train": 200, "limit_test": 50}
    return Request(**{**asked, "device": "cpu", "epochs": 1, **more}, settings=("mask.patch=2", *settings))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on digits that learnt without their labels."""
    folder = tmp_path_factory.mktemp("pretrain")
    torch.set_num_threads(1)
    with own_caches(folder):
        trainer(resolve(request(epochs=2)), folder / "run").fit()
        yield folder / "run"


# ---- the loss -----------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_difference_of_the_hidden_pixels() -> None:
    drawn = torch.Generator().manual_seed(1)
    made, images = (torch.randn(3, 2, 7, 6, generator=drawn) for _ in range(2))
    hidden = draw_hidden(3, squares(7, 6, 4), 0.5, drawn)
    found = difference(made, images, pixels_of(hidden, 4, 7, 6))
    for one in range(3):
        far = [
            abs(float(made[one, c, y, x]) - float(images[one, c, y, x]))
            for c in range(2)
            for y in range(7)
            for x in range(6)
            if hidden[one, y // 4, x // 4]
        ]
        assert found[one].item() == pytest.approx(math.fsum(far) / len(far), abs=1e-5)


def test_what_is_not_hidden_does_not_count() -> None:
    drawn = torch.Generator().manual_seed(2)
    made, images, other = (torch.randn(4, 3, 8, 8, generator=drawn) for _ in range(3))
    pixels = pixels_of(draw_hidden(4, (4, 4), 0.6, drawn), 2, 8, 8)
    before = difference(made, images, pixels)
    assert torch.equal(difference(made, torch.where(pixels, images, other), pixels), before)
    assert not torch.isclose(difference(made, torch.where(pixels, other, images), pixels), before).any()


def test_of_each_image_as_many_squares_are_hidden_and_others_each_time() -> None:
    hidden = draw_hidden(64, (4, 8), 0.6, torch.Generator().manual_seed(3))
    assert set(hidden.flatten(1).sum(1).tolist()) == {19}
    assert len({tuple(row.tolist()) for row in hidden.flatten(1)}) == 64
    assert (hidden.float().mean(0) - 0.6).abs().max() < 0.25
    assert [int(draw_hidden(1, (2, 2), share, torch.Generator()).sum()) for share in (0.01, 0.99)] == [1, 3]


def test_images_that_are_held_out_hide_the_same_in_whatever_batches_they_come() -> None:
    whole = hidden_of_held_out(0, 200, (4, 4), 0.6)
    parts = [hidden_of_held_out(first, count, (4, 4), 0.6) for first, count in ((0, 50), (50, 100), (150, 50))]
    assert torch.equal(torch.cat(parts), whole)
    assert len({tuple(row.tolist()) for row in whole.flatten(1)}) > 150


def test_the_model_does_not_see_what_is_hidden() -> None:
    model = timm.create_model("test_vit", img_size=32, num_classes=3).eval()
    images, other = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    whole = Reconstruction(model, Decoder(model, model.forward_features(images), (3, 32, 32)))
    pixels = pixels_of(draw_hidden(2, (8, 8), 0.6, torch.Generator().manual_seed(5)), 4, 32, 32)
    made = whole(images, pixels)
    assert made.shape == images.shape
    assert torch.equal(whole(torch.where(pixels, other, images), pixels), made)
    assert not torch.equal(whole(torch.where(pixels, images, other), pixels), made)


class _Given(nn.Module):
    """Says of its features what timm's models say of theirs."""

    def __init__(self, num_prefix_tokens: int, output_fmt: str) -> None:
        super().__init__()
        self.num_prefix_tokens, self.output_fmt = num_prefix_tokens, output_fmt


@pytest.mark.parametrize(
    ("shape", "prefix", "form", "grid"),
    [
        ((2, 5, 2, 4), 0, "NCHW", (2, 4)),
        ((2, 2, 4, 5), 0, "NHWC", (2, 4)),
        ((2, 9, 5), 1, "NCHW", (2, 4)),
        ((2, 7, 5), 0, "NCHW", (1, 1)),
        ((2, 5), 0, "NCHW", (1, 1)),
    ],
)
def test_each_place_is_mapped_to_the_pixels_that_lie_there(
    shape: tuple[int, ...], prefix: int, form: str, grid: tuple[int, int]
) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    decoder = Decoder(_Given(prefix, form), features, (3, 8, 16))
    made = decoder(features)
    assert decoder.grid == grid
    assert made.shape == (2, 3, 8, 16)
    if grid == (2, 4):
        token = (
            features[0, 1 + prefix + 4]
            if len(shape) == 3
            else features[0, :, 1, 1]
            if form == "NCHW"
            else features[0, 1, 1]
        )
        assert torch.allclose(made[0, :, 4:8, 4:8].flatten(), decoder.map(token), atol=1e-6)


def test_a_map_that_does_not_divide_the_image_is_scaled_to_it() -> None:
    features = torch.randn(2, 5, 7, 7)
    assert Decoder(nn.Identity(), features, (3, 32, 32))(features).shape == (2, 3, 32, 32)


# ---- what holds for any run ---------------------------------------------------------------------------


def test_a_step_learns_the_difference_that_an_own_computation_gives(tmp_path: Path) -> None:
    plan = resolve(request("precision=fp32"))
    made = trainer(plan, tmp_path / "run")
    made.module.eval()
    images = made.augment.prepare(torch.as_tensor(np.asarray(plan.train.images[:8])))
    hidden = made.lesson.targets(torch.zeros(8), World().share(8), 8, torch.Generator().manual_seed(7))
    loss, hits = made.lesson.judge(made.forward, made.loss, images, hidden, torch.zeros(8), 8, None)  # type: ignore[arg-type]
    cells = hidden.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand_as(images)
    features = made.module.forward_features(images * ~cells)  # type: ignore[operator]
    filled = made.lesson.decoder(features)  # type: ignore[union-attr]
    assert loss.item() == pytest.approx((filled - images).abs()[cells].mean().item(), abs=1e-5)
    assert not hits


def test_a_resumed_run_is_the_one_that_nobody_stopped(tmp_path: Path) -> None:
    plan = resolve(request("ema=0.9", epochs=2))
    whole = trained(plan, tmp_path / "whole")
    folder = tmp_path / "stopped"
    steps = iter([0] * 3 + [15])
    with pytest.raises(Stop):
        trainer(plan, folder, stop=lambda: next(steps), saving=Saving(0, 1)).fit()
    again = Trainer(resumed(folder, read_record(folder)), folder)
    found = checkpoint.newest(folder / CHECKPOINTS)
    assert found is not None
    again.restore(found.state)
    again.fit()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in again.module.state_dict().items())
    keys = ("train_loss", "val_loss")
    rows, expected = (read_metrics(place)[-1] for place in (folder, tmp_path / "whole"))
    assert [rows[key] for key in keys] == [expected[key] for key in keys]
    assert "decoder" in found.state
    assert read_weights(folder).keys() == whole.keys()  # nothing of the decoder


def test_the_head_is_not_trained_and_all_else_is(tmp_path: Path) -> None:
    made = trainer(resolve(request("weight_decay=0.5")), tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in made.module.named_parameters()}
    made.fit()
    same = {name for name, tensor in made.module.named_parameters() if torch.equal(tensor, before[name])}
    assert same == {name for name, tensor in made.module.named_parameters() if not tensor.requires_grad}
    assert logits_layer(made.module) <= same < before.keys()


def test_a_run_without_labels_records_no_accuracy(run: Path) -> None:
    result, rows = read_result(run), read_metrics(run)
    assert result["test"] is None
    assert set(result["validation"]) == {"loss", "count"}
    assert result["validation"]["loss"] == pytest.approx(min(row["val_loss"] for row in rows), rel=1e-2)
    assert rows[1]["val_loss"] < rows[0]["val_loss"]
    assert not any("top1" in key or "accuracy" in key or "f1" in key for key in rows[0])
    assert zoo.Run.open(run).top1 is None


# ---- fine-tuning --------------------------------------------------------------------------------------


def test_fine_tuning_takes_all_weights_but_the_last_layer(run: Path) -> None:
    plan = plan_of(Request(model=MODEL, dataset="digits", device="cpu", limit_train=200, weights=str(run)))
    fresh = plan_of(Request(model=MODEL, dataset="digits", device="cpu", limit_train=200)).build().state_dict()
    learnt, built = read_weights(run), plan.build().state_dict()
    anew = {name for name in built if name not in plan.weights}
    assert len(anew) == 2
    assert all(torch.equal(built[name], fresh[name]) for name in anew)
    assert all(torch.equal(built[name], learnt[name]) for name in built.keys() - anew)
    assert "newly initialised" in plan.messages[0]
    assert plan.record.settings.objective == "labels"


def test_from_a_run_without_labels_a_dataset_is_learnt_with_them(run: Path) -> None:
    plan = plan_from(str(run), {"dataset": "digits", "device": "cpu", "limit_train": 200})
    settings = plan.record.settings
    assert (settings.objective, settings.mask, settings.select) == ("labels", None, "top1")
    assert plan_from(str(run), {}).record.settings.objective == "masked"  # repeated as it was


# ---- what is said, and what cannot be -------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["predict {run} {image}", "eval {run}", "export {run}", "package {run}", "serve {run}", "calibrate {run}"]
)
def test_who_asks_it_for_classes_is_told_to_fine_tune_it(words: str, run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, words.format(run=run, image=tmp_path / "none.png").split())
    assert isinstance(done.exception, RunError)
    assert f"{run}: {ALONE} {run}" in str(done.exception)
    with pytest.raises(RunError, match=f"{ALONE} 'a run'; "):
        refuse_without_labels(read_record(run), "a run")


def test_its_features_are_there(run: Path, tmp_path: Path) -> None:
    embedded = zoo.embed(run, output=tmp_path / "features.parquet")
    assert len(embedded.features) == 250
    loaded = zoo.load(run)
    with pytest.raises(RunError, match="without labels"):
        loaded.predict(np.zeros((8, 8, 3), np.uint8))
    assert zoo.probe(run, method="knn").rows[0]["top1"] > 0.2


def test_its_curves_and_its_row_have_no_accuracy(run: Path) -> None:
    done = CliRunner().invoke(cli, ["runs", str(run), "--json"])
    row = json.loads(done.stdout)[0]
    assert (row["top1"], row["val_top1"]) == (None, None)
    assert row["val_loss"] > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("select=top1",), 'recipe.select top1: the objective "masked" learns no labels; allowed: loss, last'),
        (("mask.patch=8",), "recipe.mask.patch 8: an image of 8x8 is one such square; give a smaller one"),
        (("teacher=hybrid-alt-1@digits",), "--teacher cannot be used with recipe.objective"),
    ],
)
def test_what_needs_labels_is_refused(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve(request(*settings))


def test_another_recipe_drops_what_needs_labels() -> None:
    plan = resolve(request("objective=masked", recipe="best-small-cnn-bn"))
    assert (plan.recipe.select, plan.recipe.precise_bn) == ("loss", 0)
    assert any("images without labels: " in line for line in plan.messages)
