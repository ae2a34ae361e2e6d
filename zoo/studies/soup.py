"""A model soup: one run whose weights are the mean of other runs' weights.

Source:
    Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    inference time", ICML 2022: the uniform soup, and the greedy one (its recipe 1).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn

from zoo.base.files import sha256_of
from zoo.base.reporter import Reporter
from zoo.base.text import plural
from zoo.catalogue.recipe import SELECTED_BY
from zoo.catalogue.registry import Registry
from zoo.errors import InputError, RunError
from zoo.evaluate.classifier import open_classifier
from zoo.evaluate.evaluation import check_finite
from zoo.evaluate.multi_label import best_thresholds
from zoo.evaluate.one_pass import Metrics
from zoo.evaluate.opened import OpenedSplit
from zoo.models.device import usable_device
from zoo.runs.folder import read_result, read_weights, write_result, write_weights
from zoo.runs.images import RunImages, images_of
from zoo.runs.lock import RunLock
from zoo.runs.new import check_free, new_folder
from zoo.runs.record import SOURCE, WEIGHTS, Ingredient, RunRecord, Soup, read_record, write_record
from zoo.runs.without_labels import refuse_without_labels
from zoo.train.environment import environment
from zoo.train.optim.freeze import freeze
from zoo.train.precise_bn import images_for_norms, renew_statistics, statistics_of
from zoo.train.result import table_of

Method = Literal["greedy", "uniform"]

NORM_IMAGES = 2048
"""Training images, at least, from which the statistics of batch norms are computed again."""

COST = ("epochs", "steps", "images", "skipped_steps", "seconds", "warm_up_seconds")
"""What was spent on the ingredients, summed in the result."""

OF_THE_RECORD = ("build", "sizes", "protocol")
OF_THE_IMAGES = (
    *("fingerprint", "classes", "mean", "std", "transform", "white", "black", "background", "task", "limit_train"),
    *("limit_test", "validation_fraction", "validation_from", "validation_fingerprint"),
)
OF_THE_RECIPE = ("normalize", "tta", "tta_margin")


@dataclass(frozen=True)
class Candidate:
    """A run that may go into a soup.

    Attributes:
        name: what it is called in messages and in the record.
    """

    name: str
    folder: Path
    record: RunRecord
    result: Mapping[str, Any]

    def weights(self) -> dict[str, Tensor]:
        """Its selected weights, on the CPU."""
        return read_weights(self.folder)


def average(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of weights, tensor by tensor, summed in float64.

    Args:
        states: of one model, at least one. Numbers that are not floating point (counters, indices) are the first's.
    Returns:
        Tensors of the same shapes and types.
    Raises:
        RunError: the names or the shapes differ.
    """
    first: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    count = 0
    for state in states:
        count += 1
        first = first or dict(state)
        if {name: t.shape for name, t in state.items()} != {name: t.shape for name, t in first.items()}:
            raise RunError("the weights of the runs have other names or shapes; a soup is of one composition")
        for name, tensor in state.items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor.double() if name in sums else tensor.double()
    return {name: (sums[name] / count).to(tensor.dtype) if name in sums else tensor for name, tensor in first.items()}


def read_candidates(named: Sequence[tuple[str, Path]]) -> list[Candidate]:
    """The runs that one run is to be made of.

    Raises:
        InputError: fewer than two, or one twice. RunError: one is not finished.
    """
    if len(named) < 2:
        raise InputError("one run is made of at least two runs")
    if len({folder.resolve() for _, folder in named}) < len(named):
        raise InputError("a run is named twice; each run counts once")
    found = [Candidate(name, folder, read_record(folder), read_result(folder)) for name, folder in named]
    for one in found:
        refuse_without_labels(one.record, one.name)
    return found


def candidates(named: Sequence[tuple[str, Path]]) -> list[Candidate]:
    """The runs that are to be averaged, read and compared.

    Raises:
        InputError: fewer than two, one twice, or they cannot be averaged; says why. RunError: one is not finished.
    """
    found = read_candidates(named)
    for other in found[1:]:
        if differing := _differs(found[0].record, other.record):
            raise InputError(
                f"{other.name} differs from {found[0].name} in its {differing}; the weights of a soup are of one "
                "composition, for the same images, classes, transform and test-time views"
            )
    return found


def _differs(first: RunRecord, other: RunRecord) -> str:
    """The first thing in which two runs differ that a soup needs to be the same; "" where there is none."""
    for key in OF_THE_RECORD:
        if getattr(first, key) != getattr(other, key):
            return {"build": "composition (`build`)"}.get(key, key)
    for key in OF_THE_IMAGES:
        if getattr(first.data, key) != getattr(other.data, key):
            return "data." + key
    for key in OF_THE_RECIPE:
        if getattr(first.settings, key) != getattr(other.settings, key):
            return "recipe." + key
    return ""


def beginnings(found: Sequence[Candidate]) -> str:
    """A warning where the runs began with different initial weights; "" where they began with the same ones."""
    starts = {(one.record.base_sha256, "" if one.record.base_sha256 else one.record.seed) for one in found}
    if len(starts) == 1:
        return ""
    return (
        "these runs did not begin with the same weights; the mean of such weights is usually no better than chance: "
        "soups are for runs that were fine-tuned from the same weights"
    )


class Kitchen:
    """The images of the runs, and one module that takes the weights of each mixture."""

    def __init__(self, base: Candidate, registry: Registry, data_dir: str | None, device: str | None) -> None:
        self.record = base.record
        where = device or usable_device(base.record.device)
        self.images: RunImages = images_of(base.record, registry, data_dir=data_dir)
        self.classifier = open_classifier(base.folder, registry, record=base.record, device=where)
        self.classifier.thresholds = ()
        self.opened = OpenedSplit(self.record, "val", self.images.selecting, self.classifier)
        freeze(self.module, base.record.settings.freeze)  # frozen batch norms keep their statistics
        self.norms = len(statistics_of(self.module))
        self.device = where

    @property
    def module(self) -> nn.Module:
        """The module; it has the weights that it was given last."""
        return self.classifier.module

    def load(self, weights: Mapping[str, Tensor], *, mixed: bool) -> None:
        """Give the module weights; of a mixture, compute the statistics of its batch norms again."""
        self.module.load_state_dict(weights)
        if mixed and self.norms:
            count = max(NORM_IMAGES, self.record.settings.precise_bn)
            where = self.classifier.device
            renew_statistics(
                self.module, images_for_norms(self.record, self.images.train, count, where, self.classifier.prepare)
            )

    def validation(self) -> Metrics:
        """The metrics of the validation images."""
        return self.opened.measure()

    def thresholds(self) -> list[float] | None:
        """The threshold of each class, where images have several labels, chosen on the validation images."""
        found = self.opened.predictions()[1] if self.record.protocol == "clean" else None
        return None if found is None else best_thresholds(found.labels, found.probabilities).tolist()


def score_of(record: RunRecord, metrics: Metrics) -> float:
    """What greedy selection looks at: the metric of the recipe's rule `select`; the larger, the better."""
    return (-1 if record.settings.select == "loss" else 1) * float(getattr(metrics, metric_of(record)))


def metric_of(record: RunRecord) -> str:
    """Its name; top-1 (or mAP) where the recipe selects the last epoch."""
    usual = "map" if record.data.is_multi_label else "top1"
    return SELECTED_BY.get(record.settings.select, usual)


def greedy(found: Sequence[Candidate], kitchen: Kitchen, reporter: Reporter) -> tuple[list[Candidate], list[Any]]:
    """Choose the runs of a greedy soup: from the best on, each that does not make the mean worse on validation.

    Returns:
        The runs that are taken, and a row for each candidate: its own score, that of the mixture with it, and
        whether it was taken.
    """
    key, rows = metric_of(kitchen.record), []
    alone = []
    for one in found:
        kitchen.load(one.weights(), mixed=False)
        alone.append(_score(kitchen, one.name))
    order = sorted(range(len(found)), key=lambda i: -alone[i])  # of equal ones the first that was named
    taken, best = [found[order[0]]], alone[order[0]]
    sign = -1 if key == "loss" else 1
    for i in order:
        one, mixed = found[i], alone[i]
        if one is not taken[0]:
            kitchen.load(average(each.weights() for each in (*taken, one)), mixed=True)
            mixed = _score(kitchen, one.name)
        used = one is taken[0] or mixed >= best
        if used and one is not taken[0]:
            taken, best = [*taken, one], mixed
        rows.append({"name": one.name, "alone": sign * alone[i], "with": sign * mixed, "taken": used})
        verb = "taken" if used else "left out"
        reporter.say(f"{one.name}: validation {key} {sign * alone[i]:.4f}, with it {sign * mixed:.4f}: {verb}")
    return taken, rows


def _score(kitchen: Kitchen, name: str) -> float:
    metrics = kitchen.validation()
    check_finite(name, metrics.loss)
    return score_of(kitchen.record, metrics)


def soup(
    named: Sequence[tuple[str, Path]],
    registry: Registry,
    *,
    method: Method = "greedy",
    output: Path | None = None,
    data_dir: str | None = None,
    device: str | None = None,
    reporter: Reporter,
) -> Path:
    """Average the weights of runs, and write the result as a run of its own.

    Args:
        named: the runs, each with its name. method: "uniform" or "greedy".
        output: the new run's folder; default: one below runs/.
        data_dir, device: as for `zoo.evaluate.opened.open_run`.
        reporter: receives a line for each run, and a warning where the runs did not begin with the same weights.
    Raises:
        InputError, RunError: as `candidates`; or greedy selection without validation images.
    """
    found = candidates(named)
    if output is not None:
        check_free(output, resumable=False)
    if method == "greedy" and found[0].record.protocol == "paper":
        raise InputError(
            f"{found[0].name}: by the protocol `paper` it has no validation images to choose runs by; "
            "make the uniform soup with --method uniform"
        )
    if line := beginnings(found):
        reporter.warn(line)
    kitchen = Kitchen(found[0], registry, data_dir, device)
    taken, rows = greedy(found, kitchen, reporter) if method == "greedy" else (list(found), [])
    kitchen.load(average(one.weights() for one in taken), mixed=len(taken) > 1)
    return _written(kitchen, taken, found, method, rows, output)


def _written(
    kitchen: Kitchen,
    taken: Sequence[Candidate],
    found: Sequence[Candidate],
    method: Method,
    rows: list[dict[str, Any]],
    output: Path | None,
) -> Path:
    """Measure the soup, and write its folder; the result comes last."""
    share = 1 / len(taken)
    ingredients = tuple(
        Ingredient(name=one.name, sha256=sha256_of(one.folder / WEIGHTS), weight=share, seed=one.record.seed)
        for one in taken
    )
    device = kitchen.classifier.device
    record = msgspec.structs.replace(
        taken[0].record,
        soup=Soup(method=method, of=ingredients),
        device=kitchen.device,
        environment=environment(torch.device(device)),
    )
    chosen = {"method": method, "of": len(found), "metric": metric_of(kitchen.record), "candidates": rows}
    norms = max(NORM_IMAGES, kitchen.record.settings.precise_bn) if kitchen.norms and len(taken) > 1 else 0
    rule = f"{method} soup of {plural(len(taken), 'run')}"
    about = {**chosen, "norm_images": min(norms, len(kitchen.images.train))}
    result = result_of(kitchen, record, taken, rule, "validation" if method == "greedy" else None, about)
    folder = output or new_folder(f"{record.model}-soup", record.data.spec)
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder):
        if (taken[0].folder / SOURCE).is_dir():
            shutil.copytree(taken[0].folder / SOURCE, folder / SOURCE, dirs_exist_ok=True)
        write_record(folder, record)
        write_weights(folder, {key: value.cpu() for key, value in kitchen.module.state_dict().items()}, record)
        write_result(folder, result)
    return folder


def result_of(
    kitchen: Kitchen,
    record: RunRecord,
    taken: Sequence[Candidate],
    rule: str,
    split: str | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `result.json` for a run made of others; the test images are read here, once.

    Args:
        taken: the runs that it is made of. rule: how it was made. split: which images chose them, if any did.
        about: what stands under `soup`.
    """
    thresholds = kitchen.thresholds()
    kitchen.classifier.thresholds = tuple(thresholds or ())
    validation = kitchen.validation() if record.protocol == "clean" else None
    test = kitchen.opened.measure(kitchen.images.test)  # once
    check_finite(rule, test.loss)
    selection = {"rule": rule, "split": split, "epoch": None}
    count, more = kitchen.classifier.parameter_count, {"soup": dict(about)}
    cost = _cost(taken)
    return table_of(record, selection, test, validation, cost, parameters=count, thresholds=thresholds, more=more)


def _cost(taken: Sequence[Candidate]) -> dict[str, float]:
    """What the training of the ingredients cost, together."""
    spent: dict[str, float] = {}
    for key in COST:
        values = [one.result.get("train", {}).get(key, 0) for one in taken]
        spent[key] = sum(value for value in values if isinstance(value, int | float) and math.isfinite(value))
    return {**spent, "images_per_second": spent["images"] / spent["seconds"] if spent["seconds"] else 0.0}
