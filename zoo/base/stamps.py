"""Stamps of files and of what is installed, and small files that are good only while those stay as they are.

What lies on the way to `zoo list` keeps to the standard library's lightest modules: importing
pathlib and msgspec alone would cost a fifth of the command.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zlib


def stamp(path: str) -> int:
    """A number that changes with the file's time, size or identity; -1 where there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return -1
    return zlib.crc32(repr((status.st_mtime_ns, status.st_size, status.st_ino)).encode())


def installed() -> dict[str, int]:
    """Each entry of `sys.path` that holds distributions, with a stamp of their metadata folders."""
    found = {}
    for path in sys.path:
        try:
            with os.scandir(path or ".") as entries:
                metadata = sorted(
                    (e.name, e.stat().st_mtime_ns, stamp(f"{e.path}/entry_points.txt"))
                    for e in entries
                    if e.name.endswith((".dist-info", ".egg-info"))
                )
        except OSError:
            continue
        if metadata:
            found[os.path.abspath(path)] = zlib.crc32(repr(metadata).encode())
    return found | {path: stamp(path) for path in sys.path if path.endswith((".zip", ".whl", ".egg"))}


def unchanged(stamps: dict[str, int], present: dict[str, int]) -> bool:
    """Whether stamps taken earlier hold now; `present` is `installed()`."""
    files = (path for path in stamps if path not in present)
    return stamps == present | {path: stamp(path) for path in files}


def read_checked(path: str) -> bytes | None:
    """What `write_checked` wrote; None where there is nothing, or it is damaged."""
    try:
        with open(path, "rb") as file:
            stored = file.read()
    except OSError:
        return None
    return stored[4:] if zlib.crc32(stored[4:]).to_bytes(4, "big") == stored[:4] else None


def write_checked(path: str, content: bytes) -> None:
    """Write a file whole, with a checksum; silently does nothing where its folder cannot be written."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            file.write(zlib.crc32(content).to_bytes(4, "big") + content)
        os.replace(temporary, path)
