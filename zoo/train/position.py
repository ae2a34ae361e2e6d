"""The position of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from torch import device

from zoo.runs.record import RunRecord, configuration
from zoo.train.environment import environment


@dataclass
class Position:
    """The counters and clocks of a run: all of its state that is neither a tensor nor derived.

    Attributes:
        left_out: skipped steps of this epoch. stale: epochs since the best one.
        resumed: each time that the run went on with another commit, version or hardware: the epoch (from 1), and what
            of its `environment` was another from then on.
        extended: each time that the run went on with another number of epochs: the epoch (from 1), the `epochs` of its
            schedule from then on, and those `before`.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    images: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_epoch: int = 0
    best_score: float = -math.inf
    stale: int = 0
    left_out: int = 0
    resumed: list[dict[str, Any]] = field(default_factory=list)
    extended: list[dict[str, Any]] = field(default_factory=list)


def restored(state: Mapping[str, Any], record: RunRecord, total: int) -> Position:
    """The position in the state of a checkpoint, with what is another now than when the run went on before.

    Args:
        total: how many steps the run has in all; nothing is noted of one that has taken them.
    """
    at, now = Position(**state["position"]), environment(device(record.device))
    if at.total and is_extended(state, record) and _counts_on_the_end(record):
        row = {"epoch": at.epoch + 1, "epochs": record.settings.epochs, "before": _planned(state, record)}
        at = replace(at, extended=[*at.extended, row])
    before = {"processes": "1", **record.environment}
    for earlier in at.resumed:
        before |= earlier
    names = sorted({*now, "commit"})  # a record's environment has more: what happened to the run
    changed = {name: now.get(name, "") for name in names if now.get(name, "") != before.get(name, "")}
    if not changed or at.total >= total:
        return at
    return replace(at, resumed=[*at.resumed, {"epoch": at.epoch + 1, **changed}])


def is_extended(state: Mapping[str, Any], record: RunRecord) -> bool:
    """Whether a checkpoint is of the same run with another number of epochs."""
    return _planned(state, record) not in (record.settings.epochs, None)


def _planned(state: Mapping[str, Any], record: RunRecord) -> int | None:
    """For how many epochs the run of a checkpoint was planned.

    Those of earlier versions do not say it: it is the number with which the record has their configuration. It has it
    with none where a run also goes on in another way, such as on another device.
    """
    if "epochs" in state:
        return int(state["epochs"])
    numbers = (record.settings.epochs, *range(1, record.settings.epochs))
    return next((n for n in numbers if configuration(_for_epochs(record, n)) == state["configuration"]), None)


def _for_epochs(record: RunRecord, epochs: int) -> RunRecord:
    return msgspec.structs.replace(record, settings=msgspec.structs.replace(record.settings, epochs=epochs))


def _counts_on_the_end(record: RunRecord) -> bool:
    """Whether a run of more epochs is another one from its start; else it is the shorter run that goes on."""
    recipe = record.settings
    return recipe.schedule != "constant" or recipe.lookahead is not None or recipe.patience > 0
