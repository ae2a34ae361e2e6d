"""`zoo verify` over a folder: what is not true is found, although every hash fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server.runs import made_package
from safetensors.torch import load_file

from zoo.catalogue.picture import draw_tree
from zoo.catalogue.registry import load_registry
from zoo.cli import main
from zoo.errors import PackageError, RunError
from zoo.hub.sums import CARD, COMPOSITION, write_sums
from zoo.hub.verify import verify
from zoo.models.tensors import to_bytes
from zoo.runs.folder import read_result, write_result
from zoo.runs.record import WEIGHTS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_package(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def lie(folder: Path, change: Callable[[dict[str, float]], None]) -> None:
    result = read_result(folder)
    change(result["test"])
    write_result(folder, result)
    write_sums(folder)


def one_better(test: dict[str, float]) -> None:
    test["correct"] += 1
    test["top1"] = test["correct"] / test["count"]


def test_an_honest_package_is_verified(made: Path) -> None:
    checks = verify(str(made))
    assert [c.name for c in checks] == ["sha256", "model", "card", "picture", "top-1", "loss"]
    assert all(c.holds for c in checks)


def test_a_better_number_than_the_weights_give_is_found(copy: Path) -> None:
    lie(copy, one_better)
    checks = {c.name: c.holds for c in verify(str(copy))}
    assert [name for name, holds in checks.items() if not holds] == ["card", "top-1"]


def test_another_number_on_the_card_is_found(copy: Path) -> None:
    text = (copy / CARD).read_text()
    value = f"value: {read_result(copy)['test']['top1']}"
    assert value in text
    (copy / CARD).write_text(text.replace(value, "value: 0.999"))
    write_sums(copy)
    assert {c.name for c in verify(str(copy)) if not c.holds} == {"card"}


def test_a_picture_of_another_tree_is_found(copy: Path) -> None:
    registry = load_registry()
    draw_tree(copy / COMPOSITION, registry.model("resnet9").build, registry.components)
    write_sums(copy)
    assert {c.name for c in verify(str(copy)) if not c.holds} == {"picture"}


def test_other_weights_are_found(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    name = next(n for n, t in reversed(weights.items()) if t.is_floating_point() and t.ndim == 2)
    weights[name] = -weights[name]
    (copy / WEIGHTS).write_bytes(to_bytes(weights, {"format": "pt"}))
    write_sums(copy)
    assert "loss" in {c.name for c in verify(str(copy)) if not c.holds}


def test_weights_that_are_not_finite_are_refused(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    next(t for t in weights.values() if t.is_floating_point()).view(-1)[0] = float("inf")
    (copy / WEIGHTS).write_bytes(to_bytes(weights, {"format": "pt"}))
    write_sums(copy)
    with pytest.raises(PackageError, match="not finite"):
        verify(str(copy))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(correct=10**9),
        lambda t: t.update(top1=0.99),
        lambda t: t.update(loss="small"),
        lambda t: t.pop("count"),
    ],
)
def test_numbers_that_cannot_be_are_refused(change: Callable[[dict[str, float]], None], copy: Path) -> None:
    lie(copy, change)
    with pytest.raises(PackageError, match=r"result\.json"):
        verify(str(copy))


def test_another_dataset_is_not_taken(copy: Path) -> None:
    with pytest.raises(RunError, match="not the recorded one"):
        verify(str(copy), dataset="sklearn:digits?resize=10")


def test_the_command_prints_checks_and_ends_with_its_own_code(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(copy), "--json"])
    assert stop.value.code == 0
    assert {row["check"] for row in json.loads(capsys.readouterr().out)} >= {"sha256", "top-1"}
    lie(copy, one_better)
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(copy)])
    assert stop.value.code == 4
    shown = capsys.readouterr()
    assert "DIFFERS" in shown.out
    assert shown.err.startswith("error: ")
