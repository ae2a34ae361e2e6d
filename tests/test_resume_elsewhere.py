"""A run that was begun with a device that this machine lacks goes on with another one, if it is asked to."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import zoo
from zoo.cli import cli
from zoo.errors import DeviceError, ZooWarning
from zoo.runs.record import read_record

FEW = {"dataset": "digits", "limit_train": 200, "limit_test": 50, "epochs": 2, "device": "cpu", "precision": "fp32"}

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run that was stopped, whose record says that it was trained on a GPU in bf16."""
    steps = iter([0, 0, 0, 15, 15, 15])
    folder = zoo.train("cnn-baseline", **FEW, output=tmp_path / "run", stop=lambda: next(steps)).folder
    record = folder / "run.toml"
    text = (
        record.read_text()
        .replace('device = "cpu"', 'device = "cuda:1"')
        .replace('compile = "off"', 'compile = "graph"', 1)
    )
    changed = text.replace('precision = "fp32"', 'precision = "bf16"', 1)
    record.write_text(changed.replace('device = "' + read_record(folder).environment["device"], 'device = "A GPU'))
    return folder


def test_a_run_whose_device_is_not_here_is_refused_with_what_helps(begun: Path) -> None:
    with pytest.raises(
        DeviceError, match=r"device 'cuda:1' is not available .*; .zoo train --resume .* --device auto. goes on"
    ):
        zoo.resume(begun)
    named = begun.rename(begun.with_name("a run"))
    with pytest.raises(DeviceError) as refused:
        zoo.resume(named)
    assert shlex.split(str(refused.value).split("`")[1])[3:5] == [str(named), "--device"]
    named.rename(begun)
    for name in ("mps", "meta"):
        with pytest.raises(DeviceError, match=f"device '{name}' is not available on this machine"):
            zoo.resume(begun, device=name)
    assert read_record(begun).device == "cuda:1"


def test_it_goes_on_with_the_device_that_is_given_and_the_record_says_so(begun: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["train", "--resume", str(begun), "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "precision is now fp32 and was bf16: the resumed run will not be bit-identical" in done.stderr
    assert "was A GPU" in done.stderr
    record, result = read_record(begun), json.loads((begun / "result.json").read_text())
    assert (record.device, record.precision, record.compile) == ("cpu", "fp32", "off")
    assert record.environment["begun in"] == "bf16 on cuda:1"
    assert result["environment"]["device"].startswith("A GPU")
    (other,) = result["resumed"]
    assert (other["epoch"], "begun in" in other, other["device"].startswith("A GPU")) == (2, False, False)
    whole = zoo.train("cnn-baseline", **FEW, output=tmp_path / "whole")
    assert (whole.folder / "model.safetensors").read_bytes() == (begun / "model.safetensors").read_bytes()


def test_a_trial_of_a_sweep_goes_on_where_its_device_is_not(tmp_path: Path) -> None:
    found = tmp_path / "found"
    words = {**FEW, "grid": {"lr": [1e-3]}, "output": found}
    del words["limit_test"], words["precision"]

    def sweep(stop: Callable[[], int]) -> zoo.Sweep:
        return zoo.sweep("cnn-baseline", **words, stop=stop)

    assert sweep(lambda: 15 * (found / "trial-0000" / "metrics.jsonl").is_file()).stopped
    record = found / "trial-0000" / "run.toml"
    record.write_text(record.read_text().replace('device = "cpu"', 'device = "cuda:1"', 1))
    with pytest.warns(ZooWarning, match="trial-0000: goes on on cpu, as this machine has no cuda:1, where it began"):
        again = sweep(lambda: 0)
    assert [trial["state"] for trial in again.trials] == ["complete"]
    assert len((record.parent / "metrics.jsonl").read_text().splitlines()) == 2
