"""The rule that selects an epoch, in what people read; and runs that have no result yet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zoo.cli import cli
from zoo.hub.card import selection
from zoo.runs.find import read, row_of
from zoo.runs.folder import read_metrics
from zoo.runs.lock import RunLock


def typed(words: str) -> Result:
    return CliRunner().invoke(cli, words.split(), standalone_mode=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """A run of four epochs for each rule, without its result, and what was shown while it was trained."""
    runs = {}
    for rule in ("top1", "loss", "last"):
        folder = tmp_path_factory.mktemp(rule) / "run"
        sizes = "--epochs 4 --limit-train 60 --limit-test 30 --lr 0.02"
        done = typed(f"train cnn-baseline --dataset digits {sizes} --set recipe.select={rule} --output {folder}")
        assert done.exception is None
        (folder / "result.json").unlink()
        runs[rule] = folder, done.stderr
    return runs


def test_the_last_epoch_gets_no_star(trained: dict[str, tuple[Path, str]]) -> None:
    stars = {rule: [line for line in shown.splitlines() if line.endswith("*")] for rule, (_, shown) in trained.items()}
    assert stars["last"] == []
    assert stars["top1"]
    assert stars["loss"]


def test_an_unfinished_run_is_listed_with_the_epoch_that_its_rule_selects(trained: dict[str, tuple[Path, str]]) -> None:
    rows = {rule: read_metrics(folder) for rule, (folder, _) in trained.items()}
    listed = {rule: row_of(read(folder)) for rule, (folder, _) in trained.items()}
    assert listed["last"]["selected_epoch"] == 4
    assert listed["last"]["val_top1"] == rows["last"][-1]["val_top1"]
    assert listed["loss"]["val_loss"] == min(row["val_loss"] for row in rows["loss"])
    assert listed["top1"]["val_top1"] == max(row["val_top1"] for row in rows["top1"])


def test_a_card_does_not_call_the_last_epoch_the_best() -> None:
    assert selection({"selection": {"rule": "last", "split": "validation", "epoch": 20}}) == "last epoch, 20"
    assert selection({"selection": {"rule": "loss", "split": "test", "epoch": 3}}) == "best loss on test, epoch 3"


@pytest.mark.parametrize(("rule", "which"), [("top1", "the best so far"), ("last", "of the last epoch")])
def test_eval_of_a_run_without_a_result_says_which_weights_it_took(
    rule: str, which: str, trained: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(trained[rule][0], tmp_path / "run")
    said = f"its weights are {which} at its last checkpoint (4 epochs of 4); no result is recorded to compare with"
    with RunLock(folder):
        done = typed(f"eval {folder}")
    assert done.exception is None
    assert f"the run is being trained: {said}" in done.stderr
    assert f"the run was not finished: {said}" in typed(f"eval {folder}").stderr


def test_before_its_first_checkpoint_a_run_is_not_said_to_have_no_epoch(
    trained: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(trained["top1"][0], tmp_path / "run")
    (folder / "model.safetensors").unlink()
    with RunLock(folder):
        refused = typed(f"eval {folder}")
    assert "it is written with the next checkpoint" in str(refused.exception)
    assert "no epoch of this run was finished" in str(typed(f"eval {folder}").exception)
