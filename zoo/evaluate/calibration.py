"""Calibration: whether a model is right as often as it says that it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BINS = 15
"""As in the tables of Guo et al. 2017."""


def reliability(confidence: Tensor, hits: Tensor, bins: int = BINS) -> list[dict[str, Any]]:
    """Confidence and accuracy in bins of equal width.

    Args:
        confidence: (N,), any float dtype, 0..1, of the predicted class. hits: bool (N,).
        bins: M of them; bin m (from 1) holds the confidences in ((m-1)/M, m/M].
    Returns:
        M rows with `low`, `high`, `count`, `confidence` and `accuracy` (means; None in an empty bin).
    Source:
        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = torch.bucketize(confidence.double(), edges[1:-1])  # right-closed, as in the source
    count = torch.bincount(place, minlength=bins)
    sure = torch.bincount(place, confidence.double(), bins)
    right = torch.bincount(place, hits.double(), bins)
    rows = []
    for m in range(bins):
        n = int(count[m])
        means = (float(sure[m]) / n, float(right[m]) / n) if n else (None, None)
        low, high = edges[m : m + 2].tolist()
        rows.append({"low": low, "high": high, "count": n, "confidence": means[0], "accuracy": means[1]})
    return rows


def calibration(probabilities: Tensor, labels: Tensor, predicted: Tensor, bins: int = BINS) -> dict[str, Any]:
    """How far confidence and accuracy are apart.

    Args:
        probabilities: (N, K), any float dtype. labels, predicted: int64 (N,).
    Returns:
        `ece`: the bins' |accuracy - confidence| weighted by their images (the source's equation 3).
        `mce`: the largest of them (equation 5). `brier`: the mean over images of the squared distance
        between the probabilities and the label's one-hot vector, 0..2 (Brier, "Verification of forecasts
        expressed in terms of probability", 1950). `confidence`, `accuracy`: means over all images.
        `bins`: as `reliability` gives them.
    Source:
        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    confidence = probabilities.gather(1, predicted[:, None])[:, 0].double()
    hits = predicted == labels
    rows = reliability(confidence, hits, bins)
    gaps = [(row["count"], abs(row["accuracy"] - row["confidence"])) for row in rows if row["count"]]
    true = probabilities.gather(1, labels[:, None])[:, 0].double()
    brier = (probabilities.double().square().sum(1) - 2 * true + 1).mean()
    return {
        "ece": sum(n * gap for n, gap in gaps) / len(labels),
        "mce": max(gap for _, gap in gaps),
        "brier": float(brier),
        "confidence": float(confidence.mean()),
        "accuracy": float(hits.double().mean()),
        "bins": rows,
    }
