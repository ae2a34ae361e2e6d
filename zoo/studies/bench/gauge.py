"""Measuring tools: seconds of a call, FLOP/s of a matrix product, peak memory."""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zoo.models.device import mean_seconds
from zoo.models.precision import DTYPES

WARM_UP = 3
MATRIX_SIDE = 2048
MATRIX_SIDE_GPU = 8192


class Effort(NamedTuple):
    """The effort for one measurement, without warm-up: `steps` calls per repeat, else `seconds` in total."""

    seconds: float = 5.0
    repeats: int = 5
    steps: int | None = None


def timed(call: Callable[[], None], device: torch.device, effort: Effort) -> list[float]:
    """Seconds per call in each repeat, after a warm-up; waits for the device."""
    took = 0.0
    for _ in range(WARM_UP):
        took = mean_seconds(call, 1, device)
    calls = effort.steps or max(1, round(effort.seconds / effort.repeats / took))
    return [mean_seconds(call, calls, device) for _ in range(effort.repeats)]


def rates(seconds: Sequence[float], batch: int) -> dict[str, Any]:
    """Images per second, and milliseconds per batch."""
    return {
        "images_per_second": spread([batch / s for s in seconds]),
        "milliseconds": spread([1e3 * s for s in seconds]),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and number of the measurements."""
    quarters = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "q1": quarters[0], "q3": quarters[2], "n": len(values)}


def matrix_rate(device: torch.device, precision: str, repeats: int = 7) -> list[float]:
    """FLOP/s of square matrix products of random numbers in this precision, for each repeat."""
    side = MATRIX_SIDE_GPU if device.type == "cuda" else MATRIX_SIDE
    a, b = (torch.randn(side, side, device=device, dtype=dict(DTYPES)[precision]) for _ in range(2))
    calls = 10 if device.type == "cuda" else 1

    def multiply() -> None:
        torch.mm(a, b)

    took = [mean_seconds(multiply, calls, device) for _ in range(WARM_UP + repeats)]
    return [2 * side**3 / seconds for seconds in took[WARM_UP:]]


class Peak:
    """Peak memory since its creation: of the GPU's allocator, else the growth of the process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            gc.collect()  # what is garbage already must not make room for what is measured
            _forget_peak()
            self.before = resident_peak()

    def growth(self) -> int | None:
        """Bytes so far; None if the system does not report it."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        now = resident_peak()
        return None if now is None or self.before is None else now - self.before


def _forget_peak() -> None:
    """Reset Linux's counter of peak memory to the memory in use now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def resident_peak() -> int | None:
    """Peak memory of this process in bytes; None if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
