"""glibc's allocator, told to keep what a training step frees."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

TRIM_THRESHOLD: Final = 2**31 - 1
"""Bytes; the largest that `mallopt` takes. With more than this free at its end, the heap is given back."""

TOP_PAD: Final = 256 << 20
"""Bytes that the heap grows by."""


def keep_heap() -> bool:
    """Let glibc keep freed memory, so that each step does not fault its activations in again.

    Worth up to a third of the time of a step on a CPU; costs memory that is not given back before the
    process ends. `ZOO_KEEP_HEAP=0` leaves the allocator alone. Huge pages for it (`MADV_HUGEPAGE`) were tried: a step
    of hybrid-alt-1 took as long, and the first one a second longer.

    Returns:
        Whether it was set.
    """
    if sys.platform != "linux" or os.environ.get("ZOO_KEEP_HEAP", "1") == "0":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    wanted = ((mmap_max, 0), (trim_threshold, TRIM_THRESHOLD), (top_pad, TOP_PAD))
    done = [mallopt(option, value) == 1 for option, value in wanted]  # each of them, whatever the first gives
    return all(done)
