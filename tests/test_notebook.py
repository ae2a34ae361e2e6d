"""The notebooks of the documentation run from their first cell to their last, and stay small."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from page_commands import environment

ROOT = Path(__file__).resolve().parent.parent
nbformat = pytest.importorskip("nbformat", reason='needs nbclient: pip install -e ".[test]"')
SCRIPT = runpy.run_path(str(ROOT / "docs" / "run_notebook.py"))


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def texts(outputs: list[Any]) -> str:
    return "\n".join(str(o.get("data", {}).get("text/plain", "")) + str(o.get("text", "")) for o in outputs)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "results", "shown"),
    [
        ("first-steps", ["runs/first", "runs/mine"], ["the same as recorded", "McNemar", "hybrid-alt-1"]),
        ("own-images", ["runs/shapes"], ["no problems found", "hf://me/shapes: verified", "the same as recorded"]),
    ],
)
def test_a_notebook_runs_and_shows_its_results(
    name: str, results: list[str], shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.setenv("PATH", environment(tmp_path)["PATH"])
    outputs = outputs_of(SCRIPT["executed"](SCRIPT["path_of"](name), folder))
    text = texts(outputs)
    assert all((folder / run / "result.json").is_file() for run in results)
    assert [part for part in shown if part not in text] == []
    assert not any(output.get("name") in ("stderr", "stdout") for output in outputs), text
    displays = [o["data"]["text/html"] for o in outputs if o["output_type"] == "display_data"]
    assert sum("<img" in page for page in displays) == 1  # one output of a training that shows itself: no double lines
    said = ("decoding", "measuring mean and std", "validation images: ")
    assert [page for page in displays if not ("<img" in page or any(words in page for words in said))] == []


@pytest.mark.parametrize("name", SCRIPT["NAMES"])
def test_the_stored_notebook_is_small_whole_of_python_and_of_no_machine(name: str) -> None:
    path = SCRIPT["path_of"](name)
    text = path.read_text("utf-8")
    assert len(text.encode()) < SCRIPT["LIMIT"]
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    sources = [cell["source"] for cell in notebook.cells if cell["cell_type"] == "code"]
    assert not any(line.startswith(("!", "%")) for source in sources for line in source.splitlines())
    assert not any(o.get("name") == "stderr" for o in outputs_of(notebook))
    assert len([o for o in outputs_of(notebook) if "text/html" in o.get("data", {})]) >= 5
    assert str(Path.home()) not in text
    assert str(ROOT) not in text


def test_every_notebook_is_run() -> None:
    assert sorted(path.stem for path in SCRIPT["FOLDER"].glob("*.ipynb")) == sorted(SCRIPT["NAMES"])
