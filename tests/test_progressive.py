"""Smaller images in the first epochs: what is trained, resumed, said and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_modules import load_run
from small_runs import trained

from zoo.errors import InputError
from zoo.train.loop import Stop
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request
from zoo.train.runner import Watch, train_in
from zoo.train.start import continued

STEPS = '[{op = "crop", padding = 1}, {op = "progressive-size", epochs = %d, scale = 0.75}]'


POOLED = """
[models.pooled]
summary = "a convolution, and the mean of the map, which has any size"
family = "test"
dataset = "digits"
recipe = "best-small-cnn"
[models.pooled.build]
use = "hybrid.classifier"
body = { use = "cnn.residual", widths = [8] }
head = { use = "hybrid.pool" }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "registry.toml").write_text(POOLED)
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(tmp_path))
    return tmp_path


def plan(model: str = "pooled", epochs: int = 2, **more: Any) -> Plan:
    settings = {"recipe.augment": STEPS % epochs, "recipe.epochs": "3", **more.pop("settings", {})}
    words = tuple(f"{key}={value}" for key, value in settings.items())
    return resolve(
        Request(model=model, dataset="digits", limit_train=300, batch_size=128, device="cpu", settings=words, **more)
    )


def after(steps: int) -> Callable[[], int]:
    left = iter(range(steps))
    return lambda: 15 if next(left, None) is None else 0


def test_a_model_sees_six_pixels_for_two_epochs_then_eight_and_is_measured_at_eight(here, monkeypatch) -> None:
    made, seen = plan(), []
    forward = torch.nn.Conv2d.forward

    def watched(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] == 3 and not images.is_meta:
            seen.append((self.training, images.shape[-1]))  # two convolutions see the image, at each step
        return forward(self, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    trained(made, here / "run")
    assert [side for training, side in seen if training] == [6] * 12 + [8] * 6
    assert {side for training, side in seen if not training} == {8}


def test_a_run_that_was_stopped_among_small_images_ends_as_one_that_was_not(here) -> None:
    made = plan()
    train_in(here / "whole", made, Watch())
    for steps in (2, 5, 7):
        folder = here / f"stopped-{steps}"
        with pytest.raises(Stop):
            train_in(folder, made, Watch(stop=after(steps)))
        train_in(folder, continued(folder), Watch())
        for name, value in load_run(here / "whole").state_dict().items():
            assert torch.equal(value, load_run(folder).state_dict()[name]), (steps, name)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("cnn-baseline", {}, "cannot take images of 6x6, as progressive-size makes them of 8x8 .* give a larger scale"),
        ("hybrid-alt-1", {}, "cannot take images of 6x6, .*a transposed convolution of 64 channels was given 36"),
        ("pooled", {"recipe.objective": "masked"}, "masked.* cannot be combined with progressive-size"),
    ],
)
def test_what_cannot_be_smaller_is_refused_before_the_run(here, model: str, settings: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(model, settings=settings)


def test_images_that_are_never_whole_are_warned_of(here) -> None:
    said = [line.message for line in plan(epochs=3).findings if line.kind == "recipe"]
    assert said == [
        "progressive-size: images are smaller in all 3 epochs, and whole only where they are evaluated; "
        "give it fewer epochs than the run has"
    ]
