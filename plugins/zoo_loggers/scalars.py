"""The numbers of an epoch and of a result, under the names that loggers show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_epoch(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of metrics.jsonl as "loss/train", "top1/val", "lr", ...; without the epoch and step themselves."""
    found = {}
    for key, value in row.items():
        split, _, metric = key.partition("_")
        name = f"{metric}/{split}" if split in ("train", "val", "test") else key
        if key not in ("epoch", "step") and isinstance(value, int | float):
            found[name] = float(value)
    return found


def of_result(result: Mapping[str, Any]) -> dict[str, float]:
    """The final test numbers as "final/top1", ...; empty for a run that was stopped."""
    test = result.get("test") or {}
    return {f"final/{key}": float(value) for key, value in test.items() if isinstance(value, int | float)}


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run, flat: "model", "recipe.lr", "data.fingerprint", ..."""
    flat = {key: record[key] for key in ("model", "recipe", "protocol", "seed", "device", "precision") if key in record}
    for group, short in (("settings", "recipe"), ("data", "data"), ("sizes", "sizes")):
        for key, value in (record.get(group) or {}).items():
            if isinstance(value, str | int | float):
                flat[f"{short}.{key}"] = value
    return flat
