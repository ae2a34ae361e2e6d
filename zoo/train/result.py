"""The content of `result.json`, the result of a finished run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.base.text import plural
from zoo.evaluate.multi_label import LabelPredictions, best_thresholds
from zoo.evaluate.one_pass import Figures
from zoo.runs.record import FORMAT, RunRecord

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.split import Split
    from zoo.train.plan import Plan
    from zoo.train.position import Position

THRESHOLDS = "the largest F1 of each class on the validation images"


def figure_of(record: RunRecord) -> str:
    """What people read of the share of training images that were right; "" where no labels are learnt."""
    if record.without_labels:
        return ""
    return "all labels right" if record.data.is_multi_label else "top-1"


def _right(record: RunRecord, share: float) -> dict[str, float]:
    """The same in a row of `metrics.jsonl`."""
    if record.without_labels:
        return {}
    return {"train_subset_accuracy" if record.data.is_multi_label else "train_top1": share}


def epoch_row(
    record: RunRecord, at: Position, means: Sequence[float], metrics: Figures, *, lr: float, rate: float
) -> dict[str, Any]:
    """What `metrics.jsonl` holds of an epoch.

    Args:
        at: the position after it. means: loss, and the share of training images that were right.
        metrics: of the images that select. lr: of its last step. rate: training images per second.
    """
    split = "val" if record.protocol == "clean" else "test"
    return {
        "epoch": at.epoch,
        "step": at.total,
        "lr": lr,
        "train_loss": means[0],
        **_right(record, means[1]),
        f"{split}_loss": metrics.loss,
        **{f"{split}_{name}": value for name, value in metrics.scores().items()},
        "images_per_second": rate,
        "seconds": at.seconds,
    }


def final_metrics(
    measure: Callable[[Split, bool, Tensor | None], tuple[Figures, LabelPredictions | None]], plan: Plan
) -> tuple[Figures | None, Figures | None, list[float] | None]:
    """Metrics of the selected weights on the test and the validation images; None where there are none.

    Of images with several labels the validation images are measured once before, for the threshold of each class.

    Args:
        measure: see `zoo.train.loop.Trainer.predictions`.
    Returns:
        The metrics, and the thresholds.
    """
    clean, chosen = plan.record.protocol == "clean", None
    if clean and (found := measure(plan.selecting, True, None)[1] if plan.record.data.is_multi_label else None):
        chosen = best_thresholds(found.labels, found.probabilities)
    tested = len(plan.test) and not plan.record.without_labels  # how well pixels are filled in is no result
    test = measure(plan.test, True, chosen)[0] if tested else None
    validation = measure(plan.selecting, True, chosen)[0] if clean else None
    return test, validation, None if chosen is None else chosen.tolist()


def result_table(
    record: RunRecord,
    at: Position,
    test: Figures | None,
    validation: Figures | None,
    *,
    parameters: int,
    skipped_steps: int,
    warm_up_seconds: float,
    thresholds: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Plain data: what was trained, how its weights were selected, and their metrics.

    Args:
        at: the final position. test, validation: metrics of the selected weights; None if not measured.
        thresholds: of images with several labels, from which probability on each class is predicted.
    """
    selection = {
        "rule": record.settings.select,
        "split": "validation" if record.protocol == "clean" else "test",
        "epoch": at.best_epoch,
    }
    train = {
        "epochs": at.epoch,
        "steps": at.total,
        "images": at.images,
        "skipped_steps": skipped_steps,
        "seconds": at.seconds,
        "warm_up_seconds": warm_up_seconds,
        "images_per_second": at.images / at.step_seconds,
    }
    more = {key: rows for key, rows in (("resumed", at.resumed), ("extended", at.extended)) if rows}
    return table_of(record, selection, test, validation, train, parameters=parameters, thresholds=thresholds, more=more)


def doubts(result: Mapping[str, Any]) -> list[str]:
    """Why the numbers of a result may mean nothing, a line each for people."""
    skipped, steps, lines = result["train"]["skipped_steps"], result["train"]["steps"], []
    if skipped:
        lines.append(f"{skipped:,} of {plural(steps, 'step')} left out: the loss or the gradients were not finite")
    measured = [result[split]["loss"] for split in ("test", "validation") if result.get(split)]
    if not all(map(math.isfinite, measured)):
        lines.append(
            "the model's outputs are not finite numbers: the training diverged, and its accuracy means nothing; lower "
            "--lr, or set recipe.clip_grad_norm"
        )
    return lines


def table_of(
    record: RunRecord,
    selection: dict[str, Any],
    test: Figures | None,
    validation: Figures | None,
    train: dict[str, Any],
    *,
    parameters: int,
    thresholds: Sequence[float] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `result.json`, also of a run that was made of others.

    Args:
        selection: the rule that chose the weights, the split that it looked at, and the epoch. train: what it cost.
        test, validation, thresholds: as `result_table`. more: what only some runs say.
    """
    return {
        "format": FORMAT,
        "model": record.model,
        "recipe": record.recipe,
        "dataset": record.data.spec,
        "fingerprint": record.data.fingerprint,
        "protocol": record.protocol,
        "selection": selection,
        "seed": record.seed,
        "parameters": parameters,
        "tta": record.settings.tta,
        **({} if record.settings.tta_margin is None else {"tta_margin": record.settings.tta_margin}),
        "test": test.as_dict() if test else None,
        "validation": validation.as_dict() if validation else None,
        **({} if thresholds is None else {"thresholds": {"rule": THRESHOLDS, "values": list(thresholds)}}),
        **(more or {}),
        "train": train,
        "device": record.device,
        "precision": record.precision,
        "environment": record.environment,
    }
