"""Published results, and our own recorded ones, as rows beside the runs; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal

from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Measured, Model, Published
from zoo.runs.find import Run

Which = Literal["related", "all", "none"]


def rows(registry: Registry, runs: Collection[Run], which: Which = "related") -> list[dict[str, Any]]:
    """Rows with the keys of `zoo.runs.find.row_of`, as far as a source prints them, and kind, source, note.

    Args:
        which: "related": of models and datasets that the runs are of.
    """
    if which == "none":
        return []
    models, datasets = {r.record.model for r in runs}, {r.record.data.spec for r in runs}
    found = []
    for name, model in sorted(registry.models.items()):
        for row in (*_published(name, model, registry), *_measured(name, model)):
            if which == "all" or name in models or row["dataset"] in datasets:
                found.append(row)
    return found


def _published(name: str, model: Model, registry: Registry) -> Iterator[dict[str, Any]]:
    for row in model.published:
        source = registry.sources.get(row.source or model.source or "")
        yield {
            "kind": "published",
            "name": row.published_as or name,
            "model": name,
            "dataset": row.dataset,
            "top1": row.top1,
            "parameters": row.params or model.parameters,
            "seconds": _seconds(row),
            "epochs": row.epochs,
            "protocol": source.selection if source else "",
            "source": source.title if source else row.source or model.source or "",
            "note": row.note,
        }


def _measured(name: str, model: Model) -> Iterator[dict[str, Any]]:
    for row in model.measured:
        yield {
            "kind": "catalogue",
            "name": _name(name, row),
            "model": name,
            "dataset": row.dataset,
            "top1": row.top1,
            "spread": row.spread,
            "parameters": model.parameters,
            "protocol": row.protocol,
            "recipe": row.recipe,
            "device": row.device,
            "source": row.record or "the catalogue",
            "note": _note(row),
        }


def _name(model: str, row: Measured) -> str:
    """The model, and what tells this result from others of it."""
    told = f"{model}, {row.recipe}" if row.recipe else model
    return f"{told} ({row.protocol}, {plural(row.seeds, 'seed')})"


def _note(row: Measured) -> str:
    spread = f"± {row.spread:.2%} over {plural(row.seeds, 'seed')}" if row.spread is not None else ""
    return "; ".join(part for part in (spread, row.note) if part)


def _seconds(row: Published) -> float | None:
    if row.minutes is not None:
        return row.minutes * 60
    return row.minutes_per_epoch * row.epochs * 60 if row.minutes_per_epoch and row.epochs else None
