"""Denormal numbers count as zero while a model is trained on a CPU, in every thread, and not afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import zoo
from zoo.models import denormals
from zoo.models.denormals import denormals_as_zeros
from zoo.train.events import Listener

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only GNU's OpenMP, of Linux, begins its threads anew")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def left() -> int:
    """How many of four million products that are denormal are kept; of two threads, each computes half of them."""
    return int((torch.full((1 << 22,), 1e-30, dtype=torch.float32) * 1e-9).view(torch.int32).count_nonzero())


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


def test_they_are_zero_in_threads_that_began_before_the_caller_made_them_so() -> None:
    left()
    torch.set_flush_denormal(True)
    try:
        with denormals_as_zeros(CPU):
            assert left() == 0
        assert torch.full((1,), 1e-38).mul(0.1).view(torch.int32).item() == 0  # as the caller had it
    finally:
        with denormals_as_zeros(CPU):  # its threads begin anew
            torch.set_flush_denormal(False)
        denormals._renew_threads()
    assert left() == 1 << 22


def test_another_default_type_is_no_obstacle() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with denormals_as_zeros(CPU):
            assert left() == 0
    finally:
        torch.set_default_dtype(torch.float32)


def test_threads_that_cannot_be_found_leave_the_caller_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "maps").write_bytes(b"7f00-7f01 r--p 0 0:0 1 /tmp/\xff.bin\n7f01-7f02 r--p 0 0:0 2 /tmp/libgomp.so.1\n")
    monkeypatch.setattr(denormals, "MAPS", tmp_path / "maps")
    with denormals_as_zeros(CPU) as are_zero:
        assert are_zero
    monkeypatch.undo()
    denormals._renew_threads()
    assert left() == 1 << 22


CHILD = """
import multiprocessing, torch
from zoo.models.denormals import denormals_as_zeros

def child():
    torch.set_num_threads(1)
    with denormals_as_zeros(torch.device("cpu")):
        print("zero", int((torch.full((9,), 1e-30) * 1e-9).view(torch.int32).count_nonzero()), flush=True)

torch.set_num_threads(2)
torch.ones(1 << 17) * 2
forked = multiprocessing.get_context("fork").Process(target=child)
forked.start()
forked.join(30)
forked.kill()
"""


def test_a_forked_process_of_one_thread_does_not_wait_for_its_parents_threads() -> None:
    found = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=100, check=True)
    assert found.stdout == "zero 0\n"


def test_they_are_zero_while_a_run_trains(tmp_path: Path) -> None:
    seen = []

    class Looks(Listener):
        def epoch(self, row: dict[str, object], best: bool) -> None:
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
