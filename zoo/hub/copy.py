"""Copying a fetched package as plain files into a folder of the user."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from zoo.base.files import WriteError
from zoo.errors import InputError
from zoo.hub.download import Fetched
from zoo.hub.sums import check_sums


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
