"""The tutorial's commands, run literally and in order in a fresh folder, do what the page shows."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from hub_server import HubServer
from page_commands import differences, environment, run, steps

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tutorial.md"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_newcomer_gets_from_install_to_a_verified_model_as_the_tutorial_says(tmp_path: Path) -> None:
    folder, token = tmp_path / "first-steps", f"hf_{secrets.token_hex(17)}"
    folder.mkdir()
    wrong = []
    with HubServer(xet=True) as hub:
        hub.store.users[token] = ("me", "write")
        env = environment(tmp_path) | hub.env(tmp_path / "hf", token)
        for step in steps(PAGE.read_text("utf-8")):
            if step.path:
                (folder / step.path).write_text(step.text, "utf-8")
                continue
            printed = run(step.command, folder, env)
            print(f"$ {step.command}", *printed, sep="\n")
            wrong += [f"$ {step.command}\n{line}" for line in differences(step.shown, printed)]
        assert list(hub.store.repos) == ["me/hybrid-digits"]
    assert wrong == []


def test_the_tutorial_takes_every_step_from_training_to_verifying() -> None:
    commands = [step.command for step in steps(PAGE.read_text("utf-8")) if step.command]
    verbs = [word for c in commands for word in c.split("zoo ")[1:2] for word in word.split()[:1]]
    assert verbs == [*("list", "info", "train", "eval", "predict", "train", "runs"),
                     *("package", "publish", "pull", "predict", "verify")]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("test top-1 75.00% (270 of 360) after 5.9 s", "test top-1 8.61% (31 of 360) after 12.0 s"),
        ("cpu bf16 channels-last", "cpu fp32 contiguous"),
        ("epoch 1/2  loss 1.9", "epoch 1/2  loss 0.3  *"),
        ("a    5.9 s  clean", "a  1:01 min  clean"),
        ("hf://me/x@digits-97.22-s0-1a2b3c4d", "hf://me/x@digits-8.1-s0-ffffffff"),
    ],
)
def test_numbers_and_the_hardwares_choice_may_differ(shown: str, printed: str) -> None:
    assert differences([shown], [printed]) == []


@pytest.mark.parametrize("printed", [["the same as before"], [], ["the same as recorded", "warning: more"]])
def test_other_words_and_missing_or_further_lines_are_seen(printed: list[str]) -> None:
    assert differences(["the same as recorded"], printed) != []


def test_an_ellipsis_stands_for_any_lines() -> None:
    assert differences(["...", "b", "..."], ["a", "b"]) == []
    assert differences(["...", "b", "..."], ["a", "c"]) == ["- b"]
