"""Tells glibc's allocator to keep the memory that a training step frees."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

TRIM_THRESHOLD: Final = 2**31 - 1
"""Bytes; the largest value of `mallopt`. The heap is returned to the system only if more than this is free."""

TOP_PAD: Final = 256 << 20
"""Bytes that the heap grows by."""


def keep_heap() -> bool:
    """Let glibc keep freed memory, so that a step causes no page faults for its activations.

    This saves up to a third of the time of a step on a CPU, and costs memory that is not returned before the
    process ends, or before `trim_heap`. `ZOO_KEEP_HEAP=0` leaves the allocator unchanged, and so does a limit of the
    address space (`ulimit -v`): oneDNN maps memory for the code that it generates, and was refused it beside a heap
    of gigabytes that were free. Huge pages (`MADV_HUGEPAGE`) did not help: a step of hybrid-alt-1 took as long, and
    the first one a second longer.

    Returns:
        Whether it was set.
    """
    glibc = _glibc()
    if glibc is None or not keeps_heap():
        return False
    mallopt = glibc.mallopt
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    wanted = ((mmap_max, 0), (trim_threshold, TRIM_THRESHOLD), (top_pad, TOP_PAD))
    done = [mallopt(option, value) == 1 for option, value in wanted]  # set all of them, even if one fails
    return all(done)


def keeps_heap() -> bool:
    """Whether this process is one whose freed memory `keep_heap` keeps: by its system, environment and limits."""
    if sys.platform != "linux" or os.environ.get("ZOO_KEEP_HEAP", "1") == "0":
        return False
    import resource  # here, as not all systems have it

    return resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def trim_heap() -> bool:
    """Return the memory that `keep_heap` kept and nothing uses to the system.

    Returns:
        Whether any was returned.
    """
    glibc = _glibc()
    return glibc is not None and glibc.malloc_trim(0) == 1


def _glibc() -> ctypes.CDLL | None:
    """The C library with the calls of this module, where it is glibc."""
    if sys.platform != "linux":
        return None
    try:
        found = ctypes.CDLL("libc.so.6")
        return found if found.mallopt and found.malloc_trim else None
    except (OSError, AttributeError):
        return None
