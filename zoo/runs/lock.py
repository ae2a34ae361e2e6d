"""One run folder has one trainer: a lock that names process and host.

The operating system holds the lock and drops it with the process, so a dead owner's is taken over
without guessing; the file's text only tells others who holds it.
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
        if not _take(self.handle):
            owner = self._owner()
            os.close(self.handle)
            raise BusyError(f"{self.path.parent}: is being trained by {owner}; wait for it, or stop it")
        os.ftruncate(self.handle, 0)
        text = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        os.pwrite(self.handle, json.dumps(text).encode(), 0)
        return self

    def __exit__(self, *error: Any) -> None:
        """Let go; the file stays empty, so that nobody locks a file that is already unlinked."""
        os.ftruncate(self.handle, 0)
        os.close(self.handle)

    def _owner(self) -> str:
        try:
            text = json.loads(os.pread(self.handle, 4096, 0))
            return f"process {text['pid']} on {text['host']}"
        except (OSError, ValueError, KeyError):
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
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Lock an open file without waiting; whether that worked."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
