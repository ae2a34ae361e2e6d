"""Denormal numbers count as zero while a model is trained on a CPU, in every thread, and not afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import zoo
from zoo.models.denormals import denormals_as_zeros
from zoo.train.events import Listener

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def left() -> int:
    """How many of four million products that are denormal are kept; both threads compute two million each."""
    return int((torch.full((1 << 22,), 1e-30) * 1e-9).view(torch.int32).count_nonzero())


def test_they_are_zero_inside_in_every_thread_and_numbers_again_afterwards() -> None:
    assert left() == 1 << 22
    with denormals_as_zeros(CPU) as are_zero:
        assert are_zero
        assert left() == 0
        assert torch.get_num_threads() == 2
        with denormals_as_zeros(CPU) as are_zero:
            assert are_zero
        assert left() == 0  # the outer one holds
    assert left() == 1 << 22


def test_they_are_numbers_again_after_an_error_and_on_other_devices() -> None:
    with pytest.raises(ValueError, match="inside"), denormals_as_zeros(CPU):
        raise ValueError("inside")
    with denormals_as_zeros(torch.device("meta")) as are_zero:
        assert not are_zero
        assert left() == 1 << 22


def test_they_are_zero_while_a_run_trains(tmp_path: Path) -> None:
    seen = []

    class Looks(Listener):
        def epoch(self, row: dict[str, object], best: bool) -> None:
            torch.set_num_threads(2)
            seen.append(left())

    zoo.train(
        "cnn-baseline",
        dataset="digits",
        epochs=1,
        batch_size=32,
        limit_train=64,
        limit_test=16,
        device="cpu",
        output=tmp_path / "run",
        listeners=[Looks()],
    )
    assert seen == [0]
    assert left() == 1 << 22
