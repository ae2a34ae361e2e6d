"""Many `run.toml`s, read fast: their tables are kept, and runs share most of their sections.

A table is known by a hash of its file's bytes: every file is opened whenever it is asked for, so that nothing is shown
that it no longer says. What was read is kept in the cache folder, a file for each folder of runs; one that is damaged,
cannot be read or cannot be written costs time, never correctness.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from zoo.base.paths import cache_path
from zoo.base.stamps import read_checked, write_checked
from zoo.base.structs import Struct
from zoo.errors import InputError

FORMAT = 1
LEAST_NEW = 50
"""Files that were not known: reading fewer again takes less time than keeping them."""

HEADER = re.compile(rb"^\[\[?([A-Za-z0-9_-]+)[.\]]", re.MULTILINE)
"""The first line of a table, with the first word of its name."""


class Kept(Struct, frozen=True):
    """What is in the file.

    Attributes:
        files: the hash of a whole file to those of its sections. sections: the hash of a section to its table, as
            MessagePack.
    """

    files: dict[bytes, tuple[bytes, ...]] = {}
    sections: dict[bytes, bytes] = {}


class RecordTables:
    """The tables of many TOML files, each different section read once.

    Attributes:
        files, sections: as in `Kept`. used: the hashes of the files that were asked for. new: how many of them were
            not known.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self.files, self.sections = (kept.files, kept.sections) if kept else ({}, {})
        self.used, self.new = set[bytes](), 0
        self._checked = set[str]()

    def parse(self, data: bytes) -> dict[str, Any]:
        """The table of a file, exactly as tomllib reads it.

        Raises:
            ValueError: it is no TOML, or no UTF-8.
        """
        digest = _hash(data)
        if (parts := self.files.get(digest)) is None:
            self.new += 1
            if not (parts := self._divided(data) or self._read([data])):
                return _whole(data)
            self.files[digest] = parts
        self.used.add(digest)
        table: dict[str, Any] = {}
        for part in parts:
            table |= msgspec.msgpack.decode(self.sections[part])
        return table

    def check(self, part: Any, check: Callable[[], object]) -> None:
        """Call what checks a part of a table, unless it found no fault in an equal one before."""
        if (text := repr(part)) not in self._checked:
            check()
            self._checked.add(text)

    def _divided(self, data: bytes) -> tuple[bytes, ...]:
        """The hashes of a file's sections; none where it has to be read as a whole.

        A section is a part of the file that begins with a header, or the part before the first. Where each is valid by
        itself, no header stood inside a string or an array; where no two say the same first word, none depends on
        another.
        """
        try:
            parts = self._read(_sections(data))
        except ValueError:
            return ()
        names = [name for part in parts for name in msgspec.msgpack.decode(self.sections[part])]
        return parts if len(names) == len(set(names)) else ()

    def _read(self, sections: Iterable[bytes]) -> tuple[bytes, ...]:
        """The hashes of sections, whose tables are then known; none where one cannot be kept."""
        parts = []
        for section in sections:
            digest = _hash(section)
            if digest not in self.sections:
                if not (packed := _packed(_whole(section))):
                    return ()
                self.sections[digest] = packed
            parts.append(digest)
        return tuple(parts)


def kept_tables(root: Path) -> RecordTables:
    """What the last listings of a folder of runs have kept; nothing at the first."""
    content = read_checked(place) if (place := _place(root)) else None
    try:
        return RecordTables(msgspec.msgpack.decode(content, type=Kept) if content else None)
    except msgspec.MsgspecError:
        return RecordTables()


def keep_tables(tables: RecordTables, root: Path, *, everything: bool) -> None:
    """Keep what was read, unless it is little; silently does nothing where the cache folder cannot be written.

    Args:
        everything: all runs were read: what none of them says any more is forgotten.
    """
    if tables.new < LEAST_NEW or not (place := _place(root)):
        return
    files = {digest: tables.files[digest] for digest in tables.used} if everything else tables.files
    sections = {part: tables.sections[part] for parts in files.values() for part in parts}
    write_checked(place, msgspec.msgpack.encode(Kept(files=files, sections=sections)))


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _packed(table: dict[str, Any]) -> bytes:
    """A table as MessagePack; nothing where that is not the same table, as of a date without a zone."""
    try:
        packed = msgspec.msgpack.encode(table)
    except (TypeError, ValueError, OverflowError):
        return b""
    return packed if repr(msgspec.msgpack.decode(packed)) == repr(table) else b""  # equal dates may differ in zone


def _sections(data: bytes) -> Iterator[bytes]:
    start, name = 0, b""
    for header in HEADER.finditer(data):
        if header[1] != name:
            yield data[start : header.start()]
            start, name = header.start(), header[1]
    yield data[start:]


def _whole(data: bytes) -> dict[str, Any]:
    return tomllib.loads(data.decode("utf-8"))


def _place(root: Path) -> str:
    """The file for a folder of runs; "" where there is no cache folder."""
    name = hashlib.blake2b(os.fsencode(os.path.abspath(root)), digest_size=12).hexdigest()
    try:
        return os.path.join(cache_path(), "runs", f"records-{FORMAT}-{name}")
    except InputError:
        return ""
