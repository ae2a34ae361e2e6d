"""`zoo report` for many runs: how large the page may be, what is left out, and what is counted once."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import pytest
from msgspec import structs
from plugin_site import site_in

from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import Node
from zoo.models import tried
from zoo.runs.find import read
from zoo.runs.record import TeacherRecord
from zoo.studies.report.measure import flops, look
from zoo.studies.report.page import MAX_BYTES, Content, limit_of, render

pytest.importorskip("bokeh", reason="zoo report draws with Bokeh: pip install -e '.[report]'")

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
RUN, DIGITS = WEIGHTS / "vit-nano-cifar10", WEIGHTS / "hybrid-alt-1-digits"
PLUGIN = """
from zoo.plugin import Component, hookimpl

@hookimpl
def zoo_components():
    return [Component(name="net", kind="classifier", factory="{module}_parts:net")]
"""
PARTS = """
from torch import nn

HIDDEN = 4

def net(*, in_channels, height, width, num_classes):
    pixels = in_channels * height * width
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, HIDDEN), nn.Linear(HIDDEN, num_classes))
"""


def test_a_thousand_long_runs_fit_into_ten_megabytes() -> None:
    run = read(RUN)
    rows = tuple({**run.rows[0], "epoch": epoch, "seconds": 1.5 * epoch} for epoch in range(1, 201))
    runs = [dataclasses.replace(run, name=f"run-{number:04}", rows=rows) for number in range(1000)]
    page, left_out = render(Content(runs))
    assert MAX_BYTES < len(page.encode()) < 10_000_000
    assert left_out == ["100 epochs of each run's curves at most: the page would be too large"]
    assert [limit_of(count) for count in (1, 200, 500, 1000, 5000)] == [2e6, 2e6, 5e6, 1e7, 1e7]


def test_a_page_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    run = read(DIGITS)
    teacher = TeacherRecord(model="resnet9", origin="sha256:1234", sha256="1234")
    settings = structs.replace(run.record.settings, teacher=f"{tmp_path}/runs/teacher")
    data = structs.replace(run.record.data, spec=f"folder:{tmp_path}/birds", validation_from=f"folder:{tmp_path}/held")
    record = structs.replace(run.record, settings=settings, data=data, teacher=teacher)
    run = dataclasses.replace(run, record=record, folder=tmp_path / "run", name="mine")
    why = f"{tmp_path}/birds: no such folder; {tmp_path}/run has no weights"
    page, _ = render(Content([run], seen={"mine": why}))
    assert "birds: no such folder; mine has no weights" in page
    assert str(tmp_path) not in page


def test_operations_that_could_not_be_counted_are_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tried, "BEGAN", time.time_ns() + 10**12)  # the plugins may have been checked out just now
    registry, sizes = load_registry(), {"in_channels": 3, "height": 8, "width": 8, "num_classes": 10}
    assert flops(Node(use="cnn.of-a-plugin-that-is-not-here"), sizes, registry) is None
    assert not list(tmp_path.rglob("flops-*"))
    assert flops(Node(use="cnn.baseline"), sizes, registry)
    assert len(list(tmp_path.rglob("flops-*"))) == 1


def test_operations_of_a_plugin_that_was_edited_are_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tried, "BEGAN", time.time_ns() + 10**12)  # as if the plugin had been there before this process
    site = site_in(tmp_path)
    plugin = site.add("edited", PLUGIN, parts=PARTS)
    monkeypatch.syspath_prepend(str(site.folder))
    parts = plugin.with_name(f"{plugin.stem}_parts.py")

    def counted() -> int | None:
        sizes = {"in_channels": 1, "height": 2, "width": 2, "num_classes": 3}
        return flops(Node(use="edited.net"), sizes, load_registry())

    assert counted() == 2 * (4 * 4 + 4 * 3)
    parts.write_text(PARTS.replace("HIDDEN = 4", "HIDDEN = 50"))
    os.utime(parts, (1, 1))
    monkeypatch.delitem(sys.modules, parts.stem)  # as in a new process
    assert counted() == 2 * (4 * 50 + 50 * 3)
    (file,) = (tmp_path / "cache").rglob("flops-*")
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"count": 7}))
    assert counted() == 7


def test_what_a_model_confuses_is_measured_again_when_a_plugin_was_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tried, "BEGAN", time.time_ns() + 10**12)
    registry, record = load_registry(), read(DIGITS).record
    seen, _ = look(DIGITS, record, registry)
    (file,) = tmp_path.rglob("seen-*")
    kept = json.loads(file.read_text())
    assert any(source.endswith("zoo_hybrid/classifiers.py") for source in kept["stamps"])
    kept["cells"] = [[0, 1, 360]]
    file.write_text(json.dumps(kept))
    again, _ = look(DIGITS, record, registry)
    assert again is not None
    assert again.cells == ((0, 1, 360),)
    file.write_text(json.dumps(kept | {"stamps": dict.fromkeys(kept["stamps"], 1)}))
    assert look(DIGITS, record, registry) == (seen, "")
