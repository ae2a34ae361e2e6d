"""What showed when a tree was tried out is used again, and for no longer than it is true."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import torch
from plugin_site import site_in
from torch import nn

from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import node_from_table
from zoo.errors import ShapeError
from zoo.models import tried
from zoo.models.api import create
from zoo.models.compose import check, compose, copies_its_input
from zoo.models.meta import WithoutValues

SIZES = {"in_channels": 3, "height": 8, "width": 8, "num_classes": 5}
PLUGIN = """
from zoo.plugin import Component, hookimpl

@hookimpl
def zoo_components():
    return [Component(name=kind, kind=kind, factory="{module}_parts:" + kind) for kind in ("part", "stem")]
"""
PARTS = """
import torch
from torch import nn
from zoo_beside import SIDE

class Loud(nn.Module):
    def forward(self, x):
        print("run")
        return nn.functional.relu(x, inplace=True)

def part(*, channels, height, width, like_a_number: bool = False):
    return Values() if like_a_number else Loud()

class Values(nn.Module):
    def forward(self, x):
        print("run")
        return x if torch.isfinite(x).all() else x * 0

def stem(*, in_channels, height, width):
    return nn.Sequential(Loud(), nn.Conv2d(in_channels, 4, SIDE, stride=SIDE))
"""
OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, *, in_channels, height, width, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * height * width, num_classes))

    def forward(self, x):
        print("run")
        return self.layers(x)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed plugin, and of a module beside it that is not installed."""
    made, beside = site_in(tmp_path), tmp_path / "beside"
    beside.mkdir()
    (beside / "zoo_beside.py").write_text("SIDE = 2\n")
    name = f"loud{abs(hash(tmp_path.name)):x}"  # a module keeps its name in this process for ever
    made.add(name, PLUGIN, entry="loud", parts=PARTS)
    monkeypatch.syspath_prepend(str(made.folder))
    monkeypatch.syspath_prepend(str(beside))
    monkeypatch.delitem(sys.modules, "zoo_beside", raising=False)
    return made.folder


@pytest.fixture
def registry(site: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(tried, "BEGAN", time.time_ns() + 10**12)  # as if the plugin had been there before this process
    return load_registry()


def tree(**part: object) -> object:
    return node_from_table(
        {"use": "hybrid.classifier", "stem": {"use": "loud.stem"}, "body": {"use": "loud.part", **part}}, "build"
    )


def runs(node: object, registry: Registry, capsys: pytest.CaptureFixture[str], **sizes: int) -> int:
    """How often parts were run while the tree was composed."""
    capsys.readouterr()
    compose(node, registry, **{**SIZES, **sizes})
    return capsys.readouterr().out.count("run")


def kept() -> list[Path]:
    return sorted(Path(os.environ["ZOO_CACHE_DIR"]).glob("tried/*"))


def test_a_tree_is_run_once_and_built_the_same_again(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    node = tree()
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(compose(node, registry, **SIZES))
    ran = capsys.readouterr().out.count("run")
    assert ran > 0
    first, second = (module.state_dict() for module in made)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [m.get_submodule("stem").out_shape for m in made] == [(4, 4, 4)] * 2
    assert [copies_its_input(m.get_submodule("body")) for m in made] == [True] * 2
    assert runs(node, registry, capsys) == 0
    assert next(check(node, registry, **SIZES).parameters()).device.type == "meta"
    assert capsys.readouterr().out == ""


def test_another_size_or_tree_is_run(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    once = runs(tree(), registry, capsys)
    assert runs(tree(), registry, capsys, height=16) == once
    assert runs(tree(like_a_number=False), registry, capsys) == once
    assert runs(tree(), registry, capsys) == 0


@pytest.mark.parametrize("changed", ["the plugin", "what it imports", "what is kept", "what is installed"])
def test_a_change_has_the_tree_run_again(
    changed: str, site: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    once = runs(tree(), registry, capsys)
    assert runs(tree(), registry, capsys) == 0
    if changed == "what is kept":
        kept()[0].write_bytes(b"something else")
    else:
        files = {
            "the plugin": next(site.glob("*_parts.py")),
            "what it imports": site.parent / "beside" / "zoo_beside.py",
            "what is installed": next(site.glob("*.dist-info")),
        }
        os.utime(files[changed], (1, 1))
    assert runs(tree(), registry, capsys) == once
    assert runs(tree(), registry, capsys) == 0


def test_nothing_is_kept_of_what_failed_or_was_run_on_the_cpu(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ShapeError):
        compose(tree(), registry, **{**SIZES, "height": 1})
    assert runs(tree(like_a_number=True), registry, capsys) == runs(tree(like_a_number=True), registry, capsys) > 0
    assert kept() == []


def test_nothing_is_kept_while_a_source_is_newer_than_the_process(
    registry: Registry, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tried, "BEGAN", next(site.glob("*_parts.py")).stat().st_mtime_ns - 1)
    assert runs(tree(), registry, capsys) == runs(tree(), registry, capsys) > 0
    assert kept() == []


def test_nothing_is_kept_of_the_users_own_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.py"
    file.write_text(OWN)
    for _ in range(2):
        assert isinstance(create(f"{file}:Net", image_size=8, num_classes=3), nn.Module)
        assert "run" in capsys.readouterr().out
    assert kept() == []


# ---- building without values --------------------------------------------------------------------------


def test_normal_numbers_are_left_out_on_the_meta_device_alone() -> None:
    """What a factory draws has the same shape and type there, and on a device the numbers of the seed."""
    with torch.device("meta"), WithoutValues():
        drawn = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        same = torch.empty(4).normal_(std=0.02)
        torch.manual_seed(1)
        there = torch.randn(3, device="cpu"), torch.empty(3, device="cpu").normal_()
    assert (drawn.shape, drawn.dtype, drawn.requires_grad) == ((2, 3), torch.float64, True)
    assert {tensor.device.type for tensor in (drawn, same)} == {"meta"}
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(there, (torch.randn(3), torch.empty(3).normal_()), strict=True))
