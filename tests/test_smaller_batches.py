"""Out of memory while training: the step is repeated once, in micro-batches of half the size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from image_folders import write_images
from safetensors.torch import load_file
from torch import Tensor, nn

import zoo
from zoo.base.reporter import Reporter
from zoo.cli import cli
from zoo.data.batches import mode
from zoo.errors import DeviceError, InputError
from zoo.runs.folder import read_metrics
from zoo.runs.record import read_record
from zoo.train import batch_that_fits
from zoo.train.run_options import Request
from zoo.train.start import plan_of


class Told(Reporter):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, line: str) -> None:
        self.warnings.append(line)


def net(*, most: int, at: int = 0, norm: bool = False) -> Any:
    """A class of models that have memory for `most` images from step `at` on (counted by forward passes)."""

    class Net(nn.Module):
        calls = 0

        def __init__(self, *, in_channels: int, height: int, width: int, num_classes: int) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(in_channels) if norm else nn.Identity()
            self.linear = nn.Linear(in_channels * height * width, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            normed = self.norm(images)
            if self.training and images.device.type != "meta" and images.requires_grad is False and len(images) > 4:
                Net.calls += 1
                if Net.calls > at and len(images) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return self.linear(normed.flatten(1))

    return Net


def trained(model: Any, folder: Path, told: Reporter | None = None, **settings: Any) -> Any:
    recipe = {
        "batch_size": 32,
        "epochs": 2,
        "lr": 1e-2,
        "optimizer": "sgd",
        "precision": "fp32",
        "augment": [],
        **settings,
    }
    few = {"limit_train": 112, "limit_test": 50}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zoo.train(model, dataset="digits", recipe=recipe, device="cpu", output=folder, reporter=told, **few)


@pytest.mark.parametrize("at", [0, 3, 5])
def test_the_run_goes_on_with_half_the_micro_batch(tmp_path: Path, at: int) -> None:
    told = Told()
    run = trained(net(most=16, at=at), tmp_path / "run", told)
    (line,) = [line for line in told.warnings if "out of memory" in line]
    assert f"in step {at + 1}; the step is repeated, and each batch of 32 images is now computed in 2 parts" in line
    record = read_record(run.folder)
    assert record.settings.accumulate == 2
    assert record.environment["out of memory"].startswith(f"in step {at + 1} with recipe.accumulate = 1")
    assert [row["epoch"] for row in read_metrics(run.folder)] == [1, 2]
    assert "resumed" not in run.result  # by nothing else than it began with
    whole = trained(net(most=999), tmp_path / "whole", accumulate=2 if at == 0 else 1)
    assert run.result["train"]["images"] == whole.result["train"]["images"]
    found, wanted = (load_file(one.folder / "model.safetensors") for one in (run, whole))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=0 if at == 0 else 1e-6)


def test_running_statistics_count_the_failed_step_once(tmp_path: Path) -> None:
    run = trained(net(most=16, at=3, norm=True), tmp_path / "run", Told(), select="last")
    count = load_file(run.folder / "model.safetensors")["norm.num_batches_tracked"]
    assert int(count) == 3 + 2 * (8 - 3)


def test_a_second_time_it_is_an_error_that_says_what_was_tried(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(DeviceError, match=r"batches of 32 images, each in 2 parts, of .*lower --batch-size"):
        trained(net(most=8), tmp_path / "run", told)
    assert len([line for line in told.warnings if "out of memory" in line]) == 1


def test_a_run_that_went_on_is_resumed_as_it_went_on(tmp_path: Path) -> None:
    run = trained(net(most=16), tmp_path / "run", Told())
    longer = zoo.resume(run, epochs=3, model=net(most=16), reporter=Told())
    assert longer.record.settings.accumulate == 2
    assert len(longer.rows) == 3
    assert "resumed" not in longer.result


def test_the_command_that_began_a_run_finds_it_again_after_memory_did_not_suffice(tmp_path: Path) -> None:
    def asked(model: Any, **more: Any) -> Any:
        recipe = {"batch_size": 32, "epochs": 2, "lr": 1e-2, "precision": "fp32", "augment": []}
        few = {"dataset": "digits", "limit_train": 112, "limit_test": 50, "output": tmp_path / "run"}
        return zoo.train(model, recipe=recipe, device="cpu", reporter=Told(), resume=True, **few, **more)

    steps, model = iter(range(9)), net(most=16)
    stopped = asked(model, stop=lambda: 15 * (next(steps) == 5))
    assert (stopped.state, stopped.record.settings.accumulate) == ("stopped", 2)
    with pytest.raises(InputError, match="another configuration"):
        asked(model, settings={"accumulate": 4})
    assert asked(model).state == "finished"


# ---- --batch-size auto ---------------------------------------------------------------------------------


def planned(monkeypatch: pytest.MonkeyPatch, free: int, **settings: str) -> Any:
    monkeypatch.setattr(batch_that_fits, "host_memory", lambda: free)
    given = tuple(f"recipe.{key}={value}" for key, value in {"batch_size": 64, **settings}.items())
    return plan_of(Request(model="hybrid-alt-1", dataset="digits", device="cpu", batch_size="auto", settings=given))


def test_the_batch_stays_and_is_computed_in_as_many_parts_as_memory_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = planned(monkeypatch, 64 << 30)
    assert (roomy.recipe.batch_size, roomy.recipe.accumulate) == (64, 1)
    fixed, each = batch_that_fits.memory_of_a_step(roomy.build().train(), roomy)
    for parts in (2, 4):
        room = (fixed + 64 // parts * each + 1000) / batch_that_fits.SHARE
        plan = planned(monkeypatch, int(room))
        assert (plan.recipe.batch_size, plan.recipe.accumulate) == (64, parts)
        assert any(f"{64 // parts} images at once (recipe.accumulate = {parts})" in note for note in plan.notes)
    with pytest.raises(DeviceError, match="not even"):
        planned(monkeypatch, fixed)


def test_the_estimate_is_what_a_larger_step_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, 64 << 30)
    module = plan.build().train()
    _, each = batch_that_fits.memory_of_a_step(module, plan)
    kept = [batch_that_fits._kept(module, plan, count) for count in (8, 32)]
    assert (kept[1] - kept[0]) / 24 * batch_that_fits.PASSING == pytest.approx(each, rel=0.02)


def test_a_run_with_an_automatic_batch_records_what_was_chosen(tmp_path: Path) -> None:
    words = ["train", "cnn-baseline", "--dataset", "digits", "--device", "cpu", "--max-steps", "1", "--limit-train"]
    done = CliRunner().invoke(cli, [*words, "80", "--batch-size", "auto", "--output", str(tmp_path / "run")])
    assert done.exception is None, done.output
    assert read_record(tmp_path / "run").settings.accumulate == 1
    refused = CliRunner().invoke(cli, [*words, "80", "--batch-size", "large"])
    assert "give 1 or more, or auto" in refused.output


def test_the_command_that_began_a_run_finds_it_again_whatever_memory_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "photos", 2, 20)
    monkeypatch.chdir(tmp_path)

    def asked(free: int, **more: Any) -> Any:
        monkeypatch.setattr(mode, "host_memory", lambda: free)
        monkeypatch.setattr(batch_that_fits, "host_memory", lambda: 64 << 30 if free > 1 << 30 else 1_000_000)
        given: dict[str, Any] = {"dataset": "folder:photos", "batch_size": "auto", "epochs": 2, "workers": 0}
        return zoo.train("cnn-baseline", device="cpu", reporter=Told(), resume=True, **given, **more)

    steps = iter(range(9))
    begun = asked(64 << 30, stop=lambda: 15 * (next(steps) == 1))
    assert (begun.state, begun.record.data.mode, begun.record.settings.accumulate) == ("stopped", "resident", 1)
    ended = asked(10_000)
    assert (ended.folder.name, ended.state) == (begun.folder.name, "finished")
    assert (ended.record.data.mode, ended.record.settings.accumulate) == ("resident", 1)
    other = asked(64 << 30, data_mode="stream")  # which is not left open
    assert other.record.data.mode == "stream"
    assert other.folder.name != begun.folder.name
