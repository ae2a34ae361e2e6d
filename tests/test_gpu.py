"""What holds on a CUDA device: the same batches, the same curve within tolerance, resume at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from zoo import run as runs
from zoo.data import load
from zoo.data.augment import build
from zoo.data.resident import Resident, generator, order
from zoo.registry import load_registry
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.plan import Request, replan, resolve

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def train(folder: Path, device: str, **asked: Any) -> list[dict[str, Any]]:
    plan = resolve(Request(model="hybrid-alt-1", dataset="digits", device=device, epochs=3, **asked))
    runs.write_record(folder, plan.record)
    Trainer(plan, folder).fit()
    return runs.read_metrics(folder)


def test_batches_and_geometry_are_those_of_the_cpu_bit_for_bit() -> None:
    registry = load_registry()
    data = load("digits", registry)
    recipe = registry.recipe("best-cnn")
    found = []
    for device in ("cpu", "cuda"):
        resident = Resident(data.train, device)
        rows = order(1, 2, len(resident))[:64].to(device)
        images, labels = resident.take(rows)
        steps = tuple(s for s in recipe.augment if type(s).__name__ in ("Flip", "Crop"))
        change = build(steps, (0.5,) * 3, (0.5,) * 3, size=(8, 8), num_classes=10, device=device)
        out, _ = change(images, labels, generator(1, 2, 3), indices=rows, epoch=2)
        found.append((images.cpu(), labels.cpu(), out.cpu()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2], found[1][2], rtol=0, atol=1e-6)


def test_the_loss_curve_is_the_cpus_within_tolerance(tmp_path: Path) -> None:
    # dropout draws other numbers on another device, so that only the course of the loss is the same
    cpu = train(tmp_path / "cpu", "cpu", precision="fp32")
    gpu = train(tmp_path / "gpu", "cuda", precision="fp32")
    for one, other in zip(cpu, gpu, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=0.15)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns(precision: str, tmp_path: Path) -> None:
    rows = train(tmp_path / "run", "cuda", precision=precision)
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]


def test_a_stopped_run_goes_on_to_the_same_number_of_steps(tmp_path: Path) -> None:
    plan = resolve(Request(model="hybrid-alt-1", dataset="digits", device="cuda", epochs=2))
    runs.write_record(tmp_path, plan.record)
    asked = iter([0] * 9 + [15] * 9)
    with pytest.raises(Stop):
        Trainer(plan, tmp_path, stop=lambda: next(asked), saving=Saving(0, 0)).fit()
    from zoo.train import checkpoint

    trainer = Trainer(replan(runs.read_record(tmp_path)), tmp_path)
    found = checkpoint.newest(tmp_path / runs.CHECKPOINTS)
    assert found is not None
    trainer.restore(found.state)
    assert trainer.at.total == 9
    result = trainer.fit()
    assert result["train"]["steps"] == trainer.total
