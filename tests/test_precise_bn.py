"""Batch norm's statistics, computed anew: what they are, what stays as it was, and that a resume gives the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from run_modules import load_run
from torch import Tensor, nn

from zoo.plugin.layers import Dropout
from zoo.runs.record import CHECKPOINTS, read_record, write_record
from zoo.train import checkpoint
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.plan import replan, resolve
from zoo.train.precise_bn import renew_statistics, some_images
from zoo.train.run_options import Request
from zoo_cnn.speedrun import BiasNorm


def dropped() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Dropout(0.5), nn.MaxPool2d(2), nn.BatchNorm2d(4)
    )


def batches(count: int) -> list[Tensor]:
    return list(torch.rand(count, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_the_statistics_are_the_mean_of_the_batches_without_dropout() -> None:
    module, images = dropped(), batches(3)
    for x in images:
        module(x)  # running statistics of training, under dropout
    renew_statistics(module, images)
    seen = [module[0](x) for x in images]
    torch.testing.assert_close(module[1].running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
    torch.testing.assert_close(module[1].running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0))
    after = [nn.functional.max_pool2d(module[1].train()(x).relu(), 2) for x in seen]
    torch.testing.assert_close(module[5].running_mean, torch.stack([x.mean((0, 2, 3)) for x in after]).mean(0))


def test_modes_momentum_and_counts_stay_as_they_were() -> None:
    module, images = dropped(), batches(2)
    for x in batches(5):
        module(x)
    module[3].eval()
    module[1].momentum = 0.3
    renew_statistics(module, images)
    assert [m.training for m in module] == [True, True, True, False, True, True]
    assert (module[1].momentum, module[5].momentum) == (0.3, 0.1)
    assert module[1].num_batches_tracked == 5
    again = copy.deepcopy(module)
    renew_statistics(again, images)
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), again.buffers(), strict=True))


def test_frozen_norms_and_models_without_norms_are_left_alone() -> None:
    module = dropped().requires_grad_(False)
    before = [b.clone() for b in module.buffers()]
    renew_statistics(module, batches(2))
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), before, strict=True))
    renew_statistics(nn.Linear(2, 2), iter(()))
    bare = nn.Sequential(nn.Conv2d(3, 4, 3).requires_grad_(False), nn.BatchNorm2d(4, affine=False))
    renew_statistics(bare, batches(2))  # part of what is frozen
    assert not bare[1].running_mean.any()


def test_a_norm_whose_scale_alone_is_constant_has_its_statistics_renewed() -> None:
    torch.manual_seed(0)
    module, images = nn.Sequential(nn.Conv2d(3, 4, 3), BiasNorm(4, 0.6)), batches(2)
    renew_statistics(module, images)
    seen = [module[0](x) for x in images]
    torch.testing.assert_close(module[1].running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))


def trainer_of(folder: Path, *settings: str, **more: Any) -> Trainer:
    plan = resolve(
        Request(
            model="cnn-baseline-bn-dropout",
            dataset="digits",
            device="cpu",
            limit_train=300,
            limit_test=120,
            settings=("epochs=3", "batch_size=32", "lr=0.003", *settings),
        )
    )
    folder.mkdir()
    write_record(folder, plan.record)
    return Trainer(plan, folder, **more)


@pytest.mark.parametrize("average", ["ema=0.0", "ema=0.9"])
def test_a_stopped_run_ends_as_the_whole_one(average: str, tmp_path: Path) -> None:
    settings = (average, "precise_bn=200")
    trainer_of(tmp_path / "whole", *settings).fit()
    asked = iter([0] * 12 + [15] * 9)
    with pytest.raises(Stop):
        trainer_of(tmp_path / "run", *settings, stop=lambda: next(asked), saving=Saving(0, 0)).fit()
    again = Trainer(replan(read_record(tmp_path / "run")), tmp_path / "run")
    found = checkpoint.newest(tmp_path / "run" / CHECKPOINTS)
    assert found is not None
    again.restore(found.state)
    again.fit()
    a, b = (load_run(tmp_path / name).state_dict() for name in ("whole", "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_keeps_the_statistics_of_its_training_images(tmp_path: Path) -> None:
    """The weights are the same to the bit, as statistics do not train; only what evaluation sees differs."""
    trainers = [trainer_of(tmp_path / str(count), f"precise_bn={count}", "select=last") for count in (0, 256)]
    plain, precise = (trainer.fit()["validation"]["loss"] for trainer in trainers)
    assert plain != precise
    weights = [dict(trainer.module.named_parameters()) for trainer in trainers]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for trainer, agree in zip(trainers, (False, True), strict=True):
        again = copy.deepcopy(trainer.module)
        renew_statistics(again, some_images(trainers[1].plan, trainer.augment.prepare))
        pairs = zip(again.buffers(), trainer.module.buffers(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == agree


def test_the_images_are_the_same_in_every_epoch_and_not_more_than_asked_for(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", "precise_bn=100")
    first, second = (list(some_images(trainer.plan, trainer.augment.prepare)) for _ in range(2))
    assert sum(map(len, first)) == 100
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
