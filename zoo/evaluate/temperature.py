"""Temperature scaling: one number that a run's logits are divided by, fitted on its validation images."""

from __future__ import annotations

import html
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base.text import plural, printable
from zoo.catalogue.registry import Registry
from zoo.errors import InputError, RunError
from zoo.evaluate.calibration import calibration
from zoo.evaluate.one_pass import outputs
from zoo.evaluate.opened import OpenedSplit, open_run, refuse_not_finite
from zoo.models.precision import autocast
from zoo.runs.folder import CALIBRATION, read_result, write_result
from zoo.runs.images import eval_batch
from zoo.runs.lock import RunLock
from zoo.runs.record import RunRecord, read_record

LEAST, MOST = 1e-3, 1e3
"""Between these a temperature is looked for."""

SHOWN = ("loss", "ece", "mce", "brier", "confidence", "accuracy")


@dataclass(frozen=True, repr=False, eq=False)
class Calibrated:
    """What `zoo.calibrate` gives: the temperature, and how well the probabilities fit before and after.

    Attributes:
        run: its folder. temperature: what logits are divided by; 1: the run is not calibrated.
        images: validation images that it was fitted on.
        before, after: of these images: `loss` (the mean negative log likelihood, in nats), `ece`, `mce`, `brier`, mean
            `confidence` and `accuracy`; empty where a temperature is removed.
        removed: whether a temperature was taken away.
    """

    run: Path
    temperature: float
    images: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    removed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """What `zoo calibrate --json` prints."""
        return {
            "run": str(self.run),
            "temperature": self.temperature,
            "images": self.images,
            "before": dict(self.before),
            "after": dict(self.after),
        }

    @property
    def words(self) -> str:
        """The same in one line."""
        if self.removed:
            return "the temperature was removed"
        if not self.before:
            return "the run has no temperature, so that none was removed"
        return (
            f"temperature {self.temperature:.4f}, fitted on {plural(self.images, 'validation image')}: "
            f"ECE {self.before['ece']:.2%} before, {self.after['ece']:.2%} after; "
            f"loss {self.before['loss']:.4f} before, {self.after['loss']:.4f} after; "
            f"the predicted classes stay the same ({self.after['accuracy']:.2%} right)"
        )

    def __repr__(self) -> str:
        """The run and the line."""
        return printable(f"Calibrated({self.run}: {self.words})")

    def _repr_html_(self) -> str:
        """The same, for notebooks."""
        return f"<div>{html.escape(repr(self))}</div>"


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which the mean negative log likelihood of the labels is smallest.

    The likelihood is convex in 1 / temperature, so that the root of its derivative is the only one.

    Args:
        logits: (N, K), any float dtype. labels: int64 (N,).
    Raises:
        RunError: there is no smallest one: every image is right, or the logits say nothing of the labels.
    Source:
        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """
    from scipy.optimize import brentq

    wide = logits.double()
    wide = wide - wide.max(1, keepdim=True).values
    true = wide.gather(1, labels[:, None])[:, 0]

    def slope(inverse: float) -> float:
        """The derivative of the mean negative log likelihood by 1 / temperature."""
        return float((((wide * inverse).softmax(1) * wide).sum(1) - true).mean())

    low, high = 1 / MOST, 1 / LEAST
    if slope(high) <= 0:
        raise RunError(
            f"all of {plural(len(labels), 'validation image')} are right: the likelihood only grows with "
            "confidence, and no temperature can be fitted; give the run more validation images"
        )
    if slope(low) >= 0:
        raise RunError("the logits tell nothing of the validation images' classes: no temperature can be fitted")
    return 1 / float(brentq(slope, low, high, xtol=1e-14, rtol=1e-12))


def figures(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> dict[str, Any]:
    """How well probabilities fit.

    Args:
        logits: (N, K), any float dtype. labels: int64 (N,).
    Returns:
        `loss`, the mean negative log likelihood in nats, and what `calibration` gives.
    """
    scaled = logits.double() / temperature
    found = calibration(scaled.softmax(1), labels, logits.argmax(1))
    return {"loss": float(F.cross_entropy(scaled, labels)), **found}


def calibrate(
    folder: Path,
    registry: Registry,
    *,
    data_dir: str | None = None,
    dataset: str | None = None,
    device: str | None = None,
) -> Calibrated:
    """Fit the temperature of a finished run on its validation images, and keep it in its result.

    Args:
        data_dir, dataset, device: as for `zoo.evaluate.opened.open_run`.
    Raises:
        InputError: the run has no validation images, or its images have several labels. RunError: it is not finished;
            and as `fit_temperature` and `open_run`.
    """
    record = read_record(folder)
    _refuse(folder, record)
    read_result(folder)  # before images are loaded: it must be finished
    opened = open_run(folder, split="val", data_dir=data_dir, dataset=dataset, device=device, registry=registry)
    logits, labels = logits_of(opened)
    refuse_not_finite(str(folder), logits)
    temperature = fit_temperature(logits, labels)
    before, after = (figures(logits, labels, scale) for scale in (1.0, temperature))
    kept = {key: {name: part[name] for name in SHOWN} for key, part in (("before", before), ("after", after))}
    _keep(folder, {"temperature": temperature, "split": "validation", "images": len(labels), **deepcopy(kept)})
    return Calibrated(folder, temperature, len(labels), kept["before"], kept["after"])


def remove(folder: Path) -> Calibrated:
    """Take the temperature of a run away again.

    Raises:
        RunError: the run is damaged, or not finished.
    """
    read_record(folder)
    had = CALIBRATION in read_result(folder)
    _keep(folder, None)
    return Calibrated(folder, 1.0, 0, {}, {}, had)


def _refuse(folder: Path, record: RunRecord) -> None:
    if record.data.is_multi_label:
        raise InputError(
            f"{folder}: its images have several labels; each class has a threshold that was chosen on the validation "
            "images, and one temperature for all classes is not fitted"
        )
    if record.protocol == "paper":
        raise InputError(
            f"{folder}: by the protocol `paper` it has no validation images, and a temperature must not be fitted on "
            "test images; train with --protocol clean"
        )


def _keep(folder: Path, found: dict[str, Any] | None) -> None:
    """Write the temperature into the run's result, or take it out."""
    with RunLock(folder):
        result = {key: value for key, value in read_result(folder).items() if key != CALIBRATION}
        write_result(folder, result if found is None else {**result, CALIBRATION: found})


def logits_of(opened: OpenedSplit) -> tuple[Tensor, Tensor]:
    """The logits of a split's images as they are measured, before any temperature, and their labels.

    Returns:
        float32 (N, K) and int64 (N,), on the CPU, in the split's order.
    """
    classifier = opened.classifier
    found = outputs(
        classifier.module,
        opened.source().batches(eval_batch(classifier)),
        classifier.prepare,
        autocast=lambda: autocast(classifier.device, "fp32"),
        forward=classifier.averaged,
    )
    logits, labels = zip(*((one.cpu(), truth.cpu()) for one, truth in found), strict=True)
    return torch.cat(logits), torch.cat(labels)
