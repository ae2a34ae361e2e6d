"""How many CPUs this process may use: its affinity, and the quotas of its control groups (Linux, v1 and v2)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")

CROWDED = 0.7
"""CPUs that other processes keep busy: from this number on, threads that wait for one another are slowed down."""


def affinity() -> int:
    """The number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable() -> int:
    """The number of CPUs that this process may keep busy: those of its affinity, or the whole CPUs of its quota."""
    limit = quota()
    return affinity() if limit is None else max(1, min(affinity(), int(limit)))


def most() -> int:
    """The largest number of threads that can pay: as `usable`, but a part of a CPU in the quota counts as one."""
    limit = quota()
    return affinity() if limit is None else max(1, min(affinity(), math.ceil(limit)))


def quota(root: Path = ROOT) -> float | None:
    """The CPUs that the strictest quota of a control group allows this process; None without a quota.

    Args:
        root: the folder that contains /proc and /sys.
    """
    try:
        limits = [limit for folder in _groups(root) if (limit := _limit(folder)) is not None]
    except (OSError, ValueError):
        return None
    return min(limits, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups that limit CPU time, and of all groups that contain them."""
    rows = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    paths = {name: path for _, names, path in rows for name in names.split(",") if name in ("", "cpu")}
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split(maxsplit=2)
        name = {"cgroup2": "", "cgroup": "cpu"}.get(kind)
        if name not in paths or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        mount, below = root / fields[4].lstrip("/"), Path(os.path.relpath(paths[name], fields[3]))
        inside = below if ".." not in below.parts and (mount / below).is_dir() else Path()
        yield from (mount / part for part in (inside, *inside.parents))


def _limit(folder: Path) -> float | None:
    """The quota of one control group, in CPUs."""
    if (both := folder / "cpu.max").is_file():
        given, period = both.read_text().split()
    elif (alone := folder / "cpu.cfs_quota_us").is_file():
        given, period = alone.read_text(), (folder / "cpu.cfs_period_us").read_text()
    else:
        return None
    return None if given == "max" or int(given) <= 0 else int(given) / int(period)


class Neighbours:
    """Measures how busy other processes keep the CPUs that this one may use, from its creation on (Linux)."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.began = self._now()

    def busy(self) -> float | None:
        """The CPUs that other processes kept busy on average; None if that is not known."""
        began, ended = self.began, self._now()
        if began is None or ended is None or ended[0] <= began[0]:
            return None
        seconds, everybody, this = (after - before for before, after in zip(began, ended, strict=True))
        return max(0.0, (everybody - this) / seconds)

    def _now(self) -> tuple[float, float, float] | None:
        """Seconds of the clock, of work of all processes, and of work of this one and its ended children."""
        try:
            lines = (self.root / "proc/stat").read_text().splitlines()
            ticks = os.sysconf("SC_CLK_TCK")
            mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        except (OSError, ValueError, AttributeError):
            return None
        rows = [line.split() for line in lines]
        # user, nice and system time, that of interrupts, and time that the hypervisor gave to other machines
        work = sum(int(row[i]) for row in rows if row[0] in mine for i in (1, 2, 3, 6, 7, 8))
        return time.monotonic(), work / ticks, sum(os.times()[:4])
