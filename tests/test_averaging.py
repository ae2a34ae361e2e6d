"""Slow weights, running means and views at test time: what they are, that they are kept, recorded and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from run_modules import load_run
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.catalogue.recipe import Lookahead, Recipe
from zoo.catalogue.registry import load_registry
from zoo.errors import InputError, ShapeError, SpecError
from zoo.evaluate.opened import open_run, recorded_metrics
from zoo.evaluate.views import views
from zoo.runs.folder import read_result
from zoo.runs.record import CHECKPOINTS, read_record, write_record
from zoo.studies.report.measure import look
from zoo.train import checkpoint
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.optim.averaging import Averaging, alpha_at
from zoo.train.plan import replan, resolve
from zoo.train.processes.world import _check_sharding
from zoo.train.run_options import Request
from zoo.train.task import refuse_for_task

TINY = """
[models.tiny]
summary = "a small mixture for tests"
family = "test"
recipe = "tiny"
dataset = "digits"
build = { use = "hybrid.classifier", body = { use = "cnn.residual", widths = [6] } }

[recipes.tiny]
epochs = 2
batch_size = 64
optimizer = "muon"
lr = 0.01
momentum = 0.9
ema = 0.9
lookahead = { every = 3, alpha = 0.5, power = 2.0 }
tta = "mirror-translate"
select = "last"
groups = [{ match = "last", optimizer = "nesterov", lr = 0.05, epochs = 1 }]
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "registry.toml").write_text(TINY)
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(tmp_path / "user"))
    return "tiny"


def trainer_of(folder: Path, *settings: str, **more: Any) -> Trainer:
    plan = resolve(
        Request(model="tiny", recipe="tiny", device="cpu", limit_train=300, limit_test=120, settings=settings)
    )
    folder.mkdir()
    write_record(folder, plan.record)
    return Trainer(plan, folder, **more)


# ---- averages -------------------------------------------------------------------------------


def test_slow_weights_go_their_share_of_the_way_and_the_fast_ones_go_back_to_them() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    start = module[0].weight.detach().clone()
    averaging = Averaging(module, Recipe(lookahead=Lookahead(every=2, alpha=0.25)))
    averaging.begin()
    for step in range(4):
        with torch.no_grad():
            module[0].weight += 1.0
            module[1].running_mean += 1.0
            module[1].num_batches_tracked += 1
        averaging.update(step, 4)
        fast, slow = module[0].weight, averaging.chosen()[0].weight
        moved = {0: (1.0, 0.0), 1: (0.5, 0.5), 2: (1.5, 0.5), 3: (1.0, 1.0)}[step]
        torch.testing.assert_close(fast, start + moved[0])
        torch.testing.assert_close(slow, start + moved[1])
    torch.testing.assert_close(module[1].running_mean, torch.ones(2))  # statistics go the same way
    assert module[1].num_batches_tracked == averaging.chosen()[1].num_batches_tracked == 4


def test_the_share_of_lookahead_falls_from_one_by_a_power_of_progress() -> None:
    assert [alpha_at(Lookahead(alpha=0.2), done, 10) for done in (1, 10)] == pytest.approx([0.2, 0.2])
    falling = [alpha_at(Lookahead(alpha=0.2, power=3), done, 10) for done in (0, 5, 10)]
    assert falling == pytest.approx([1.0, 0.9, 0.2])


def test_the_running_mean_is_the_sum_that_its_decay_says() -> None:
    module = nn.Linear(1, 1)
    averaging, expected = Averaging(module, Recipe(ema=0.3)), None
    for step in range(8):
        with torch.no_grad():
            module.weight.fill_(float(step**2))
        averaging.update(step, 8)
        decay = {1: 2 / 11, 2: 3 / 12}.get(step, 0.3)  # it grows to what the recipe says
        expected = step**2 if expected is None else decay * expected + (1 - decay) * step**2
    assert averaging.chosen().weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("recipe", [Recipe(ema=0.998), Recipe(lookahead=Lookahead(every=2, alpha=0.3))])
def test_buffers_that_no_mean_can_be_taken_of_are_the_trained_ones(recipe: Recipe) -> None:
    module = nn.Linear(1, 1)
    module.register_buffer("index", torch.arange(300))  # as relative positions in Swin and BEiT
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)
    averaging = Averaging(module, recipe)
    averaging.begin()
    for step in range(50):
        averaging.update(step, 50)
    for kept in (averaging.chosen(), module):
        assert kept.index.tolist() == list(range(300))
        assert kept.mask.tolist() == [0.0, -torch.inf]


def test_without_averages_the_trained_module_is_chosen_and_there_is_no_state() -> None:
    module = nn.Linear(1, 1)
    averaging = Averaging(module, Recipe())
    averaging.begin()
    averaging.update(0, 1)
    assert averaging.chosen() is module
    assert averaging.state() == {}


def test_a_run_keeps_its_slow_weights(tiny: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", "ema=0.0")
    trainer.fit()
    slow = trainer.average.slow
    assert slow is not None
    kept = load_run(tmp_path / "run").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in slow.module.state_dict().items())
    assert trainer.total % 3  # so the last steps were not followed, and the trained weights are others
    assert not all(torch.equal(kept[name], value) for name, value in trainer.module.state_dict().items())


@pytest.mark.parametrize("forgotten", ["nothing", "slow", "ema", "muon"])
def test_a_stopped_run_with_slow_weights_and_two_optimizers_ends_as_the_whole_one(
    forgotten: str, tiny: str, tmp_path: Path
) -> None:
    trainer_of(tmp_path / "whole").fit()
    asked = iter([0] * 7 + [15] * 9)
    with pytest.raises(Stop):
        trainer_of(tmp_path / "run", stop=lambda: next(asked), saving=Saving(0, 0)).fit()
    again = Trainer(replan(read_record(tmp_path / "run")), tmp_path / "run")
    found = checkpoint.newest(tmp_path / "run" / CHECKPOINTS)
    assert found is not None
    fresh = again.average.state()
    if forgotten in fresh:
        found.state["average"][forgotten] = fresh[forgotten]
    again.restore(found.state)
    if forgotten == "muon":
        again.optimizer.parts[-1].state.clear()
    again.fit()
    a, b = (load_run(tmp_path / name).state_dict() for name in ("whole", "run"))
    assert all(torch.equal(a[name], b[name]) for name in a) == (forgotten == "nothing")


# ---- views ----------------------------------------------------------------------------------


def looks(images: Tensor) -> Tensor:
    """Logits that say where things are: three pixels and a product."""
    return torch.stack((images[:, 0, 0, 0], images[:, 1, 2, 3], images[:, 0, 1, 1] * images[:, 2, 0, 2]), 1)


def test_the_views_are_the_mirror_image_and_one_pixel_either_way() -> None:
    images = torch.randn(4, 3, 5, 6)
    assert views(looks, "none") is looks
    mirror = (looks(images) + looks(images.flip(-1))) / 2
    torch.testing.assert_close(views(looks, "mirror")(images), mirror)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    total = 2 * mirror
    for moved in (padded[:, :, :5, :6], padded[:, :, 2:, 2:]):
        total = total + (looks(moved) + looks(moved.flip(-1))) / 2
    torch.testing.assert_close(views(looks, "mirror-translate")(images), total / 4)


def test_the_eight_views_of_a_square_do_not_tell_how_it_lies() -> None:
    images = torch.randn(4, 3, 5, 5)
    ways = [images.rot90(k, (2, 3)) for k in range(4)]
    pairs = [(looks(way) + looks(way.flip(-1))) / 2 for way in ways]
    expected = torch.stack([pair.exp() for pair in pairs]).mean(0).log()
    ways += [way.mT for way in ways]
    assert len({tuple(way[0].flatten().tolist()) for way in ways}) == 8
    for way in ways:
        torch.testing.assert_close(views(looks, "dihedral")(way), expected)


def test_views_that_need_a_square_are_refused_before_training(tiny: str, tmp_path: Path) -> None:
    for i in range(60):
        path = tmp_path / "wide" / ("train" if i < 40 else "test") / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (4 * i, 0, 0)).save(path)
    wide = f"folder:{tmp_path}/wide"
    request = Request(model="tiny", recipe="tiny", dataset=wide, settings=("recipe.tta=dihedral",))
    with pytest.raises(ShapeError, match=r"tta dihedral .*12x16; pass --image-size"):
        resolve(request)
    assert resolve(msgspec.structs.replace(request, image_size=16)).record.settings.tta == "dihedral"


@pytest.mark.parametrize("tta", ["mirror", "mirror-translate"])
def test_an_image_and_its_mirror_image_are_the_same_to_the_views(tta: Any) -> None:
    images = torch.randn(4, 3, 5, 6)
    forward = views(looks, tta)
    torch.testing.assert_close(forward(images), forward(images.flip(-1)) if tta == "mirror" else forward(images))
    assert not torch.allclose(looks(images), looks(images.flip(-1)))


def test_the_views_are_recorded_and_measured_again(tiny: str, tmp_path: Path) -> None:
    from zoo.cli import cli

    result = trainer_of(tmp_path / "run").fit()
    assert result["tta"] == read_result(tmp_path / "run")["tta"] == "mirror-translate"
    record = read_record(tmp_path / "run")
    assert record.settings.tta == "mirror-translate"
    opened = open_run(tmp_path / "run")
    measured = opened.measure().as_dict()
    assert measured == recorded_metrics(tmp_path / "run")
    assert opened.confusion().diagonal().sum() == measured["correct"]

    done = CliRunner().invoke(cli, ["eval", str(tmp_path / "run"), "--json"])
    assert json.loads(done.stdout)["tta"] == "mirror-translate"
    done = CliRunner().invoke(cli, ["eval", str(tmp_path / "run")])
    assert "over the views mirror-translate" in done.stdout

    plain = msgspec.structs.replace(record, settings=msgspec.structs.replace(record.settings, tta="none"))
    write_record(tmp_path / "run", plain)
    assert open_run(tmp_path / "run").measure().as_dict()["loss"] != measured["loss"]


@pytest.mark.parametrize("tta", ["mirror", "mirror-translate", "dihedral"])
def test_images_of_which_the_network_is_sure_are_seen_once(tta: Any) -> None:
    images = torch.randn(32, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    first = looks(images).softmax(1).sort(descending=True).values
    unsure = first[:, 0] - first[:, 1] < 0.4
    assert 5 < unsure.sum() < 27
    seen = []

    def counted(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return looks(batch)

    found, alone, over_all = views(counted, tta, 0.4)(images), looks(images), views(looks, tta)(images)
    assert torch.equal(found[~unsure], alone[~unsure])
    torch.testing.assert_close(found[unsure], over_all[unsure])
    assert not torch.allclose(found[unsure], alone[unsure])
    number = {"mirror": 2, "mirror-translate": 6, "dihedral": 8}[tta]
    assert (sum(seen), max(seen)) == (32 + number * int(unsure.sum()), 32)  # and never more than a batch at once


def test_a_batch_of_sure_images_is_seen_once_and_one_class_is_always_sure() -> None:
    images, seen = torch.randn(4, 3, 5, 5), list[int]()

    def sure(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return torch.tensor([[9.0, 0.0]]).expand(len(batch), 2)

    assert torch.equal(views(sure, "mirror", 0.9)(images), sure(images))
    assert seen == [4, 4]
    assert views(lambda batch: batch[:, :1, 0, 0], "mirror", 0.9)(images).tolist() == images[:, :1, 0, 0].tolist()


def test_the_margin_is_recorded_measured_again_and_refused_for_several_labels(tiny: str, tmp_path: Path) -> None:
    plain = trainer_of(tmp_path / "plain").fit()
    result = trainer_of(tmp_path / "run", "tta_margin=0.02").fit()
    assert (result["tta_margin"], "tta_margin" in plain) == (0.02, False)
    assert "tta_margin" not in (tmp_path / "plain" / "run.toml").read_text()
    assert read_record(tmp_path / "run").settings.tta_margin == 0.02
    opened = open_run(tmp_path / "run")
    assert opened.measure().as_dict() == recorded_metrics(tmp_path / "run")
    assert result["test"]["loss"] != plain["test"]["loss"]
    document = zoo.evaluate(tmp_path / "run").document
    assert (document["tta_margin"], document["loss"]) == (0.02, result["test"]["loss"])
    with pytest.raises(InputError, match=r"recipe.tta_margin 0.02: .* have no one class; allowed: not set"):
        refuse_for_task(msgspec.structs.replace(Recipe(), loss="bce", select="map", tta_margin=0.02), "multi-label")


def test_processes_that_divide_a_model_take_as_many_passes_each(tiny: str, tmp_path: Path) -> None:
    plan = trainer_of(tmp_path / "run", "tta=mirror", "tta_margin=0.02", "optimizer=adamw").plan
    with pytest.raises(InputError, match=r"--shard cannot be combined with recipe\.tta_margin"):
        _check_sharding(plan)


def test_a_report_counts_what_the_views_say(tiny: str, tmp_path: Path) -> None:
    result = trainer_of(tmp_path / "run", "tta=dihedral").fit()
    record = read_record(tmp_path / "run")
    plain = msgspec.structs.replace(record, settings=msgspec.structs.replace(record.settings, tta="none"))
    found = [look(tmp_path / "run", record, load_registry())]
    write_record(tmp_path / "run", plain)
    found.append(look(tmp_path / "run", plain, load_registry()))
    with_views, without = (sum(n for i, j, n in seen.cells if i == j) for seen, _ in found if seen)
    assert with_views == result["test"]["correct"] != without  # turned digits are other digits


def test_an_unknown_view_is_named_with_those_that_are_allowed(tiny: str) -> None:
    with pytest.raises(SpecError, match=r"tta: .*'rotate'; allowed: 'none', 'mirror', 'mirror-translate', 'dihedral'"):
        resolve(Request(model="tiny", settings=("recipe.tta=rotate",)))
