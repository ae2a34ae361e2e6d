"""A file with models as a user writes them, tiny images, and runs of both, for the tests of code without a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.train.given import taken
from zoo.train.loop import Stop
from zoo.train.plan import Plan
from zoo.train.run_options import Request
from zoo.train.runner import Watch, train_in
from zoo.train.start import plan_of

BESIDE = """
from torch import nn

def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU())
"""
NETS = '''
from torch import nn
from net_blocks import block

class MyNet(nn.Module):
    """A net of mine."""
    def __init__(self, num_classes, in_channels=3, width=4, depth: int = 1):
        super().__init__()
        self.body = nn.Sequential(block(in_channels, width), *(block(width, width) for _ in range(depth - 1)))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

def blur(channels):
    return nn.AvgPool2d(3, stride=1, padding=1)

def patches(in_channels):
    return nn.Conv2d(in_channels, 4, 2, stride=2)

def odd(n):
    return nn.Identity()

def mixed(parts, channels):
    return nn.Identity()

def flat(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, num_classes + 1))

def breaks(num_classes):
    raise KeyError("mine")
'''
LABELS = np.arange(30) % 3
IMAGES = (np.random.default_rng(0).integers(0, 60, (30, 6, 6, 3)) + LABELS[:, None, None, None] * 90).astype(np.uint8)
ARRAYS = ((IMAGES[:20], LABELS[:20]), (IMAGES[20:], LABELS[20:]))


def write_nets(folder: Path) -> Path:
    """The file, with the one that it imports beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net_blocks.py").write_text(BESIDE)
    (folder / "my_nets.py").write_text(NETS)
    return folder / "my_nets.py"


def plan_with(model: Any, *, dataset: Any = ARRAYS, recipe: Any = None, augment: Any = None, **options: Any) -> Plan:
    """The plan of two short epochs."""
    names, given = taken(model=model, dataset=dataset, recipe=recipe, augment=augment)
    settled = {"epochs": 2, "batch_size": 6, "device": "cpu", "compile": "off", **options}
    return plan_of(Request(**{**names, **settled}), given=given)


def train(folder: Path, plan: Plan, *, steps: int | None = None) -> Path:
    """Train a plan, or stop before a step."""
    taken_steps = iter(range(10_000))
    watch = Watch(stop=lambda: 15 if steps is not None and next(taken_steps) >= steps else 0)
    try:
        train_in(folder, plan, watch)
    except Stop:
        assert steps is not None
    return folder
