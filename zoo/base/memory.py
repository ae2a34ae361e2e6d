"""How much memory this process can still take."""

from __future__ import annotations

import os
from pathlib import Path


def host_memory() -> int:
    """Bytes that a process can still take: what Linux calls available, within its control group's limit."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError, StopIteration):
        return free  # another system, or no limit
    return min(free, max(0, limit - used))
