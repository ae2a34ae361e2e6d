"""Start Python processes that run a module of `zoo` and import no Python files of the current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def python(module: str) -> list[str]:
    """The command that runs a module in a new process.

    `python -m` alone would put the current folder before all libraries: a user's random.py or logging.py would run.
    """
    return [sys.executable, *flags(), "-m", module]


def flags() -> list[str]:
    """Options for Python that keep the current folder off its search path."""
    return ["-I"] if sys.flags.isolated else ["-P"]


def python_path() -> str:
    """PYTHONPATH for such a process, with the folder of `zoo` if it is importable only from the current folder."""
    given = os.environ.get("PYTHONPATH", "")
    root = str(Path(__file__).resolve().parent.parent.parent)
    first, *installed = [os.path.realpath(path) for path in sys.path] or [""]
    if first != root or root in installed:
        return given
    return os.pathsep.join(filter(None, (given, root)))


def environment(**more: str) -> dict[str, str]:
    """Environment variables for such a process: those of this process, and the given ones."""
    path = python_path()
    return {**os.environ, **({"PYTHONPATH": path} if path else {}), **more}
