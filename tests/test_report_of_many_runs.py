"""`zoo report` for many runs: how large the page may be, what is left out, and what is counted once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import Node
from zoo.runs.find import read
from zoo.studies.report.measure import flops
from zoo.studies.report.page import MAX_BYTES, Content, limit_of, render

pytest.importorskip("bokeh", reason="zoo report draws with Bokeh: pip install -e '.[report]'")

RUN = Path(__file__).resolve().parent.parent / "weights" / "vit-nano-cifar10"


def test_a_thousand_long_runs_fit_into_ten_megabytes() -> None:
    run = read(RUN)
    rows = tuple({**run.rows[0], "epoch": epoch, "seconds": 1.5 * epoch} for epoch in range(1, 201))
    runs = [dataclasses.replace(run, name=f"run-{number:04}", rows=rows) for number in range(1000)]
    page, left_out = render(Content(runs))
    assert MAX_BYTES < len(page.encode()) < 10_000_000
    assert left_out == ["100 epochs of each run's curves at most: the page would be too large"]
    assert [limit_of(count) for count in (1, 200, 500, 1000, 5000)] == [2e6, 2e6, 5e6, 1e7, 1e7]


def test_operations_that_could_not_be_counted_are_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    registry, sizes = load_registry(), {"in_channels": 3, "height": 8, "width": 8, "num_classes": 10}
    assert flops(Node(use="cnn.of-a-plugin-that-is-not-here"), sizes, registry) is None
    assert not list(tmp_path.rglob("flops-*"))
    assert flops(Node(use="cnn.baseline"), sizes, registry)
    assert len(list(tmp_path.rglob("flops-*"))) == 1
