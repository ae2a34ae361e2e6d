"""Accuracy on corrupted images: what is left of it, corruption by corruption, level by level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.data.split import Split, limit
from zoo.evaluate.corruptions import GROUPS, Corruptor, pairs
from zoo.evaluate.opened import OpenedSplit

IMAGES = 1000
"""How many images are corrupted unless more are asked for: 75 times each is slow."""

Show = Callable[[str, int, int], None]


def robustness(
    opened: OpenedSplit,
    names: Sequence[str],
    severities: Sequence[int],
    *,
    images: int | None = IMAGES,
    seed: int = 0,
    workers: int = 0,
    show: Show = lambda text, done, total: None,
) -> dict[str, Any]:
    """Measure a run on corrupted images of its split.

    Args:
        names, severities: see `zoo.evaluate.corruptions`. images: how many at most, a stratified subset that is a
            function of the labels alone; None: all. seed: of the corruptions. workers: processes; 0: none.
        show: told what is done, and how many passes of how many.
    Returns:
        `rows`: a corruption each, with its `group`, `top1` at each of `severities` and their `mean`; `mean`: of
        the rows' means; `clean`: top-1 of the same images as they are; `images` and `seed`.
    Source:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations", ICLR 2019, section 3, as accuracies that are not divided by AlexNet's errors.
    """
    part = limit(opened.images, images)
    plain = np.ascontiguousarray(part.images[np.arange(len(part))])
    clean = opened.measure(_with(part, plain))
    corruptor = Corruptor(plain, seed, workers)
    top1: dict[str, list[float]] = {name: [] for name in names}
    total = len(names) * len(severities)
    try:
        for number, (name, severity) in enumerate(pairs(names, severities)):
            show(f"{name} {severity}", number, total)
            top1[name].append(opened.measure(_with(part, corruptor(name, severity))).top1)
        show("done", total, total)
    finally:
        corruptor.close()
    group = {name: title for title, members in GROUPS for name in members}
    means = {name: sum(levels) / len(levels) for name, levels in top1.items()}
    rows = [{"corruption": n, "group": group[n], "top1": top1[n], "mean": means[n]} for n in names]
    return {
        "clean": clean.top1,
        "mean": sum(means.values()) / len(means),
        "images": len(part),
        "severities": list(severities),
        "seed": seed,
        "rows": rows,
    }


def _with(split: Split, images: np.ndarray[Any, np.dtype[np.uint8]]) -> Split:
    """The split with these images in memory in the place of its own."""
    return replace(split, images=images, pool=None)
