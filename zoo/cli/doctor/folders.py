"""Caches and disks: where they are, how large, whether they can be written, how much is free."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zoo.base.files import TEMPORARY
from zoo.base.paths import cache_dir, config_dir, data_dir
from zoo.cli.doctor.finding import Finding, Level, size

SCARCE, LITTLE = 500e6, 5e9
"""Free bytes under which work stops soon, and under which a large dataset does not fit."""

SECONDS: Final = 2.0
"""How long one folder is counted."""


class Place(NamedTuple):
    """A folder that something is kept in; `variable` moves it."""

    what: str
    path: Path
    variable: str
    purpose: str


def places() -> list[Place]:
    """Where things are kept."""
    return [
        Place("cache", cache_dir(), "ZOO_CACHE_DIR", "decoded images and the plugin index"),
        Place("data", data_dir(), "ZOO_DATA_DIR", "downloaded datasets"),
        Place("hub cache", hub_cache(), "HF_HUB_CACHE", "packages and datasets of the Hub"),
    ]


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def look() -> Iterator[Finding]:
    """Each folder, then each disk once."""
    for place in places():
        yield _place(place)
    config = config_dir() / "registry.toml"
    if config.is_file():
        yield Finding("folders", "own catalogue", "ok", f"your own catalogue: {config}")
    yield from _disks()


def _place(place: Place) -> Finding:
    problem = unwritable(place.path)
    fix = f"make it a folder that you can write, or set {place.variable} to one"
    if problem:
        said = f"{place.what} {place.path}: {problem}; {place.purpose} cannot be kept"
        return Finding("folders", place.what, "error", said, fix, {"path": str(place.path)})
    bytes_, whole = measure(place.path)
    shown = size(bytes_) if whole else f"more than {size(bytes_)}"
    if not place.path.exists():
        shown = "not there yet"
    data = {"path": str(place.path), "bytes": bytes_, "whole": whole}
    return Finding(
        "folders", place.what, "ok", f"{place.what} {place.path}: {shown} ({place.purpose})", data=data
    )


def unwritable(path: Path) -> str:
    """Why nothing can be written below a folder; "" where it can. Nothing is left behind."""
    there = path
    while not there.exists():
        if there.parent == there:
            return "its disk is not there"
        try:
            there.lstat()
            return f"{there} is a link to nothing"
        except NotADirectoryError:
            pass
        except FileNotFoundError:
            pass
        except OSError as error:
            return error.strerror or str(error)
        there = there.parent
    if not there.is_dir():
        return f"{there} is a file"
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=TEMPORARY):
            return ""
    except OSError as error:
        return f"{there} cannot be written ({error.strerror})"


def measure(path: Path) -> tuple[int, bool]:
    """Bytes of all files below a folder, links not followed; False where there was no time for all."""
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
        there = next((p for p in (path, *path.parents) if p.exists()), None)
        if there is not None:
            device = there.stat().st_dev
            seen.setdefault(device, []).append(what)
            roots[device] = there
    for device, whats in seen.items():
        yield disk(", ".join(whats), shutil.disk_usage(roots[device]).free)


def disk(whats: str, free: int) -> Finding:
    """What a disk with so many free bytes means."""
    level: Level = "error" if free < SCARCE else "warning" if free < LITTLE else "ok"
    fix = "" if level == "ok" else "free some: zoo runs --remove, or empty a cache above (it is made again)"
    return Finding("folders", "disk", level, f"{size(free)} free for {whats}", fix, {"free_bytes": free})
