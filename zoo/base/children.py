"""Start Python processes that run a module of `zoo` and import no Python files of the current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from zoo.errors import InputError


def python(module: str) -> list[str]:
    """The command that runs a module in a new process.

    `python -m` alone would put the current folder before all libraries: a user's random.py or logging.py would run.
    """
    return [sys.executable, *flags(), "-m", module]


def started_together() -> int:
    """The number of processes that train together: WORLD_SIZE, or 1 if it or RANK is not set.

    Raises:
        InputError: the values contradict each other, or the address of the other processes is missing.
    """
    size, rank = os.environ.get("WORLD_SIZE", ""), os.environ.get("RANK", "")
    if not size or not rank:
        return 1
    if not (size.isdecimal() and rank.isdecimal() and int(rank) < int(size)):
        raise InputError(
            f"RANK={rank} and WORLD_SIZE={size}: RANK must be a number from 0 to WORLD_SIZE - 1; unset both, or start "
            "several processes with --gpus or torchrun, which set them"
        )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if int(size) > 1 and missing:
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(
            f"WORLD_SIZE={size} asks for several processes, but {' and '.join(missing)} {verb} not set; unset "
            "WORLD_SIZE, or start the processes with --gpus or torchrun, which set all of these"
        )
    return int(size)


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
