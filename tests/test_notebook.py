"""The notebook of the documentation runs from its first cell to its last, and stays small."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from page_commands import environment

ROOT = Path(__file__).resolve().parent.parent
nbformat = pytest.importorskip("nbformat", reason='needs nbclient: pip install -e ".[test]"')


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_and_names_the_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "run_notebook.py"))
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.setenv("PATH", environment(tmp_path)["PATH"])
    notebook = script["executed"](script["NOTEBOOK"], folder)
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    printed = "".join(output.get("text", "") for output in shown)
    assert "test top-1" in printed
    assert [line.partition(":")[0] for line in printed.splitlines() if line.startswith("digit-")] == [
        f"digit-{i}.png" for i in range(6)
    ]
    assert not any(output.get("name") == "stderr" for output in shown), printed
    assert (folder / "runs" / "notebook" / "result.json").is_file()


def test_the_stored_notebook_is_small_whole_and_of_no_machine() -> None:
    path = ROOT / "docs" / "notebooks" / "first-steps.ipynb"
    text = path.read_text("utf-8")
    assert len(text.encode()) < 100_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", ())) == 2
    assert str(Path.home()) not in text
    assert str(ROOT) not in text
