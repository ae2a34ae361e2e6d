"""Every metric of ours, held against torchmetrics on the same predictions."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import classification as theirs

from zoo.evaluate.calibration import calibration
from zoo.evaluate.multi_label import LabelPredictions, metrics_of
from zoo.evaluate.one_pass import evaluate

CLASSES, IMAGES = 7, 400


@pytest.fixture(scope="module")
def predictions() -> tuple[Tensor, Tensor]:
    """Logits that are often right, and labels of which some classes are rare."""
    draw = torch.Generator().manual_seed(0)
    chance = torch.tensor([30.0, 20, 10, 5, 3, 2, 1])
    labels = torch.multinomial(chance, IMAGES, replacement=True, generator=draw)
    logits = torch.randn(IMAGES, CLASSES, generator=draw) + 1.5 * nn.functional.one_hot(labels, CLASSES)
    return logits, labels


def test_accuracies_and_f1_are_torchmetrics(predictions: tuple[Tensor, Tensor]) -> None:
    logits, labels = predictions
    batches = [(torch.arange(len(part)), part, of) for part, of in zip(logits.split(64), labels.split(64), strict=True)]
    ours = evaluate(nn.Identity(), iter(batches), lambda images: images, autocast=nullcontext)
    expected = {
        "top1": theirs.MulticlassAccuracy(CLASSES, average="micro"),
        "top5": theirs.MulticlassAccuracy(CLASSES, average="micro", top_k=5),
        "balanced_accuracy": theirs.MulticlassAccuracy(CLASSES, average="macro"),
        "macro_f1": theirs.MulticlassF1Score(CLASSES, average="macro"),
    }
    for name, metric in expected.items():
        assert getattr(ours, name) == pytest.approx(float(metric(logits, labels)), abs=1e-6), name


def test_the_calibration_error_is_torchmetrics(predictions: tuple[Tensor, Tensor]) -> None:
    logits, labels = predictions
    probabilities = logits.softmax(1)
    ours = calibration(probabilities, labels, probabilities.argmax(1), bins=15)
    expected = theirs.MulticlassCalibrationError(CLASSES, n_bins=15, norm="l1")(probabilities, labels)
    assert ours["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_the_metrics_of_several_labels_are_torchmetrics() -> None:
    draw = torch.Generator().manual_seed(1)
    labels = (torch.rand(IMAGES, CLASSES, generator=draw) < torch.linspace(0.5, 0.05, CLASSES)).long()
    scores = torch.sigmoid(torch.randn(IMAGES, CLASSES, generator=draw) + 2 * labels - 1)
    thresholds = torch.full((CLASSES,), 0.5, dtype=torch.float64)
    ours = metrics_of(LabelPredictions(labels, scores, thresholds), 0.0)
    expected = {
        "map": theirs.MultilabelAveragePrecision(CLASSES, average="macro"),
        "micro_f1": theirs.MultilabelF1Score(CLASSES, average="micro"),
        "macro_f1": theirs.MultilabelF1Score(CLASSES, average="macro"),
        "subset_accuracy": theirs.MultilabelExactMatch(CLASSES),
    }
    for name, metric in expected.items():
        assert getattr(ours, name) == pytest.approx(float(metric(scores, labels)), abs=1e-6), name
