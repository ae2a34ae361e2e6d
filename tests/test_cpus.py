"""How many threads are used: quotas of control groups in the layouts in which they are found, and neighbours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from zoo.base import cpus
from zoo.cli.doctor.machine import crowded
from zoo.models import device

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="quotas are read on Linux")

V2 = "29 22 0:26 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 24 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 24 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:14 - cgroup cgroup rw,cpu,cpuacct\n"
)


def system(folder: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A root folder with what the kernel tells about control groups."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


CPU = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "quota"),
    [
        # a container with a name space of its own: its group is the root
        ("0::/\n", V2.format(root="/"), {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", V2.format(root="/"), {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ("0::/\n", V2.format(root="/"), {}, None),
        # systemd: the strictest of a group and all that hold it
        (
            "0::/user.slice/job.scope\n",
            V2.format(root="/"),
            {
                "sys/fs/cgroup/user.slice/cpu.max": "200000 100000",
                "sys/fs/cgroup/user.slice/job.scope/cpu.max": "max 100000",
            },
            2.0,
        ),
        # v1; in a container the mount shows the container's group as its root
        (
            "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n",
            V1.format(root="/docker/abc"),
            {f"{CPU}/cpu.cfs_quota_us": "100000\n", f"{CPU}/cpu.cfs_period_us": "100000\n"},
            1.0,
        ),
        (
            "4:cpu,cpuacct:/slurm/job_1\n0::/\n",
            V1.format(root="/"),
            {
                f"{CPU}/cpu.cfs_quota_us": "-1\n",
                f"{CPU}/cpu.cfs_period_us": "100000\n",
                f"{CPU}/slurm/job_1/cpu.cfs_quota_us": "400000\n",
                f"{CPU}/slurm/job_1/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        # the host's path, of which the container shows nothing but its own root
        (
            "4:cpu,cpuacct:/kubepods/pod1\n",
            V1.format(root="/"),
            {f"{CPU}/cpu.cfs_quota_us": "50000", f"{CPU}/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("nonsense", "nonsense", {}, None),
    ],
)
def test_the_strictest_quota_is_found(
    groups: str, mounts: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert cpus.quota(system(tmp_path, groups, mounts, files)) == quota


def test_where_nothing_is_told_there_is_no_quota(tmp_path: Path) -> None:
    assert cpus.quota(tmp_path) is None
    assert cpus.Neighbours(tmp_path).busy() is None


@pytest.mark.parametrize(
    ("quota", "asked", "threads", "why"),
    [
        (1.5, "", 1, "1 thread: a quota of 1.5 of 8 CPUs"),
        (0.2, "", 1, "1 thread: a quota of 0.2 of 8 CPUs"),
        (2.0, "", 2, "2 threads: a quota of 2 of 8 CPUs"),
        (None, "", 3, "3 threads: torch's own choice for 8 CPUs"),
        (4.0, "", 3, "3 threads: a quota of 4 of 8 CPUs"),
        (1.5, "3", 3, "3 threads: OMP_NUM_THREADS is set"),
    ],
)
def test_threads_follow_a_quota_unless_the_user_chose(
    quota: float | None, asked: str, threads: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(cpus, "quota", lambda: quota)
    monkeypatch.setattr(cpus, "affinity", lambda: 8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert device.pick_device("cpu").type == "cpu"
        assert torch.get_num_threads() == threads
        assert device.threads_in_words().startswith(why)
    finally:
        torch.set_num_threads(before)


def test_busy_neighbours_are_seen_and_children_that_ended_are_none() -> None:
    work = "import time\nuntil = time.process_time() + 0.5\nwhile time.process_time() < until: pass"
    neighbours = cpus.Neighbours()
    with subprocess.Popen([sys.executable, "-c", work]) as process:
        began = time.monotonic()
        while process.poll() is None and time.monotonic() < began + 60:
            time.sleep(0.01)
    seconds = time.monotonic() - began
    busy = neighbours.busy()
    assert busy is not None
    assert busy <= cpus.affinity() - 0.4 / (seconds + 1)  # the child's half second is not the others'


def test_work_of_others_is_counted_on_the_processors_that_this_process_may_use(tmp_path: Path) -> None:
    mine = min(os.sched_getaffinity(0))
    lines = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu{} {} 0 0 500 0 0 0 0 0 0\ncpu99999 {} 0 0 0 0 0 0 0 0 0\nintr 1\n"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(lines.format(mine, 100, 0))
    neighbours = cpus.Neighbours(tmp_path)
    (tmp_path / "proc/stat").write_text(lines.format(mine, 100, 10**9))
    assert neighbours.busy() == 0.0
    (tmp_path / "proc/stat").write_text(lines.format(mine, 10**9, 0))
    assert (neighbours.busy() or 0.0) > 1000


def test_the_doctor_says_that_others_keep_the_processors_busy() -> None:
    (finding,) = crowded(1.0, 2)
    assert (finding.level, "1.0 of" in finding.said) == ("note", True)
    assert [*crowded(0.2, 2), *crowded(1.0, 1), *crowded(None, 2)] == []
