"""`zoo reproduce`: a run of a dataset whose entry in a registry file was edited since is not taken for a new one's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.*a commit with changes")  # of this checkout, while it is changed

REGISTRY = """
[datasets.mine]
source = "sklearn:digits"
summary = "my digits"
num_classes = 10
size = [8, 8]
resize = true

[models.mine]
summary = "my model"
family = "cnn"
recipe = "cnn-to-others"
dataset = "mine"
build = { use = "cnn.baseline" }
"""


def table() -> Any:
    return zoo.reproduce("mine", budget="small", limit_train=64, limit_test=48, epochs=1, device="cpu")


def test_a_run_is_of_the_dataset_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("registry.toml")
    file.write_text(REGISTRY)
    (first,) = table().rows[0]["runs"]
    file.write_text(REGISTRY.replace("my digits", "the same in other words"))
    assert table().rows[0]["runs"] == [first]

    file.write_text(REGISTRY.replace("[8, 8]", "[12, 12]"))
    assert zoo.reproduce("mine", budget="small", train=False).states == ("missing",)
    (second,) = table().rows[0]["runs"]
    assert second["folder"] != first["folder"]
    assert table().rows[0]["runs"] == [second]

    file.write_text(REGISTRY)
    assert table().rows[0]["runs"] == [first]
    (Path(first["folder"]) / "dataset.json").unlink()  # as a run of an earlier version
    assert table().rows[0]["runs"] == [first]
