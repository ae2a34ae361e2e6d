"""The calls inside of somebody's program: its threads, its random numbers, what it has set in torch, its tools."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx import symbolic_trace

import zoo
from zoo.evaluate.classifier import Classifier
from zoo.runs.folder import read_weights

FEW: dict[str, Any] = {"dataset": "digits", "epochs": 1, "limit_train": 100, "device": "cpu"}
IMAGE = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model with convolutions and pools, trained for one epoch."""
    return zoo.train("cnn-baseline", **FEW, limit_test=20, output=tmp_path_factory.mktemp("runs") / "it").folder


@contextmanager
def set_in_torch(how: str) -> Iterator[None]:
    if how == "device":
        with torch.device("meta"):
            yield
        return
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def swept(folder: Path) -> dict[str, Tensor]:
    found = zoo.sweep("cnn-baseline", grid={"lr": [1e-3]}, **FEW, output=folder)
    assert found.best_run is not None
    return read_weights(found.best_run.folder)


@pytest.mark.parametrize(
    "call",
    [
        lambda run, _: zoo.load(run),
        lambda run, _: zoo.predict(run, [IMAGE]),
        lambda run, _: zoo.evaluate(run),
        lambda run, folder: zoo.export(run, folder / "it.pt2", format="torch"),
        lambda _, folder: swept(folder / "sweep"),
    ],
)
def test_the_random_numbers_of_a_program_go_on_as_without_the_call(
    call: Callable[[Path, Path], Any], run: Path, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    call(run, tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("how", ["float64", "device"])
def test_an_ensemble_labels_and_a_sweep_are_the_same_whatever_a_program_has_set(
    how: str, run: Path, tmp_path: Path
) -> None:
    usual = zoo.load(f"{run}+{run}").predict(IMAGE)
    model = zoo.load(run)
    several = Classifier(
        name="it",
        module=model.module,
        sizes=model.sizes,
        preprocessing=model.preprocessing,
        classes=model.classes,
        thresholds=(0.5,) * 10,
    )
    labels, weights = several.predict(IMAGE), swept(tmp_path / "usual")
    with set_in_torch(how):
        assert zoo.load(f"{run}+{run}").predict(IMAGE) == usual
        assert several.predict(IMAGE) == labels
        again = swept(tmp_path / "again")
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_two_trainings_of_one_program_at_a_time_are_those_that_each_is_alone(tmp_path: Path) -> None:
    """Each sleeps in its first batch, so that the other one would draw its own random numbers meanwhile."""
    many = FEW | {"limit_train": 400, "epochs": 2, "limit_test": 20}

    def weights(where: str, seed: int) -> dict[str, Tensor]:
        met: list[bool] = []

        def meet(images: Tensor, labels: Tensor) -> Tensor:
            if not met and where == "together":
                met.append(True)
                time.sleep(0.3)
            return images

        made = zoo.train("cnn-baseline-bn-dropout", **many, seed=seed, augment=meet, output=tmp_path / f"{where}{seed}")
        return read_weights(made.folder)

    alone = [weights("alone", seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: weights("together", seed), (0, 1)))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_on_a_cpu_is_traced_by_fx_as_tools_for_features_do(run: Path) -> None:
    model = zoo.load(run, device="cpu")
    images = model.read([IMAGE, IMAGE])
    traced = symbolic_trace(model.module)
    assert torch.allclose(traced(images), model(images), atol=1e-5)
