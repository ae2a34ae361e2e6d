"""A command in a process that may not have much memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")

BYTES = 6 << 30
"""Of address space: torch takes the half of it before it has done anything."""


def zoo_with_little_memory(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`zoo WORDS` in a folder, with `BYTES` of address space."""
    import resource

    return subprocess.run(
        [sys.executable, "-m", "zoo", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES)),
    )
