"""The index of installed plugins and shipped registry files, kept in the cache folder.

It holds what discovery found, under a stamp of everything that discovery looked at: the metadata
folders of the installed distributions (an install, upgrade or removal changes them), the files of
the plugins and of the catalogue. A stamp that differs in anything makes it afresh; an index
that cannot be read or written costs time, never correctness.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec

from zoo.paths import cache_dir
from zoo.plugins import PluginRecord, Selection
from zoo.spec import Struct
from zoo.version import __version__

FORMAT = 2


class Index(Struct, frozen=True):
    """What was found (`plugins`, parsed registry `files`) and the stamps of what was looked at."""

    stamps: dict[str, int]
    plugins: tuple[PluginRecord, ...]
    files: list[dict[str, Any]]


def read(chosen: Selection) -> Index | None:
    """The index, or None where there is none, it is damaged, or anything changed since."""
    installed = _installed()
    try:
        stored = _path(chosen, installed).read_bytes()
        if zlib.crc32(stored[4:]).to_bytes(4, "big") != stored[:4]:
            return None
        kept = msgspec.msgpack.decode(stored[4:], type=Index)
    except (OSError, msgspec.DecodeError):
        return None
    files = (path for path in kept.stamps if path not in installed)
    now = installed | {path: _stamp(path) for path in files}
    return kept if kept.stamps == now else None


def write(chosen: Selection, plugins: tuple[PluginRecord, ...], files: list[dict[str, Any]]) -> None:
    """Keep what discovery found; silently does nothing where the cache folder cannot be written."""
    installed = _installed()
    looked = [*(f["path"] for f in files), *(path for record in plugins for path in record.files)]
    if any(record.status == "failed" for record in plugins):
        looked += [f"{path}/." for path in installed]  # what a broken one lacks may come to lie beside it
    kept = Index(stamps=installed | {path: _stamp(path) for path in looked}, plugins=plugins, files=files)
    path = _path(chosen, installed)
    with contextlib.suppress(
        OSError, TypeError, ValueError, OverflowError
    ):  # a value that msgpack cannot hold
        content = msgspec.msgpack.encode(kept)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(zlib.crc32(content).to_bytes(4, "big") + content)
        temporary.replace(path)


def _installed() -> dict[str, int]:
    """Each entry of `sys.path` that holds distributions, with a stamp of their metadata folders."""
    found = {}
    for path in sys.path:
        try:
            with os.scandir(path or ".") as entries:
                metadata = sorted(
                    (e.name, e.stat().st_mtime_ns, _stamp(f"{e.path}/entry_points.txt"))
                    for e in entries
                    if e.name.endswith((".dist-info", ".egg-info"))
                )
        except OSError:
            continue
        if metadata:
            found[os.path.abspath(path)] = zlib.crc32(repr(metadata).encode())
    return found | {path: _stamp(path) for path in sys.path if path.endswith((".zip", ".whl", ".egg"))}


def _stamp(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return -1
    return zlib.crc32(repr((status.st_mtime_ns, status.st_size, status.st_ino)).encode())


def _path(chosen: Selection, installed: dict[str, int]) -> Path:
    """One file for each interpreter, set of installation folders, version of ours and selection."""
    only = None if chosen.only is None else sorted(chosen.only)
    identity = (FORMAT, __version__, sys.version, list(installed), sorted(chosen.without), only)
    return cache_dir() / f"index-{zlib.crc32(repr(identity).encode()):08x}.msgpack"
