"""Copying a fetched package as plain files into a folder of the user."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from zoo.base.files import WriteError
from zoo.errors import InputError
from zoo.hub.download import Fetched
from zoo.hub.sums import check_sums


@dataclass(frozen=True)
class Pulled:
    """A package that was fetched and checked; it stands for its folder wherever a path is taken.

    Attributes:
        folder: where its files are: the copy, or the Hub's cache, in which nothing should be changed.
        reference: `hf://OWNER/NAME@COMMIT`, which always names exactly these files.
        edited: the card or pictures that were edited after the package was made; all else was checked.
    """

    folder: Path
    reference: str
    edited: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        """The folder, for `open`, `Path` and whatever takes a path."""
        return str(self.folder)

    def __str__(self) -> str:
        """The folder."""
        return str(self.folder)


def copy_out(fetched: Fetched, output: Path) -> Path:
    """Copy a package out of the cache; the folder is complete or does not exist.

    Raises:
        InputError: `output` already exists. WriteError: it cannot be written.
    """
    if output.exists():
        raise InputError(f"--output {output}: already exists; choose another folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".zoo-tmp-") as temporary:
            folder = Path(temporary) / "package"
            folder.mkdir()
            check_sums(fetched.folder, target=folder)
            os.replace(folder, output)
    except OSError as error:
        raise WriteError(f"{output}: cannot be written: {error.strerror or error}") from error
    return output
