"""Whether a step is finite, judged behind the backward pass where that is recorded: the same as judged after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from run_modules import load_run
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.catalogue.recipe import Recipe
from zoo.errors import TrainingError
from zoo.runs.record import write_record
from zoo.train.loop import Trainer
from zoo.train.not_finite import Guard
from zoo.train.plan import resolve
from zoo.train.run_options import Request

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def trainer_of(folder: Path, judges: bool, **asked: Any) -> Trainer:
    settings = ("recipe.clip_grad_norm=0.5",)
    asked = {"device": "cpu", "compile": "off", "precision": "fp32", "limit_train": 128, "settings": settings, **asked}
    plan = resolve(Request(model="cnn-baseline", dataset="digits", epochs=2, limit_test=20, **asked))
    folder.mkdir()
    write_record(folder, plan.record)
    trainer = Trainer(plan, folder)
    trainer.judges = judges
    return trainer


def test_a_step_that_judges_itself_gives_the_same_weights(tmp_path: Path) -> None:
    for name, judges in (("after", False), ("inside", True)):
        trainer = trainer_of(tmp_path / name, judges)
        trainer.fit()
        assert (trainer.finite is not None) == judges
    one, other = (load_run(tmp_path / name).state_dict() for name in ("after", "inside"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_step_that_judges_itself_stops_a_run_whose_gradients_are_not_finite(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", True)
    last = [p for p in trainer.module.parameters() if p.requires_grad][-1]
    last.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: tensor.clone() for name, tensor in trainer.module.named_parameters()}
    with pytest.raises(TrainingError, match="gradients are not finite in step 1"):
        trainer.fit()
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.module.named_parameters())


class OnTheHost(TorchDispatchMode):
    """Names the operations that bring a value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"):
            self.read.append(func._schema.name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_judging_reads_nothing_on_the_host_and_keeps_no_state(clip: float) -> None:
    layer = nn.Linear(4, 3)
    guard = Guard(layer, torch.optim.SGD(layer.parameters()), Recipe(clip_grad_norm=clip), torch.device("cpu"))
    kept = dict(vars(guard))
    for value, finite in ((1.0, True), (float("nan"), False), (float("inf"), False)):
        layer.weight.grad = torch.full((3, 4), value)
        layer.bias.grad = torch.ones(3)
        with OnTheHost() as seen:
            found = guard.judged(torch.tensor(2.0))
        assert seen.read == []
        assert (found.item(), found.dtype) == (finite, torch.bool)
        if clip and finite:
            both: list[Tensor] = [layer.weight.grad, layer.bias.grad]
            assert nn.utils.get_total_norm(both).item() == pytest.approx(clip, rel=1e-4)
    assert not guard.judged(torch.tensor(float("nan"))).item()
    assert vars(guard) == kept


@pytest.mark.gpu
@GPU
def test_a_recorded_step_judges_itself_and_bad_gradients_are_not_used(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", True, device="cuda", compile="graph")
    assert trainer.judges
    last = [p for p in trainer.module.parameters() if p.requires_grad][-1]
    last.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: tensor.clone() for name, tensor in trainer.module.named_parameters()}
    with pytest.raises(TrainingError, match="not finite in step 1"):
        trainer.fit()
    assert not trainer.learn.plain  # it was recorded
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.module.named_parameters())
