"""The hashes that the Hub keeps of files, compared with files here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from zoo.base.structs import Struct


class Digest(Struct, frozen=True, kw_only=True):
    """What the Hub states about one file: its size, and its sha256 (large files) or git's sha1 of the blob."""

    size: int
    sha256: str | None = None
    git: str | None = None


def matches(path: Path, digest: Digest) -> bool:
    """Whether a file is there and is the one that the Hub states."""
    try:
        if path.stat().st_size != digest.size:
            return False
        hasher = hashlib.sha256() if digest.sha256 else hashlib.sha1(b"blob %d\0" % digest.size)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    except OSError:
        return False
    return hasher.hexdigest() == (digest.sha256 or digest.git)


def git_name(path: Path) -> str:
    """The sha1 by which git, and so the Hub, knows a small file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
