"""Corrupted images: the same for an image, a row and a seed, whoever makes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import DataError
from zoo.evaluate import corruption_workers
from zoo.evaluate.corruptions import COMMON, KNOWN, Corruptor, corrupt


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (4, 3, 4, 4), dtype=np.uint8)
    return coarse.repeat(2, 2).repeat(2, 3)


QUICK = tuple(name for name in KNOWN if name != "glass_blur")
"""The library compiles glass_blur when it is first used: half a minute on a busy machine."""


def test_a_corruption_is_a_function_of_image_row_and_seed(images: np.ndarray) -> None:
    assert len(COMMON) == 15
    before = np.random.get_state()[1].copy()
    for name in QUICK:
        whole = corrupt(images, name, 3, seed=5)
        halves = [corrupt(images[:2], name, 3, seed=5), corrupt(images[2:], name, 3, seed=5, first=2)]
        assert np.array_equal(whole, np.concatenate(halves)), name
        assert whole.shape == images.shape
        assert not np.array_equal(whole, images), name
    assert np.array_equal(np.random.get_state()[1], before)
    assert not np.array_equal(corrupt(images, "shot_noise", 3, 6), corrupt(images, "shot_noise", 3, 5))
    assert not np.array_equal(*corrupt(np.stack([images[0]] * 2), "impulse_noise", 3, 5))


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "brightness", "pixelate", "contrast"])
def test_a_higher_severity_changes_more(name: str) -> None:
    large = np.random.default_rng(1).integers(60, 190, (2, 3, 32, 32), dtype=np.uint8)
    changes = [np.abs(corrupt(large, name, s, 0).astype(int) - large).mean() for s in (1, 3, 5)]
    assert changes == sorted(changes)
    assert changes[0] < changes[2]


@pytest.mark.slow
def test_processes_corrupt_as_one_does_and_all_corruptions_work(images: np.ndarray) -> None:
    many = np.concatenate([images] * 20)
    alone, shared = Corruptor(many, 7, 0), Corruptor(many, 7, 2)
    try:
        for name in KNOWN:
            for severity in (1, 5):
                assert np.array_equal(alone(name, severity), shared(name, severity)), name
    finally:
        shared.close()


SCRIPT = """
open("ran", "a").write("once ")
import numpy as np
from zoo.evaluate.corruptions import Corruptor
images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
alone, shared = Corruptor(images, 7, 0), Corruptor(images, 7, 2)
assert np.array_equal(alone("impulse_noise", 2), shared("impulse_noise", 2))
processes = shared.workers._all
shared.close()
assert processes and all(process.returncode is not None for process in processes)
"""


def test_a_script_that_is_not_guarded_runs_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "ran").read_text() == "once "


def test_a_process_that_dies_is_said(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruption_workers, "COMMAND", "")
    corruptor = Corruptor(images, 7, 1)
    with pytest.raises(DataError, match="a process that corrupted images by fog died"):
        corruptor("fog", 1)
    corruptor.close()
