"""One probe: the training images fit a simple classifier, the validation images choose it, the test images measure it.

The test images are read once, when the choice is made. No classifier is fitted to the validation images. Features are
cached, so that no augmentation is possible: a probe says what the features hold, not what fine-tuning would reach.

Source: the linear probe is Alain and Bengio's ("Understanding intermediate layers using linear classifier probes",
2016), with the logistic regression of Radford et al. ("Learning Transferable Visual Models From Natural Language
Supervision", section 3.2); the nearest neighbours are those of Wu et al. ("Unsupervised Feature Learning via
Non-Parametric Instance Discrimination", section 3.4) without their weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.errors import InputError
from zoo.evaluate.classes import balanced_accuracy, scores_of
from zoo.evaluate.paired import LEVEL, interval

if TYPE_CHECKING:
    from zoo.studies.probe.probed import Method

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""The values of C, the inverse strength of the penalty, that the validation images choose from."""

NEIGHBOURS = (1, 3, 5, 10, 20, 50)
"""The values of k that they choose from; those above the number of training images are left out."""

MOST_STEPS = 1000
"""Of the optimizer of a logistic regression (L-BFGS)."""

Predictor = Callable[[NDArray[np.float64]], NDArray[np.int64]]


class Part(NamedTuple):
    """One split: features float64 (N, D), labels int64 (N,)."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """The features of a model, split as a training splits its images."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]

    def few(self, shots: int, seed: int, draw: int) -> Parts:
        """The same with only `shots` training images of each class: the same ones for every model.

        Raises:
            InputError: a class has fewer.
        """
        rows = []
        random = np.random.default_rng([seed, shots, draw])
        for number in np.unique(self.train.labels):
            of_class = np.flatnonzero(self.train.labels == number)
            if len(of_class) < shots:
                raise InputError(
                    f"--shots {shots}: the class {self.classes[number]!r} has only {len(of_class)} training images"
                    if len(of_class) > 1
                    else f"--shots {shots}: the class {self.classes[number]!r} has only one training image"
                )
            rows.append(random.permutation(of_class)[:shots])
        chosen = np.sort(np.concatenate(rows))
        return Parts(
            Part(self.train.features[chosen], self.train.labels[chosen]), self.validation, self.test, self.classes
        )


def probe(parts: Parts, method: Method) -> dict[str, Any]:
    """Fit, choose and measure one classifier.

    Returns:
        `chosen`: {"C": ...} or {"k": ...}: of equally good ones the smallest; `validation_top1`, `top1`, `correct`,
        `count`, `interval` (Wilson's, 95%), `balanced_accuracy`, `train_images`.
    Raises:
        InputError: the training images are of one class.
    """
    if len(np.unique(parts.train.labels)) < 2:
        raise InputError("all training images are of one class; a probe needs two")
    found = ((_accuracy(predict, parts.validation), chosen, predict) for chosen, predict in CANDIDATES[method](parts))
    right, chosen, predict = _first_best(found)
    predicted, labels = predict(parts.test.features), parts.test.labels
    correct, count = int((predicted == labels).sum()), len(labels)
    low, high = interval(correct, count)
    return {
        "chosen": chosen,
        "validation_top1": right,
        "top1": correct / count,
        "correct": correct,
        "count": count,
        "interval": {"level": LEVEL, "ends": [low, high]},
        "balanced_accuracy": _balanced(predicted, labels, len(parts.classes)),
        "train_images": len(parts.train.labels),
    }


def few_shot(parts: Parts, method: Method, shots: int, draws: int, seed: int) -> dict[str, Any]:
    """The mean over several draws of a few training images of each class, and the spread over the draws.

    Returns:
        As `probe`, each figure the mean; without `correct` and `interval`, with `draws`, each one's `draws_top1`, and
        `spread`: the standard deviation of one draw's top-1 (None for a single draw).
    """
    found = [probe(parts.few(shots, seed, draw), method) for draw in range(draws)]
    scores = [one["top1"] for one in found]
    (name,) = found[0]["chosen"]
    return {
        "chosen": {name: [one["chosen"][name] for one in found]},
        **{key: mean(one[key] for one in found) for key in ("validation_top1", "top1", "balanced_accuracy")},
        "spread": stdev(scores) if draws > 1 else None,
        "draws_top1": scores,
        "count": found[0]["count"],
        "train_images": found[0]["train_images"],
    }


def _first_best(found: Iterable[tuple[float, dict[str, Any], Predictor]]) -> tuple[float, dict[str, Any], Predictor]:
    """The most accurate one; of equals the first."""
    return max(found, key=lambda one: one[0])


def _accuracy(predict: Predictor, part: Part) -> float:
    return float((predict(part.features) == part.labels).mean())


def _balanced(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    counts = (np.bincount(numbers, minlength=classes) for numbers in (predicted, labels))
    return balanced_accuracy(scores_of(*(torch.from_numpy(count) for count in (hits, *counts))))


# ---- the two classifiers -------------------------------------------------------------------------------


def _linear(parts: Parts) -> Iterator[tuple[dict[str, Any], Predictor]]:
    """Logistic regression on features brought to mean 0 and variance 1 by the training images."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MOST_STEPS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the validation images judge what came out
            model.fit(*parts.train)
        yield {"C": strength}, model.predict


def _knn(parts: Parts) -> Iterator[tuple[dict[str, Any], Predictor]]:
    """The majority of the k training images with the largest cosine similarity; of equals the first class."""
    from sklearn.neighbors import KNeighborsClassifier

    for k in NEIGHBOURS:
        if k <= len(parts.train.labels):
            model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(*parts.train)
            yield {"k": k}, model.predict


CANDIDATES: Mapping[str, Callable[[Parts], Iterator[tuple[dict[str, Any], Predictor]]]] = MappingProxyType(
    {"linear": _linear, "knn": _knn}
)
