"""glibc's allocator, told to keep what a training step frees, and to take it in huge pages."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

TRIM_THRESHOLD: Final = 2**31 - 1
"""Bytes; the largest that `mallopt` takes. With more than this free at its end, the heap is given back."""

TOP_PAD: Final = 256 << 20
"""Bytes that the heap grows by."""

HUGE: Final = 3 << 29
"""Bytes of the heap that are asked for in huge pages; with TOP_PAD still less than TRIM_THRESHOLD."""


def keep_heap() -> bool:
    """Let glibc keep freed memory, so that each step does not fault its activations in again.

    Worth up to a third of the time of a step on a CPU; costs memory that is not given back before the
    process ends. The first 1.5 GiB are asked for in huge pages, of which a processor remembers more at once.
    `ZOO_KEEP_HEAP=0` leaves the allocator alone.

    Returns:
        Whether it was set.
    """
    if sys.platform != "linux" or os.environ.get("ZOO_KEEP_HEAP", "1") == "0":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    wanted = ((mmap_max, 0), (trim_threshold, TRIM_THRESHOLD), (top_pad, TOP_PAD))
    done = [mallopt(option, value) == 1 for option, value in wanted]  # each of them, whatever the first gives
    if all(done):
        _ask_for_huge_pages(libc)
    return all(done)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Grow the heap without touching it, advise the kernel on it, and free it: what is allocated next lies there."""
    import resource  # not on every platform

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return  # what is only reserved counts there
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    huge_page_advice = 14
    block = libc.malloc(HUGE)
    if block is None:
        return
    page = resource.getpagesize()
    start = -(-block // page) * page
    libc.madvise(start, (block + HUGE - start) // page * page, huge_page_advice)  # refused: pages stay small
    libc.free(block)
