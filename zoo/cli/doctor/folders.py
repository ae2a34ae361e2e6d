"""Checks of caches and disks: place, size, write access, free space."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zoo.base.files import TEMPORARY, WriteError, replacing, write_bytes
from zoo.base.paths import cache_dir, config_dir, data_dir
from zoo.cli.doctor.finding import Finding, Level, size

SCARCE, LITTLE = 500e6, 5e9
"""Free bytes: below the first, work stops soon; below the second, a large dataset does not fit."""

SECONDS: Final = 2.0
"""Time limit for measuring the size of one folder."""


class Place(NamedTuple):
    """A folder in which files are kept; the environment variable `variable` moves it."""

    what: str
    path: Path
    variable: str
    purpose: str


def places() -> list[Place]:
    """The folders in which files are kept."""
    return [
        Place("cache", cache_dir(), "ZOO_CACHE_DIR", "decoded images and the plugin index"),
        Place("data", data_dir(), "ZOO_DATA_DIR", "downloaded datasets"),
        Place("hub cache", hub_cache(), "HF_HUB_CACHE", "packages and datasets of the Hub"),
    ]


def hub_cache() -> Path:
    """The folder in which huggingface_hub keeps downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def look() -> Iterator[Finding]:
    """Check each folder, then each disk once."""
    for place in places():
        yield _place(place)
    config = config_dir() / "registry.toml"
    if config.is_file():
        yield Finding("folders", "own catalogue", "ok", f"your own catalogue: {config}")
    yield from _disks()


def _place(place: Place) -> Finding:
    problem = unwritable(place.path) or (unmappable(place.path) if place.what == "cache" else "")
    fix = f"make it a writable folder, or set {place.variable} to one"
    if problem:
        text = f"{place.what} {place.path}: {problem}; {place.purpose} cannot be stored"
        return Finding("folders", place.what, "error", text, fix, {"path": str(place.path)})
    bytes_, whole = measure(place.path)
    shown = size(bytes_) if whole else f"more than {size(bytes_)}"
    if not place.path.exists():
        shown = "does not exist yet"
    data = {"path": str(place.path), "bytes": bytes_, "whole": whole}
    return Finding("folders", place.what, "ok", f"{place.what} {place.path}: {shown} ({place.purpose})", data=data)


def unwritable(path: Path) -> str:
    """Why nothing can be written below a folder, as runs and caches are; "" where it can. Nothing is left behind."""
    parent = path
    while not parent.exists():
        if parent.parent == parent:
            return "its disk does not exist"
        try:
            parent.lstat()
            return f"{parent} is a broken link"
        except NotADirectoryError:
            pass
        except FileNotFoundError:
            pass
        except OSError as error:
            return error.strerror or str(error)
        parent = parent.parent
    if not parent.is_dir():
        return f"{parent} is a file"
    path = _trial(parent)
    try:
        write_bytes(path, b"zoo doctor")
        path.unlink()
    except WriteError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        return f"{parent} is not writable ({reason})"
    except OSError as error:
        return f"{path} cannot be removed ({error.strerror})"
    return ""


def unmappable(path: Path) -> str:
    """Why no file of a folder that can be written can be mapped into memory, as decoded images are; "" where it can."""
    there = existing(path)
    try:
        with replacing(_trial(there)) as temporary:
            temporary.write_bytes(bytes(mmap.PAGESIZE))
            with temporary.open("rb+") as file, mmap.mmap(file.fileno(), 0) as memory:
                memory[0] = 1
            raise _Tried
    except _Tried:
        return ""
    except WriteError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        return f"files of {there} cannot be mapped into memory ({reason})"


class _Tried(Exception):
    """Ends a trial before its file gets its name."""


def _trial(folder: Path) -> Path:
    return folder / f"{TEMPORARY}doctor-{uuid.uuid4().hex[:8]}"


def existing(path: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((p for p in (path, *path.absolute().parents) if p.exists()), path)


def measure(path: Path) -> tuple[int, bool]:
    """Bytes of all files below a folder, without following links, and whether time sufficed for all."""
    total, until = 0, time.monotonic() + SECONDS
    for folder, _, names in os.walk(path):
        if time.monotonic() > until:
            return total, False
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total, True


def _disks() -> Iterator[Finding]:
    seen: dict[int, list[str]] = {}
    roots: dict[int, Path] = {}
    for what, path in [*((p.what, p.path) for p in places()), ("this folder", Path.cwd())]:
        root = existing(path)
        if root.exists():
            device = root.stat().st_dev
            seen.setdefault(device, []).append(what)
            roots[device] = root
    for device, whats in seen.items():
        yield disk(", ".join(whats), shutil.disk_usage(roots[device]).free)


def disk(whats: str, free: int) -> Finding:
    """The finding for a disk with `free` bytes of free space."""
    level: Level = "error" if free < SCARCE else "warning" if free < LITTLE else "ok"
    fix = (
        ""
        if level == "ok"
        else "free some space: zoo runs --remove, or empty a cache above (it is filled again when needed)"
    )
    return Finding("folders", "disk", level, f"{size(free)} free for {whats}", fix, {"free_bytes": free})
