"""Gathers what a page shows, from run folders, the catalogue, the models and their test images; and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from zoo.base.files import write_text
from zoo.base.reporter import Reporter
from zoo.catalogue.registry import Registry, load_registry
from zoo.models.compose import sizes_for
from zoo.runs.find import Run
from zoo.runs.record import tree_of
from zoo.studies.report import published
from zoo.studies.report.measure import Seen, flops, look
from zoo.studies.report.page import Content, render
from zoo.studies.report.written import Report

NO_DATA = "left out by --no-data"


@dataclass(frozen=True)
class Wanted:
    """What shall be on a page; as `zoo.report`."""

    images: int
    data: bool
    catalogue: published.Which
    title: str
    stamp: bool
    data_dir: str | None
    device: str | None


def write_page(runs: Sequence[Run], output: Path, wanted: Wanted, reporter: Reporter) -> Report:
    """Measure what is not known yet, and write the page.

    Raises:
        InputError: the runs do not fit into a page. WriteError: it cannot be written.
    """
    registry = load_registry()
    try:
        beside = _with_flops(published.rows(registry, runs, wanted.catalogue), registry, reporter)
        counted, seen = _flops(runs, registry), _seen(runs, registry, wanted, reporter)
    finally:
        reporter.close()
    content = Content(
        runs=runs,
        catalogue=beside,
        flops=counted,
        seen=seen,
        images=wanted.images,
        title=wanted.title,
        stamp=_today() if wanted.stamp else "",
    )
    page, left_out = render(content)
    write_text(output, page)
    for line in left_out:
        reporter.warn(line)
    unmeasured = {name: why for name, why in seen.items() if isinstance(why, str)} if wanted.data else {}
    names = tuple(run.name for run in runs)
    return Report(output, len(page.encode()), names, len(beside), tuple(left_out), unmeasured)


def _seen(runs: Sequence[Run], registry: Registry, wanted: Wanted, reporter: Reporter) -> dict[str, Seen | str]:
    """What each model confuses, or why that is not known."""
    if not wanted.data:
        return {run.name: NO_DATA for run in runs}
    seen: dict[str, Seen | str] = {}
    for i, run in enumerate(runs):
        reporter.progress("measuring runs", i, len(runs))
        found, reason = look(run.folder, run.record, registry, data_dir=wanted.data_dir, device=wanted.device)
        seen[run.name] = reason if found is None else found
    return seen


def _flops(runs: Sequence[Run], registry: Registry) -> dict[str, int | None]:
    sizes = {run.name: msgspec.structs.asdict(run.record.sizes) for run in runs}
    return {run.name: flops(tree_of(run.record, pretrained=False), sizes[run.name], registry) for run in runs}


def _with_flops(rows: list[dict[str, Any]], registry: Registry, reporter: Reporter) -> list[dict[str, Any]]:
    """The catalogue's rows with the FLOPs of their models at their dataset's size."""
    for i, row in enumerate(rows):
        reporter.progress("counting FLOPs (kept in the cache)", i, len(rows))
        model = registry.models[row["model"]]
        if row["dataset"] in registry.datasets:
            there = msgspec.structs.replace(model, dataset=row["dataset"])
            row["flops"] = flops(model.build, sizes_for(there, registry), registry)
    return rows


def _today() -> str:
    import datetime

    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
