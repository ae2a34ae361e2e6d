"""What holds on a CUDA device: the same batches, the same curve within tolerance, resume at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from zoo.catalogue.recipe import Lookahead
from zoo.catalogue.registry import load_registry
from zoo.data.augment.geometry import crop
from zoo.data.augment.pipeline import build
from zoo.data.batches.resident import Resident, generator, order
from zoo.data.load import load
from zoo.errors import DeviceError
from zoo.models.device import Hardware, seed_noise
from zoo.runs.folder import read_metrics
from zoo.runs.record import CHECKPOINTS, read_record, write_record
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.optim.averaging import Averaging
from zoo.train.optim.muon import Muon
from zoo.train.plan import replan, resolve
from zoo.train.run_options import Request
from zoo.train.speed.compiled import choose, measure_pace
from zoo.train.speed.graphs import Recorded

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def train(folder: Path, device: str, **asked: Any) -> list[dict[str, Any]]:
    model = asked.pop("model", "hybrid-alt-1")
    plan = resolve(Request(model=model, dataset="digits", device=device, epochs=3, **asked))
    write_record(folder, plan.record)
    Trainer(plan, folder).fit()
    return read_metrics(folder)


class NoTrials:
    """Nothing is known of the compiler, and it is not tried."""

    failed = ""

    def known(self) -> None:
        return None

    def expected(self) -> float:
        return 1e9

    def made(self) -> None:
        raise AssertionError("a short run tries nothing")


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


def test_averages_do_not_wait_for_the_device() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).cuda()
    recipe = msgspec.structs.replace(load_registry().recipe("best-cnn"), ema=0.998, lookahead=Lookahead(every=1))
    averaging = Averaging(net, recipe)
    averaging.begin()
    averaging.update(0, 9)
    torch.cuda.set_sync_debug_mode("error")
    try:
        averaging.update(1, 9)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_loss_curve_is_the_cpus_within_tolerance(tmp_path: Path) -> None:
    # dropout draws other numbers on another device, so that only the course of the loss is the same
    cpu = train(tmp_path / "cpu", "cpu", precision="fp32")
    gpu = train(tmp_path / "gpu", "cuda", precision="fp32")
    for one, other in zip(cpu, gpu, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=0.15)


@pytest.mark.parametrize(
    ("precision", "mode"), [("bf16", "off"), ("fp16", "off"), ("bf16", "graph"), ("bf16", "default")]
)
def test_half_precision_learns(precision: str, mode: str, tmp_path: Path) -> None:
    rows = train(tmp_path / "run", "cuda", precision=precision, compile=mode)
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]


@pytest.mark.parametrize("mode", ["off", "graph"])
def test_a_stopped_run_goes_on_to_the_same_number_of_steps(mode: str, tmp_path: Path) -> None:
    plan = resolve(Request(model="hybrid-alt-1", dataset="digits", device="cuda", epochs=2, compile=mode))
    write_record(tmp_path, plan.record)
    asked = iter([0] * 9 + [15] * 9)
    with pytest.raises(Stop):
        Trainer(plan, tmp_path, stop=lambda: next(asked), saving=Saving(0, 0)).fit()
    from zoo.train import checkpoint

    trainer = Trainer(replan(read_record(tmp_path)), tmp_path)
    found = checkpoint.newest(tmp_path / CHECKPOINTS)
    assert found is not None
    trainer.restore(found.state)
    assert trainer.at.total == 9
    result = trainer.fit()
    assert result["train"]["steps"] == trainer.total


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["hybrid-alt-1", "resnet18", "vit-d2h4"])
def test_a_recorded_step_is_the_plain_one(model: str, precision: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"model": model, "precision": precision, "settings": ("augment=[{op='flip'}]",)}
    first = [train(tmp_path / mode, "cuda", compile=mode, max_steps=3, **asked) for mode in ("off", "graph")]
    assert first[1][0]["train_loss"] == pytest.approx(first[0][0]["train_loss"], rel=1e-3)
    # dropout's masks and the kernels are the same; some of cuDNN's add in no fixed order, which Adam enlarges
    whole = [train(tmp_path / f"{mode}-3", "cuda", compile=mode, **asked) for mode in ("off", "graph")]
    assert whole[1][-1]["train_loss"] == pytest.approx(whole[0][-1]["train_loss"], rel=0.3)


def test_jitter_is_recorded_once_for_each_order_of_its_changes(tmp_path: Path) -> None:
    jitter = "augment=[{op='jitter', brightness=0.4, contrast=0.4, hue=0.2}]"
    plain = train(tmp_path / "off", "cuda", compile="off", settings=(jitter,))
    recorded = train(tmp_path / "graph", "cuda", compile="graph", settings=(jitter,))
    assert recorded[0]["train_loss"] == pytest.approx(plain[0]["train_loss"], rel=1e-3)


def test_a_step_that_reads_the_device_is_not_recorded() -> None:
    class Reads(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x).mean((2, 3))
            return out * float(out.detach().mean().item() > -1e9)

    device = torch.device("cuda")
    found = measure_pace(Reads(3, 10, 3).to(device), (8, 3, 16, 16), Hardware(device, "fp32", False))
    assert found.recorded is None
    assert found.why_not
    assert choose("auto", device, 10, lambda: found, NoTrials()).mode == "off"
    with pytest.raises(DeviceError, match="cannot be recorded as a CUDA graph"):
        choose("graph", device, 10, lambda: found, NoTrials())
    assert torch.rand(8, device=device).sum().item() > 0  # the device is as well as before


def test_what_cannot_be_recorded_is_run_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))

    def reads(x: torch.Tensor) -> torch.Tensor:
        loss = (x * weight).sum() * float(x.sum().item() > 0)
        loss.backward()
        return loss.detach()

    recorded = Recorded(reads, torch.device("cuda"), [weight])
    assert recorded(torch.ones(3, device="cuda")).item() == 3
    assert "not recorded as a CUDA graph" in caplog.text
    weight.grad = None
    assert recorded(torch.full((3,), 2.0, device="cuda")).item() == 6
    assert weight.grad is not None
    assert weight.grad.tolist() == [2, 2, 2]


def test_a_recording_draws_what_the_plain_function_draws() -> None:
    def noisy(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, 0.5) + torch.rand_like(x)

    device, ones = torch.device("cuda"), torch.ones(1000, device="cuda")
    recorded = Recorded(noisy, device)
    recorded(ones)  # what is drawn while it is recorded is no promise
    for seed in (1, 2, 1):
        seed_noise(seed, device)
        expected = noisy(ones)
        seed_noise(seed, device)
        assert torch.equal(recorded(ones), expected)


@pytest.mark.parametrize("sphere", [False, True])
def test_muon_waits_for_nothing_and_moves_weights_as_on_the_cpu(sphere: bool) -> None:
    shapes = ((16, 4, 3, 3), (16, 36), (36, 16), (16, 4, 3, 3))
    moved = []
    for device in ("cpu", "cuda"):
        noise = torch.Generator().manual_seed(0)
        layers = [nn.Parameter(torch.randn(shape, generator=noise).to(device)) for shape in shapes]
        if device == "cuda":
            layers[0] = nn.Parameter(layers[0].detach().contiguous(memory_format=torch.channels_last))
        first = [layer.detach().clone() for layer in layers]
        optimizer = Muon(layers, lr=0.05, sphere=sphere)
        optimizer.found_inf = torch.zeros((), device=device)
        for number in range(3):
            noise.manual_seed(number)
            for layer in layers:
                layer.grad = torch.randn(layer.shape, generator=noise).to(device)
            torch.cuda.set_sync_debug_mode("error" if number and device == "cuda" else "default")
            try:
                optimizer.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        moved.append([(layer - start).detach().cpu() for layer, start in zip(layers, first, strict=True)])
    for one, other in zip(*moved, strict=True):
        assert (one - other).norm() < 0.05 * one.norm()  # iterated in bfloat16 there


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_crop_is_the_cpus_to_the_bit(mode: str, layout: torch.memory_format) -> None:
    images = torch.randint(0, 256, (9, 3, 8, 10), dtype=torch.uint8).contiguous(memory_format=layout)
    top, left = torch.arange(9) % 7, torch.arange(9).flip(0) % 7
    found = crop(images.cuda(), top.cuda(), left.cuda(), 3, mode)
    assert torch.equal(found.cpu(), crop(images, top, left, 3, mode))
    assert found.is_contiguous(memory_format=layout)
