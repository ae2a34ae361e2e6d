"""The commit that a run records, and whether the code had changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from zoo.train.environment import commit_of


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a file of code and a table of results."""
    (tmp_path / "zoo").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "zoo" / "a.py").write_text("a = 1\n")
    (tmp_path / "results" / "table.json").write_text("{}\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_a_commit_is_named_by_twelve_digits(checkout: Path) -> None:
    full = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert commit_of(checkout) == full.stdout[:12]
    assert commit_of(checkout / "zoo") == ""


def test_changed_code_is_marked(checkout: Path) -> None:
    (checkout / "zoo" / "a.py").write_text("a = 2\n")
    assert commit_of(checkout).endswith("-dirty")


def test_a_table_of_results_that_was_just_written_is_no_change_of_the_code(checkout: Path) -> None:
    (checkout / "results" / "table.json").write_text('{"rows": []}\n')
    (checkout / "results" / "new.json").write_text("{}\n")
    assert not commit_of(checkout).endswith("-dirty")
