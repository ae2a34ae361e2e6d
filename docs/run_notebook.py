"""Run the notebooks of these pages in fresh folders and keep what they show: python docs/run_notebook.py [NAME...].

The outputs are stored with them, so that the pages need not run them; a test runs them, and holds their sizes.
What they publish goes to a Hub on this machine, which the tests have as well.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent / "notebooks"
NAMES = ("first-steps", "own-images")
LIMIT = 200_000
"""Bytes of a file, outputs included."""


def path_of(name: str) -> Path:
    """The file of a notebook."""
    return FOLDER / f"{name}.ipynb"


def executed(path: Path, folder: Path, seconds: int = 600) -> nbformat.NotebookNode:
    """The notebook with what its cells show; they run in `folder` by this Python.

    Raises:
        CellExecutionError: a cell failed.
    """
    sys.path.insert(0, str(FOLDER.parent.parent / "tests"))
    from hub_server import HubServer

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    token = f"hf_{secrets.token_hex(17)}"
    with HubServer(xet=True) as hub:
        hub.store.users[token] = ("me", "write")
        client.execute(env=os.environ | hub.env(folder / "hf", token))
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what depends on the machine it ran on."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    return notebook


def main(names: list[str]) -> None:
    """Run them with the programs of this Python first on the path, and write them back."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in names or NAMES:
        with tempfile.TemporaryDirectory(prefix="zoo-notebook-") as folder:
            notebook = tidy(executed(path_of(name), Path(folder)))
        text = nbformat.writes(notebook, indent=1) + "\n"
        if len(text.encode()) > LIMIT:
            sys.exit(f"error: {name}: {len(text.encode()):,} bytes with its outputs; keep it below {LIMIT:,}")
        path_of(name).write_text(text, "utf-8")
        print(path_of(name))


if __name__ == "__main__":
    main(sys.argv[1:])
