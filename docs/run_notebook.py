"""Run a notebook of these pages in a fresh folder and keep what it shows: python docs/run_notebook.py.

The outputs are stored with it, so that the pages need not run it; a test runs it, and holds how large it may be.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent / "notebooks" / "first-steps.ipynb"
LIMIT = 100_000
"""Bytes of the file, outputs included."""


def executed(path: Path, folder: Path, seconds: int = 600) -> nbformat.NotebookNode:
    """The notebook with what its cells show; they run in `folder` by this Python.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what depends on the machine it ran on."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    return notebook


def main() -> None:
    """Run it with the programs of this Python first on the path, and write it back."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="zoo-notebook-") as folder:
        notebook = tidy(executed(NOTEBOOK, Path(folder)))
    text = nbformat.writes(notebook, indent=1) + "\n"
    if len(text.encode()) > LIMIT:
        sys.exit(f"error: {len(text.encode()):,} bytes with its outputs; keep it below {LIMIT:,}")
    NOTEBOOK.write_text(text, "utf-8")
    print(NOTEBOOK)


if __name__ == "__main__":
    main()
