"""What several tests train on: a small model of the user's own catalogue, and trainings without a command."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_train import SMALL
from torch import Tensor

from zoo.runs.record import write_record
from zoo.train.loop import Trainer
from zoo.train.plan import Plan


@contextmanager
def small_catalogue(base: Path, plugin_index: Path) -> Iterator[None]:
    """The model "tiny" is in the user's catalogue, and all caches lie below `base`."""
    (base / "user").mkdir()
    (base / "user" / "registry.toml").write_text(SMALL)
    shutil.copytree(plugin_index, base / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CONFIG_DIR", str(base / "user"))
        patch.setenv("ZOO_CACHE_DIR", str(base / "cache"))
        yield


def trainer(plan: Plan, folder: Path, **more: Any) -> Trainer:
    """What trains a plan in a folder, which has its record."""
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, plan.record)
    return Trainer(plan, folder, **more)


def trained(plan: Plan, folder: Path) -> dict[str, Tensor]:
    """The weights at the end of a training."""
    made = trainer(plan, folder)
    made.fit()
    return dict(made.module.state_dict())
