"""One run folder has one trainer: a lock that names process and host.

The operating system holds the lock and drops it with the process, so a dead owner's is taken over
without guessing; the file's text only tells others who holds it.

The library filelock does not fit: many of the versions that torch and the Hub client allow (3.10 to 3.20 at
least) empty the file at every attempt, held or not, so that nobody knows any more who holds it, and on Windows
they delete it. It has no look that does not take the lock either; only `_take` would be saved.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from zoo.base.files import WriteError
from zoo.errors import BusyError

NAME = "lock"
WAIT_SECONDS = 60.0


class RunLock:
    """Holds a run folder while it is entered.

    Raises:
        BusyError: another living process holds it; names the process and its host.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.handle = -1

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
        text = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        os.ftruncate(self.handle, 0)
        os.write(self.handle, json.dumps(text).encode())
        return self

    def _lock(self) -> None:
        try:
            taken = _take(self.handle)
        except OSError as error:
            raise WriteError(
                f"{self.path}: cannot be locked: {error.strerror}; use a folder on a file system that has locks"
            ) from error
        if not taken:
            raise BusyError(
                f"{self.path.parent}: is being trained by {self._owner()}; wait for it, or stop it"
            )

    def __exit__(self, *error: Any) -> None:
        """Let go; the file stays empty, so that nobody locks a file that is already unlinked."""
        os.ftruncate(self.handle, 0)
        os.close(self.handle)

    def _owner(self) -> str:
        try:
            owner = json.loads(os.read(self.handle, 4096))
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


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
    try:
        handle = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        # Who lets go empties the file, so that only a killed owner's lock is tried, for a moment.
        return os.fstat(handle).st_size > 0 and not _take(handle)
    except OSError:
        return True  # it cannot be tried, and its owner is named in it
    finally:
        os.close(handle)


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
    except (BlockingIOError, PermissionError):  # on Windows and on some network file systems the latter
        return False
    return True
