"""The index of installed plugins and shipped registry files, kept in the cache folder.

It holds what discovery found, under a stamp of everything that discovery looked at: the metadata
folders of the installed distributions (an install, upgrade or removal changes them), the files of
the plugins and of the catalogue. A stamp that differs in anything makes it afresh; an index
that cannot be read or written costs time, never correctness.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from typing import Any

import msgspec

from zoo.base.paths import cache_path
from zoo.base.stamps import installed, read_checked, stamp, unchanged, write_checked
from zoo.base.structs import Struct
from zoo.base.version import __version__
from zoo.catalogue.plugins import PluginRecord, Selection

FORMAT = 3


class Index(Struct, frozen=True):
    """What was found (`plugins`, parsed registry `files`) and the stamps of what was looked at."""

    stamps: dict[str, int]
    plugins: tuple[PluginRecord, ...]
    files: list[dict[str, Any]]


def read(chosen: Selection) -> Index | None:
    """The index, or None where there is none, it is damaged, or anything changed since."""
    present = installed()
    content = read_checked(_path(chosen, present))
    if content is None:
        return None
    try:
        index = msgspec.msgpack.decode(content, type=Index)
    except msgspec.DecodeError:
        return None
    return index if unchanged(index.stamps, present) else None


def write(chosen: Selection, plugins: tuple[PluginRecord, ...], files: list[dict[str, Any]]) -> None:
    """Keep what discovery found; silently does nothing where the cache folder cannot be written."""
    present = installed()
    looked = [*(f["path"] for f in files), *(path for record in plugins for path in record.files)]
    if any(record.status == "failed" for record in plugins):
        looked += [f"{path}/." for path in present]  # what a broken one lacks may come to lie beside it
    index = Index(stamps=present | {path: stamp(path) for path in looked}, plugins=plugins, files=files)
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # a value that msgpack cannot hold
        write_checked(_path(chosen, present), msgspec.msgpack.encode(index))


def _path(chosen: Selection, present: dict[str, int]) -> str:
    """One file for each interpreter, set of installation folders, version of ours and selection."""
    only = None if chosen.only is None else sorted(chosen.only)
    identity = (FORMAT, __version__, sys.version, list(present), sorted(chosen.without), only)
    return f"{cache_path()}/index-{zlib.crc32(repr(identity).encode()):08x}.msgpack"
