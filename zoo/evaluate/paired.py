"""Two models on the same images: is one better than the other, and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from zoo.errors import RunError
from zoo.evaluate.opened import OpenedSplit

LEVEL = 0.95
RESAMPLES = 10_000


def interval(correct: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of an accuracy.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    from scipy.stats import binomtest

    ends = binomtest(correct, count).proportion_ci(level, method="wilson")
    return float(ends.low), float(ends.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: of the images that one model alone has right, half each.

    Args:
        only_first, only_second: images that the first model alone, or the second alone, has right.
    Returns:
        p, 0..1; 1 where the models never differ.
    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 1947; its exact form is the binomial test of the discordant pairs.
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def bootstrap(
    only_first: int, only_second: int, count: int, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """A percentile bootstrap interval of the accuracy difference (first minus second), over the images.

    An image contributes +1, -1 or 0, so that drawing `count` images with replacement is one draw of a
    multinomial distribution.

    Args:
        seed: of a numpy Generator (PCG64).
    Returns:
        (low, high), -1..1.
    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    shares = np.array([only_first, only_second, count - only_first - only_second]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=resamples)
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, tails)
    return float(low), float(high)


def compare(first: Tensor, second: Tensor, *, seed: int = 0) -> dict[str, Any]:
    """Compare two models by what each had right.

    Args:
        first, second: bool (N,), of the same images in the same order.
    Returns:
        `top1`: of both; `difference`: first minus second, with its bootstrap `interval` at `level`;
        `both_right`, `only_first`, `only_second`, `both_wrong`: images; `p`: McNemar's, exact.
    """
    count = len(first)
    a, b = int((first & ~second).sum()), int((second & ~first).sum())
    both = int((first & second).sum())
    return {
        "top1": [(both + a) / count, (both + b) / count],
        "difference": (a - b) / count,
        "interval": list(bootstrap(a, b, count, seed=seed)),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "seed": seed,
        "both_right": both,
        "only_first": a,
        "only_second": b,
        "both_wrong": count - both - a - b,
        "test": "McNemar, exact, two-sided",
        "p": mcnemar(a, b),
    }


def check_same(first: OpenedSplit, second: OpenedSplit) -> None:
    """Refuse two runs that were not opened on the same images, in the same order.

    Both are opened on their own images, or both on the same other ones. Images of another size (or streamed,
    where the other's are not) have another fingerprint; they are the same where the SPEC and all labels are. Classes
    are matched by name, so that their order may differ.

    Raises:
        RunError: says what differs.
    """
    common = _common_names(first, second)
    if common is None:
        raise RunError(f"the runs have other classes: {_classes(first)}, {_classes(second)}")
    if not _same_images(first, second, *common):
        raise RunError(
            f"the runs have no {first.split} images in common order: {_images(first)}, {_images(second)}; "
            "a paired test needs the same images"
        )


Names = tuple[str, ...]


def _common_names(first: OpenedSplit, second: OpenedSplit) -> tuple[Names, Names] | None:
    """What both call their classes, each in its own order; None where the classes are others."""
    pairs = [(ours, theirs) for ours in first.names for theirs in second.names]
    same = (pair for pair in pairs if pair[0] == pair[1])
    ordered = (pair for pair in pairs if len(set(pair[0])) == len(pair[0]) and sorted(pair[0]) == sorted(pair[1]))
    return next(same, None) or next(ordered, None)


def _same_images(first: OpenedSplit, second: OpenedSplit, ours: Names, theirs: Names) -> bool:
    same = first.on is not None
    if first.record is not None and second.record is not None:
        a, b = first.record.data, second.record.data
        same = same or a.fingerprint == b.fingerprint or a.spec == b.spec
    places = np.arange(len(ours)) if ours == theirs else np.array([ours.index(name) for name in theirs])
    labels = np.asarray(second.images.labels)
    return same and np.array_equal(
        first.images.labels, places[labels] if labels.ndim == 1 else labels[:, places.argsort()]
    )


def _classes(opened: OpenedSplit) -> str:
    classifier = opened.classifier
    return f"{classifier.sizes.num_classes} of {classifier.dataset or classifier.name}"


def _images(opened: OpenedSplit) -> str:
    """How many images were opened, of what."""
    if opened.on is not None or opened.record is None:
        return f"{len(opened.images)} of {opened.on}"
    data = opened.record.data
    return f"{len(opened.images)} of {data.spec} (fingerprint {data.fingerprint[:12]})"
