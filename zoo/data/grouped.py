"""Draws a share of the images without parting the images of a group, such as those of one patient or one film.

scikit-learn's `StratifiedGroupKFold` cuts into equal folds, and which images these are may change with its version. A
run has to find its own images again for years, with any share, so that the drawing is written out here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zoo.data.types import Labels

PASSES = 4
"""How often all groups are looked at: later looks repair what chance brought before."""


class _Groups(NamedTuple):
    """How many images of each class every group has, without a table of all groups by all classes.

    Attributes:
        starts: where each group begins in `classes` and `counts`; one more entry for the end.
    """

    starts: Labels
    classes: Labels
    counts: Labels

    def of(self, group: int) -> tuple[Labels, Labels]:
        """The classes of a group, and how many images it has of each."""
        span = slice(int(self.starts[group]), int(self.starts[group + 1]))
        return self.classes[span], self.counts[span]


def _counted(labels: Labels, numbers: Labels, classes: int) -> _Groups:
    cells, counts = np.unique(numbers * classes + labels, return_counts=True)
    starts = np.searchsorted(cells // classes, np.arange(int(numbers.max()) + 2))
    return _Groups(starts, cells % classes, counts.astype(np.int64))


def whole_groups(labels: Labels, groups: Labels, n: int, seed: int) -> Labels:
    """Choose about `n` rows, with about the class shares of the whole, and of each group all rows or none.

    The groups are gone through in a random order, `PASSES` times. One is taken, or given back, if that brings the
    counts of its classes nearer to their shares, relative to how common each class is. None is taken that holds all
    images of a class that are left, so that every class keeps an image. Where no group would bring them nearer, the
    one that comes nearest is taken.

    Args:
        labels: int64 (N,), from 0. groups: int64 (N,), any numbers.
        n: how many, 0..N; the groups decide how near the number comes to it.
        seed: of a numpy Generator (PCG64); the same seed gives the same rows on every machine.
    Returns:
        int64, sorted row numbers; none where every group holds all images of one of its classes.
    """
    if n <= 0 or not len(labels):
        return np.empty(0, np.int64)
    names, numbers = np.unique(groups, return_inverse=True)
    totals = np.bincount(labels).astype(np.int64)
    counted = _counted(labels, numbers.astype(np.int64), len(totals))
    wanted, weight = totals * (n / len(labels)), 1 / np.maximum(totals, 1)
    held, taken = np.zeros(len(totals), np.int64), np.zeros(len(names), bool)
    nearest = (np.inf, -1)
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    for group in order * PASSES:
        classes, counts = counted.of(group)
        if taken[group]:
            counts = -counts
        elif (held[classes] + counts >= totals[classes]).any():
            continue
        farther = float((counts * (2 * (held[classes] - wanted[classes]) + counts) * weight[classes]).sum())
        if farther < 0:
            held[classes] += counts
            taken[group] = not taken[group]
        else:
            nearest = min(nearest, (farther, group))
    if not taken.any() and nearest[1] >= 0:
        taken[nearest[1]] = True
    return np.flatnonzero(taken[numbers]).astype(np.int64)
