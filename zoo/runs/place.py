"""Whether the run folder that a training writes into is still its own: a path may come to mean another one, or none."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.base.files import WriteError, bytes_of_file
from zoo.runs.lock import NAME
from zoo.runs.record import RECORD


class Place:
    """A run folder, by its record and by the lock that the training holds in it.

    Not by the number that the system gives the folder: some network file systems give it another one from time to time.
    """

    def __init__(self, folder: Path) -> None:
        """Remember what is in it."""
        self.folder = folder
        self.recorded, self.owner = self._look()

    def check(self) -> None:
        """Refuse to write if the folder was moved or removed, or another process trains where it was.

        Raises:
            WriteError: says which.
        """
        recorded, owner = self._look()
        if self.recorded and not recorded:
            raise WriteError(
                f"{self.folder}: was moved or removed while it was trained, so that nothing more is written; what was "
                "saved is where the folder is now: zoo train --resume FOLDER goes on with it"
            )
        if self.owner and owner not in (None, self.owner):
            raise WriteError(
                f"{self.folder}: is another run's folder now, so that nothing more is written; if it was moved, "
                "zoo train --resume FOLDER goes on with it where it is"
            )

    def _look(self) -> tuple[bool, bytes | None]:
        """Whether the record is there, and what the lock says, None where there is none; a broken disk says nothing."""
        recorded, owner = True, None
        try:
            os.stat(self.folder / RECORD)
            owner = bytes_of_file(f"{self.folder}/{NAME}")
        except (FileNotFoundError, NotADirectoryError):
            recorded = False
        except OSError:
            pass  # the next write says what is wrong
        return recorded, owner
