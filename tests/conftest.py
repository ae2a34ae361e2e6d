"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Small tensors gain nothing by more threads, and processes beside one another lose by them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has caches, data and settings of its own; nothing of the user's is read or written."""
    base = tmp_path_factory.mktemp("zoo-home")
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"ZOO_{name}_DIR", str(base / name.lower()))


@pytest.fixture
def cifar10_parquet() -> Path:
    """The folder with all of CIFAR-10, lossless, in the Hub's parquet layout; skips where it is absent."""
    folder = Path(os.environ.get("ZOO_TEST_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"needs CIFAR-10 as parquet files in {folder}; set ZOO_TEST_DATA to their folder")
    return folder
