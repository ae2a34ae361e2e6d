"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# Small tensors gain nothing by more threads, and processes beside one another lose by them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than there are CPUs: tests often wait for a process that they started."""
    del config
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def plugin_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the index of the installed plugins, which need not be looked for in each test."""
    from zoo.catalogue.registry import load_registry

    folder = tmp_path_factory.mktemp("index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE_DIR", str(folder))
        load_registry()
    return folder


@pytest.fixture(autouse=True)
def own_folders(plugin_index: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has caches, data and settings of its own; nothing of the user's is read or written."""
    base = tmp_path_factory.mktemp("zoo-home")
    shutil.copytree(plugin_index, base / "cache")
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"ZOO_{name}_DIR", str(base / name.lower()))


@pytest.fixture(scope="session")
def with_onnx(plugin_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with `onnx/model.onnx`, and the run beside it that it was made from; nobody may change them."""
    from hub_server.runs import made_with_onnx

    return made_with_onnx(tmp_path_factory.mktemp("with-onnx"))


@pytest.fixture
def cifar10_parquet() -> Path:
    """The folder with all of CIFAR-10, lossless, in the Hub's parquet layout; skips where it is absent."""
    folder = Path(os.environ.get("ZOO_TEST_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"needs CIFAR-10 as parquet files in {folder}; set ZOO_TEST_DATA to their folder")
    return folder
