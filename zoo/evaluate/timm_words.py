"""What is done to images before a model sees them, in the words of timm's `pretrained_cfg`."""

from __future__ import annotations

import math
from typing import Any

from zoo.evaluate.preparing import Preprocessing
from zoo.runs.record import Sizes


def timm_config(sizes: Sizes, given: Preprocessing) -> dict[str, Any]:
    """`input_size`, `num_classes`, `mean`, `std`, `crop_pct`, `crop_mode` and `interpolation`."""
    rule, channels = given.rule, sizes.in_channels
    each = channels if len(given.mean) == 1 else 1
    return {
        "input_size": [channels, sizes.height, sizes.width],
        "num_classes": sizes.num_classes,
        "mean": list(given.mean) * each if given.normalize else [0.0] * channels,
        "std": list(given.std) * each if given.normalize else [1.0] * channels,
        "crop_pct": 1.0 if rule.size else _crop_pct(sizes.height, rule.resize or sizes.height),
        "crop_mode": "squash" if rule.size or rule.squash else "center",
        "interpolation": rule.interpolation,
    }


def _crop_pct(crop: int, resize: int) -> float:
    """The share from which timm computes exactly `resize`: it divides by the share and rounds down."""
    share = crop / resize
    while math.floor(crop / share) < resize:
        share = math.nextafter(share, 0)
    return share
