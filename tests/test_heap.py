"""What a process keeps of the memory that it frees, and in pages of which size."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's: Linux only")

PROBE = """
import resource, sys
import torch
from zoo.train.heap import keep_heap

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

print(keep_heap())
size = 25 << 20  # floats: 100 MiB
torch.ones(size)
before = faults()
for _ in range(5):
    torch.ones(size)
print(faults() - before)
block = torch.ones(size)
with open("/proc/self/smaps_rollup") as f:
    print(next(line.split()[1] for line in f if line.startswith("AnonHugePages")))
"""


def pages() -> str:
    """To whom the kernel grants huge pages: "always", "madvise" or "never"."""
    granted = re.search(r"\[(\w+)\]", THP.read_text()) if THP.exists() else None
    return granted[1] if granted else "never"


def probe(**environment: str) -> tuple[bool, int, int]:
    """(Whether it was set, page faults of five tensors of 100 MiB, KiB in huge pages) of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults, huge = done.stdout.split()
    return kept == "True", int(faults), int(huge)


def test_freed_memory_is_kept_and_not_faulted_in_again() -> None:
    kept, faults, _ = probe()
    assert kept
    assert faults < 1000  # 25,600 small pages are one tensor
    kept, faults, _ = probe(ZOO_KEEP_HEAP="0")
    assert not kept
    assert faults > (100 if pages() == "always" else 100_000)


def test_it_lies_in_huge_pages_where_the_kernel_grants_them() -> None:
    if pages() == "never":
        pytest.skip("this kernel grants no huge pages")
    # At least one: a kernel whose memory lies in pieces grants fewer than are asked for.
    assert probe()[2] >= 2 << 10
    small = probe(ZOO_KEEP_HEAP="0")[2]
    assert pages() == "always" or small == 0
