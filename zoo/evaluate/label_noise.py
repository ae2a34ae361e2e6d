"""Labels that are probably wrong: where networks that have not seen an image confidently disagree with its label.

Source: C. Northcutt, L. Jiang and I. Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, 2021
(arXiv 1911.00068), section 3.1: the off-diagonal cells of the confident joint, ranked by the probability of the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zoo.data.split import Split
from zoo.data.suspects import Suspect
from zoo.data.types import Images, Labels

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """Images of a split, and what a network that has not seen them says.

    Attributes:
        split: what it is called. images: of it. probabilities: float32 (N, K).
    """

    split: str
    images: Split
    probabilities: Probabilities


def disagreements(labels: Labels, probabilities: Probabilities) -> tuple[Labels, Labels]:
    """Find the labels that a network confidently disagrees with.

    A class is confidently predicted if its probability is at least the mean that it has among the images labelled so;
    of several such classes, the most probable one counts. An image is named if that is another class than its label,
    which is not the most probable class either.

    Args:
        labels: int64 (N,). probabilities: float32 (N, K), by a network that has not learnt from these images.
    Returns:
        (rows, classes that are suggested), int64 (M,): the lowest probability of the label first.
    """
    count, classes = probabilities.shape
    rows = np.arange(count)
    own = probabilities[rows, labels]
    sums, often = np.bincount(labels, own, classes), np.bincount(labels, minlength=classes)
    thresholds = np.where(often > 0, sums / np.maximum(often, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    is_suspect = (confident.max(axis=1) >= 0) & (suggested != labels) & (probabilities.argmax(axis=1) != labels)
    found = np.flatnonzero(is_suspect)
    found = found[np.argsort(own[found], kind="stable")]
    return found, suggested[found].astype(np.int64)


def suspects_of(parts: Sequence[Judged], classes: Sequence[str]) -> list[Suspect]:
    """The images whose label is probably wrong, the likeliest first.

    Args:
        parts: all that was judged; classes without an image among them are never suggested.
    """
    if not parts:
        return []
    labels = np.concatenate([part.images.labels for part in parts])
    probabilities = np.concatenate([part.probabilities for part in parts])
    starts = np.cumsum([0, *(len(part.images) for part in parts)])
    names = [part.images.origins() for part in parts]
    suspects = []
    for row, other in zip(*(found.tolist() for found in disagreements(labels, probabilities)), strict=True):
        place = int(np.searchsorted(starts, row, side="right")) - 1
        inside = row - int(starts[place])
        suspects.append(
            Suspect(
                split=parts[place].split,
                source=names[place][inside],
                given=classes[int(labels[row])],
                suggested=classes[other],
                probability=_rounded(probabilities[row, other]),
                given_probability=_rounded(probabilities[row, labels[row]]),
                read=partial(_image, parts[place].images, inside),
            )
        )
    return suspects


def _image(split: Split, row: int) -> Images:
    return split.images[row]


def _rounded(probability: np.float32) -> float:
    return round(float(probability), 4)
