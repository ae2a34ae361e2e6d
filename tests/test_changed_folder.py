"""Objects that a program keeps while it changes its own folder, as `%cd` does in a notebook."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo

FEW: dict[str, Any] = {"dataset": "digits", "epochs": 1, "limit_train": 60, "limit_test": 20, "device": "cpu"}


@pytest.mark.parametrize("again", [lambda kept: kept, copy.copy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_a_run_and_its_features_stay_those_of_their_folder(
    again: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    monkeypatch.chdir(one)
    run = again(zoo.train("cnn-baseline", **FEW, output="runs/it"))
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    embedded = again(zoo.embed(run, [image], output="it.npy"))
    right = zoo.load(run).predict(image)
    assert (run.folder, embedded.path) == (Path("runs/it"), Path("it.npy"))
    zoo.train("cnn-baseline", **FEW, seed=1, output=other / "runs" / "it")
    np.save(other / "it.npy", np.zeros(1, np.load("it.npy").dtype))

    monkeypatch.chdir(other)
    assert run.folder == one / "runs" / "it"
    assert zoo.load(run).predict(image) == right != zoo.load("runs/it").predict(image)
    assert (run.reread().record.seed, zoo.evaluate(run).same_as_recorded, run.has_weights) == (0, True, True)
    assert embedded.features.any()
    monkeypatch.chdir(one)
    assert (run.folder, run == run.reread(), hash(run) == hash(run.reread())) == (Path("runs/it"), True, True)
    shutil.rmtree(other)
    assert repr(run).startswith("Run('runs/it'")
