"""The records in `results/`: whoever reads a number can know which code measured it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo.studies.reproduce.recorded import unclean

RESULTS = Path(__file__).parent.parent / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_no_result_of_ours_is_of_a_commit_with_changes_unless_it_says_which(path: Path) -> None:
    document = json.loads(path.read_text())
    if isinstance(document, dict) and "table" in document:
        assert unclean(document["rows"]) == []
    else:
        assert "-dirty" not in path.read_text() or document["note"]
