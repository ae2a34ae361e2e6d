"""Latency: how long one call takes, again and again; each is waited for."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.models.device import mean_seconds

WARM_UP = 5
FEWEST, MOST = 20, 1000


def latency(
    call: Callable[[Tensor], object], shape: tuple[int, int, int, int], device: torch.device, seconds: float
) -> dict[str, Any]:
    """Time calls one by one.

    Args:
        call: is given uint8 images (B, C, H, W) of random numbers, which lie on the device.
        seconds: about how long, warm-up apart; at least 20 calls are made and at most 1000.
    Returns:
        `batch`, `calls`, `warm_up` (calls before), `median_ms`, `p95_ms`, `min_ms` of a call, and
        `images_per_second` by the median.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    for _ in range(WARM_UP):
        mean_seconds(lambda: call(images), 1, device)
    taken: list[float] = []
    while len(taken) < FEWEST or (sum(taken) < seconds and len(taken) < MOST):
        taken.append(mean_seconds(lambda: call(images), 1, device))
    median = statistics.median(taken)
    return {
        "batch": shape[0],
        "calls": len(taken),
        "warm_up": WARM_UP,
        "median_ms": 1e3 * median,
        "p95_ms": 1e3 * statistics.quantiles(taken, n=20, method="inclusive")[-1],
        "min_ms": 1e3 * min(taken),
        "images_per_second": shape[0] / median,
    }
