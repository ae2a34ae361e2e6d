"""Modules of run folders, for tests that look at weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from zoo.catalogue.registry import load_registry
from zoo.runs.load import load


def load_run(folder: Path) -> nn.Module:
    """The module of a run with the weights that it selected."""
    return load(folder, load_registry())
