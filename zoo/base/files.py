"""Files that are whole or not there: temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import ZooError

TEMPORARY = ".zoo-tmp-"

NO_FOLDER_SYNC = frozenset(
    (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)
)
"""What systems answer that cannot make a folder's entries durable; a broken or full disk answers something else."""


class WriteError(ZooError):
    """A file could not be written; what was there before is still there."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; when the block ends well, it takes the place of `path`.

    Raises:
        WriteError: the disk is full, the folder read-only or gone; names path and reason. The
            temporary file is removed, and `path` is as it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = f"{_sizes(temporary)}; free some, then go on" if full else ""
        raise WriteError(f"{path}: cannot be written: {reason}{advice}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sizes(temporary: Path) -> str:
    """How many bytes were asked for, as far as the disk took them, and how many are free."""
    try:
        free = shutil.disk_usage(temporary.parent).free
        written = temporary.stat().st_size if temporary.exists() else 0
    except OSError:
        return ""
    return f" ({written:,} bytes of it written, {free:,} bytes free)"


def make_folder(path: Path) -> None:
    """Make a folder, with those that it lies in, unless it is there.

    Raises:
        WriteError: it cannot be made, or a file is there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror or error}") from error


def bytes_of_file(path: str | Path) -> bytes | None:
    """What a file holds; None where there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, atomically and durably (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, atomically and durably (see `replacing`)."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        name = error.object[max(0, error.start - 20) : error.end + 20]
        raise WriteError(f"{path}: cannot contain a name that is not UTF-8: {name!r}; rename it") from None
    write_bytes(path, data)


def clear_temporaries(folder: Path) -> None:
    """Remove what an interrupted write left behind."""
    for stale in folder.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            stale.unlink()


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where its file system can (CIFS and some of FUSE cannot).

    Raises:
        OSError: the disk is broken or full.
    """
    if os.name == "nt":
        return  # folders cannot be opened there
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:  # else the file itself is written and has its name
            raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
