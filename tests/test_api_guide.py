"""The guide to the Python calls: its code, run from the first line to the last in one process, does what it says."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from page_commands import environment

import zoo
from zoo.cli import COMMANDS

DOCS = Path(__file__).resolve().parent.parent / "docs"
GUIDE = DOCS / "api.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
WITHOUT_A_CALL = {"doctor", "help", "completion"}

CHECKS = """
assert (run.state, len(run.rows)) == ("finished", 3)
assert evaluation.same_as_recorded
assert predictions[0].top1 == "7"
assert zoo.load("me/hybrid-digits").predict(digit, top=1)[0][0].name == "7"
assert mine.record.build["body"] == tree.to_table()
assert own.result["test"]["count"] > 100
import sys
assert not [name for name in sys.modules if name.startswith("zoo.cli")], "the library needs the command line"
"""


def test_every_command_has_a_call_that_the_guide_names() -> None:
    text = GUIDE.read_text("utf-8")
    for command in set(COMMANDS) - WITHOUT_A_CALL:
        assert f"`zoo {command}" in text, command
    assert "new plugin" in text
    called = set(re.findall(r"zoo\.([a-z_]+)\(", text))
    assert called <= set(zoo.__all__)
    calls = {name for name in zoo.__all__ if name.islower() and not name.startswith("__")}
    assert calls - called == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_guides_code_goes_from_training_to_a_verified_model_in_one_process(tmp_path: Path) -> None:
    folder, token = tmp_path / "first-steps", f"hf_{secrets.token_hex(17)}"
    folder.mkdir()
    blocks = BLOCK.findall(GUIDE.read_text("utf-8").partition("(reference)=")[0])
    assert len(blocks) > 12
    (folder / "guide.py").write_text("\n".join([*blocks, CHECKS]), "utf-8")
    with HubServer(xet=True) as hub:
        hub.store.users[token] = ("me", "write")
        env = environment(tmp_path) | hub.env(tmp_path / "hf", token)
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "guide.py"],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert list(hub.store.repos) == ["me/hybrid-digits"]
    assert done.stdout.count("did you mean") == 1
    assert "build = " in done.stdout


@pytest.mark.slow
def test_the_code_of_ones_own_is_trained_as_its_page_says(tmp_path: Path) -> None:
    blocks = BLOCK.findall((DOCS / "your-code.md").read_text("utf-8"))
    assert len(blocks) == 4
    (tmp_path / "page.py").write_text("\n".join(blocks), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "page.py"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "2"]  # the listener's
    runs = sorted(path.parent.name for path in tmp_path.glob("runs/*/result.json"))
    assert runs == ["all", "arrays", "mine", "ready", "two"]
