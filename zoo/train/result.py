"""The content of `result.json`, the result of a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluate.one_pass import Metrics
from zoo.runs.record import FORMAT, RunRecord

if TYPE_CHECKING:
    from zoo.train.position import Position


def result_table(
    record: RunRecord,
    at: Position,
    test: Metrics | None,
    validation: Metrics | None,
    *,
    parameters: int,
    skipped_steps: int,
    warm_up_seconds: float,
) -> dict[str, Any]:
    """Plain data: what was trained, how its weights were selected, and their metrics.

    Args:
        at: the final position. test, validation: metrics of the selected weights; None if not measured.
    """
    return {
        "format": FORMAT,
        "model": record.model,
        "recipe": record.recipe,
        "dataset": record.data.spec,
        "fingerprint": record.data.fingerprint,
        "protocol": record.protocol,
        "selection": {
            "rule": record.settings.select,
            "split": "validation" if record.protocol == "clean" else "test",
            "epoch": at.best_epoch,
        },
        "seed": record.seed,
        "parameters": parameters,
        "tta": record.settings.tta,
        "test": test.as_dict() if test else None,
        "validation": validation.as_dict() if validation else None,
        "train": {
            "epochs": at.epoch,
            "steps": at.total,
            "images": at.images,
            "skipped_steps": skipped_steps,
            "seconds": at.seconds,
            "warm_up_seconds": warm_up_seconds,
            "images_per_second": at.images / at.step_seconds,
        },
        "device": record.device,
        "precision": record.precision,
        "environment": record.environment,
    }
