"""Whether a result stands above a published one, at it or below it, as far as its seeds can tell."""

from __future__ import annotations

from math import sqrt

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t for an interval of 95% with 1 to 9 degrees of freedom; for more, the last is a little too wide."""


def standing(difference: float | None, spread: float | None, seeds: int) -> str:
    """How a mean over seeds stands beside a published number, which has no known spread of its own.

    Args:
        difference: the mean less the published number. spread: the standard deviation over the seeds, in the same unit.
    Returns:
        "above" or "below" where the mean's interval of 95% (Student's t) leaves the published number out, "at" where
        it does not; "" with one seed, or where something is not known.
    """
    if difference is None or spread is None or seeds < 2:
        return ""
    half = T95[min(seeds - 2, len(T95) - 1)] * spread / sqrt(seeds)
    return "above" if difference > half else "below" if difference < -half else "at"
