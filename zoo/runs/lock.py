"""One run folder has one trainer: a lock that names process and host.

The operating system holds the lock and drops it with the process, so a dead owner's is taken over
without guessing; the file's text only tells others who holds it. On a file system without locks, `ZOO_LOCKS=files`
lets a second file stand for the lock: only one process can create it, and whether its owner still lives can be seen
on the same host only.

The library filelock does not fit: many of the versions that torch and the Hub client allow (3.10 to 3.20 at
least) empty the file at every attempt, held or not, so that nobody knows any more who holds it, and on Windows
they delete it. It has no look that does not take the lock either; only `_take` would be saved.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from zoo.base.files import TEMPORARY, WriteError
from zoo.errors import BusyError

NAME = "lock"
HELD = "lock.held"
"""The file that stands for the lock where the file system has none."""

VARIABLE = "ZOO_LOCKS"
WAIT_SECONDS = 60.0


class RunLock:
    """Holds a run folder while it is entered.

    Args:
        named: whether the lock's file says who holds it, which needs a place on the disk; not where the folder is only
            removed, as a full disk is what makes people remove runs.
    Raises:
        BusyError: another living process holds it; names the process and its host.
    """

    def __init__(self, folder: Path, *, named: bool = True) -> None:
        self.path, self.named = folder / NAME, named
        self.handle = -1
        self.held: Path | None = None  # the file that stands for the lock

    def __enter__(self) -> RunLock:
        """Take the lock."""
        try:
            self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written: {error.strerror}") from error
        try:
            self._lock()
        except BaseException:
            os.close(self.handle)
            raise
        try:
            if self.named:
                os.ftruncate(self.handle, 0)
                os.write(self.handle, _signature())
        except OSError as error:
            self.__exit__()
            raise WriteError(f"{self.path}: cannot be written: {error.strerror}") from error
        return self

    def _lock(self) -> None:
        folder, held = self.path.parent, self.path.with_name(HELD)
        try:
            taken = _take(self.handle)
        except OSError as error:
            if os.environ.get(VARIABLE) != "files":
                raise WriteError(
                    f"{self.path}: cannot be locked: {error.strerror}; use a folder on a file system that has "
                    f"locks, or set {VARIABLE}=files: a file then stands for the lock"
                ) from error
            taken = _create(held)
            self.held = held if taken else None
        else:
            if taken and _is_alive(held):
                taken = False  # a process that cannot lock here, on another host perhaps, holds it by its file
        if not taken:
            by_file = f"; if that process no longer runs, delete {held}" if held.exists() else ""
            owner = _named(_read(held) or _owner(self.handle))
            raise BusyError(f"{folder}: is being trained by {owner}; wait for it, or stop it{by_file}")

    def __exit__(self, *error: Any) -> None:
        """Let go; the file stays empty, so that nobody locks a file that is already unlinked."""
        os.ftruncate(self.handle, 0)
        os.close(self.handle)
        if self.held is not None:
            with contextlib.suppress(OSError):
                self.held.unlink()


class WaitingLock(RunLock):
    """Holds a folder that others hold for moments, such as a table's or a sweep's: waits a minute for them."""

    def __enter__(self) -> RunLock:
        """Take the lock, once it is free."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                return super().__enter__()
            except BusyError:
                time.sleep(0.02)
        return super().__enter__()


def is_held(folder: Path) -> bool:
    """Whether a living process trains in this run folder; looks without waiting and changes nothing."""
    held = f"{folder}/{HELD}"
    if os.path.exists(held) and _is_alive(Path(held)):
        return True
    try:
        handle = os.open(f"{folder}/{NAME}", os.O_RDWR)
    except OSError:
        return False
    try:
        # Who lets go empties the file, so that only a killed owner's lock is tried, for a moment.
        return os.fstat(handle).st_size > 0 and not _take(handle)
    except OSError:
        return not _is_dead(_owner(handle))  # it cannot be tried, and its owner is named in it
    finally:
        os.close(handle)


def check_locks(folder: Path) -> None:
    """Lock a file of this folder for a moment, as a training does; nothing is left behind.

    Raises:
        OSError: its file system has no locks, or the folder cannot be written.
    """
    path = folder / f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{NAME}"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _take(handle)
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)


# ---- who holds it -----------------------------------------------------------------------------------


def _signature() -> bytes:
    text = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
    return json.dumps(text).encode()


def _owner(handle: int) -> dict[str, Any]:
    """What the owner wrote into an open file, from whose beginning nothing was read yet; {} if nothing legible."""
    try:
        owner = json.loads(os.read(handle, 4096))
        return {"pid": int(owner["pid"]), "host": str(owner["host"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return {}
    try:
        return _owner(handle)
    finally:
        os.close(handle)


def _named(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}" if owner else "another process"


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether it is certain that the owner no longer runs: only of processes on this host, and not on Windows."""
    if not owner or owner["host"] != socket.gethostname() or os.name == "nt":
        return False
    try:
        os.kill(owner["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False  # somebody else's process
    return False


def _is_alive(held: Path) -> bool:
    """Whether the file that stands for the lock exists, and its owner may still run."""
    return held.exists() and not _is_dead(_read(held))


def _create(held: Path) -> bool:
    """Create the file that stands for the lock, in place of a dead owner's if need be; whether that worked."""
    for _ in range(2):
        with contextlib.suppress(FileExistsError):
            handle = os.open(held, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(handle, _signature())
            os.close(handle)
            return True
        if _is_alive(held):
            return False
        _set_aside(held)
    return False


def _set_aside(held: Path) -> None:
    """Remove a dead owner's file, unless somebody put a new one in its place in the meantime."""
    aside = held.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{HELD}")
    with contextlib.suppress(OSError):  # another process was faster
        os.rename(held, aside)
        if _is_dead(_read(aside)):
            aside.unlink()
        else:
            os.rename(aside, held)


def _take(handle: int) -> bool:
    """Lock an open file, from whose beginning nothing was read yet, without waiting; whether that worked.

    Raises:
        OSError: its file system has no locks.
    """
    try:
        try:
            import fcntl
        except ImportError:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # EACCES: on Windows, and on some network file systems
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
