"""A fetched package as plain files in a folder of the user's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from zoo.base.files import WriteError
from zoo.errors import InputError
from zoo.hub.fetch import Fetched
from zoo.hub.sums import check_sums


def copy_out(fetched: Fetched, output: Path) -> Path:
    """Copy a package out of the cache; the folder is whole or not there.

    Raises:
        InputError: `output` is there already. WriteError: it cannot be written.
    """
    if output.exists():
        raise InputError(f"--output {output}: is there already; choose another folder")
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
