"""`zoo reproduce` of runs that have no top-1, or whose curves have gaps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import RunError
from zoo.runs.folder import write_result
from zoo.runs.record import RESULT
from zoo.studies.figures import Series, draw_table

FEW: dict[str, Any] = {"budget": "small", "epochs": 1, "limit_train": 40, "limit_test": 10, "device": "cpu"}


def with_several_labels(folder: Path) -> str:
    """A table of images with one or two labels each; its SPEC."""
    random, lines = np.random.default_rng(0), []
    for number in range(40):
        Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
        labels = ["cat", "dog"] if number % 3 == 0 else ["cat" if number % 2 else "dog"]
        lines.append(json.dumps({"path": f"{number}.png", "label": labels}))
    (folder / "pets.jsonl").write_text("\n".join(lines))
    return f"jsonl:{folder}/pets.jsonl"


@pytest.mark.parametrize(
    ("several", "recipe", "said"),
    [
        (True, "source", "the images of jsonl:.* have several labels, and a table compares top-1; train the model by "),
        (False, "pretrain", 'the objective "masked" learns no labels, and a table compares top-1'),
    ],
)
def test_a_run_without_top1_fails_in_one_line(several: bool, recipe: str, said: str, tmp_path: Path) -> None:
    places = {"runs": tmp_path / "runs", "results": tmp_path / "results"}
    dataset = with_several_labels(tmp_path) if several else "digits"
    made = zoo.reproduce("vit-cifar", dataset=dataset, recipe=recipe, only=["vit-cifar/cifar10"], **FEW, **places)
    assert [row["top1"] for row in made.rows] == [None]
    (failed,) = made.failed
    assert "\n" not in failed
    assert re.search(said, failed)


def test_a_finished_run_without_top1_is_named(tmp_path: Path) -> None:
    asked: dict[str, Any] = {**FEW, "dataset": "digits", "only": ["cnn-baseline/cifar10"]}
    asked |= {"runs": tmp_path / "runs", "results": tmp_path / "results"}
    zoo.reproduce("cnn-baseline", **asked)
    (path,) = tmp_path.rglob(RESULT)
    write_result(path.parent, json.loads(path.read_text()) | {"test": None})
    with pytest.raises(RunError, match=rf"{path.parent.name}: has no top-1 of test images, which a table compares"):
        zoo.reproduce("cnn-baseline", train=False, **asked)


def test_curves_that_are_not_finite_have_gaps_in_a_figure(tmp_path: Path) -> None:
    """A run's file holds null there."""
    rows = [{"epoch": epoch, "train_loss": 1.0, "val_loss": 2.0, "val_top1": 0.5} for epoch in (1, 2, 3)]
    files = draw_table(tmp_path / "whole", "", [Series("a", [rows, rows])])
    with_gap = [rows[0], rows[1] | {"train_loss": None, "val_loss": None}, rows[2]]
    gaps = draw_table(tmp_path / "gap", "", [Series("a", [rows, with_gap])])
    assert [path.suffix for path in gaps] == [".png", ".svg"]
    assert gaps[1].read_bytes() != files[1].read_bytes()
