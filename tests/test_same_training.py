"""`zoo reproduce`: rows of a table whose networks are the same to the bit are trained once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import mean, stdev
from tomllib import loads as decoded
from typing import Any

import pytest

import zoo
from zoo.cli import cli
from zoo.errors import RunError
from zoo.train.notebook_html import epochs_table

WORDS = ("reproduce", "cnn-to-others", "--train", "--budget", "small", "--dataset", "digits")
FEW = ("--limit-train", "300", "--limit-test", "100", "--epochs", "2")
FLIPS, GRAY, ALL = (("--only", f"cnn-baseline/cifar10-{kind}") for kind in ("flips", "grayscale", "*"))
TIMES = ("seconds", "images_per_second", "warm_up_seconds")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def reproduce(*words: str) -> None:
    cli.main([*WORDS, *FEW, *words], standalone_mode=False)


def runs(results: str = "results", protocol: str = "paper") -> dict[str, dict[str, Any]]:
    """The run of each dataset."""
    table = json.loads(Path(results, "cnn-to-others.json").read_text())
    return {row["dataset"]: row["runs"][0] for row in table["rows"] if row["protocol"] == protocol}


def epochs(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run["folder"], "metrics.jsonl").read_text().splitlines()]


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {key: timeless(part) if isinstance(part, dict) else part for key, part in result.items() if key not in TIMES}


def weights(run: dict[str, Any]) -> bytes:
    return Path(run["folder"], "model.safetensors").read_bytes()


def test_rows_that_differ_in_their_test_images_are_trained_once(capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(*FLIPS)
    reproduce(*ALL, "--figures")
    assert capsys.readouterr().err.count("has the training of cnn-baseline on cifar10-flips, seed 0") == 2
    reproduce(*GRAY, "--runs", "apart", "--results", "apart")  # no other run is there
    found, apart = runs(), runs("apart")["cifar10-grayscale"]
    gray, flips = found["cifar10-grayscale"], found["cifar10-flips"]
    assert gray["trained_in"] == flips["folder"]
    assert "trained_in" not in flips | apart
    assert gray["result"]["environment"] == flips["result"]["environment"]  # of what trained it
    assert gray["result"]["test"]["count"] == 100
    assert gray["result"]["test"] != flips["result"]["test"]
    assert timeless(gray["result"]) == timeless(apart["result"])
    rates = [run["result"]["train"]["images_per_second"] for run in (gray, flips)]
    assert rates[0] == rates[1]  # what was measured when it was trained
    assert weights(gray) == weights(flips) == weights(apart)
    assert [row["train_loss"] for row in epochs(gray)] == [row["train_loss"] for row in epochs(apart)]
    assert not any(key.startswith("test_") for row in epochs(gray) for key in row)
    assert any(key.startswith("test_") for row in epochs(apart) for key in row)
    for run, columns in ((gray, 5), (apart, 7)):
        shown = epochs_table(epochs(run), "test", set())
        assert shown.count("<th>") == columns
        assert shown.count("<td") == 2 * columns
    assert Path("results/figures/cnn-to-others-cifar10-grayscale-paper-small.svg").is_file()


def test_a_row_whose_training_is_another_one_is_trained() -> None:
    reproduce(*FLIPS, "--protocol", "clean")
    reproduce(*GRAY, "--protocol", "clean")  # validation images, which choose the epoch, are altered as the test images
    clean = runs(protocol="clean")
    assert len(clean) == 2
    assert not any("trained_in" in run for run in clean.values())
    reproduce(*FLIPS)
    record = Path(runs()["cifar10-flips"]["folder"], "run.toml")
    written = record.read_text()
    record.write_text(written.replace('torch = "', 'torch = "0.'))  # which would go on with other roundings
    reproduce(*GRAY)
    assert "trained_in" not in runs()["cifar10-grayscale"]


def test_a_training_on_images_that_are_others_now_is_not_taken_over() -> None:
    reproduce(*FLIPS)
    record = Path(runs()["cifar10-flips"]["folder"], "run.toml")
    known = decoded(record.read_text())["data"]["fingerprint"]
    record.write_text(record.read_text().replace(known, known[::-1]))
    reproduce(*GRAY)
    assert "trained_in" not in runs()["cifar10-grayscale"]


def test_a_run_without_its_checkpoints_cannot_be_taken_over() -> None:
    reproduce(*FLIPS)
    for path in Path(runs()["cifar10-flips"]["folder"], "checkpoints").iterdir():
        path.unlink()
    reproduce(*GRAY)
    assert "trained_in" not in runs()["cifar10-grayscale"]


def test_a_seed_is_added_to_those_that_the_file_has() -> None:
    reproduce(*FLIPS, "--seeds", "2")
    shutil.rmtree("runs")  # of another machine, for example
    reproduce(*FLIPS, "--first-seed", "2")
    (row,) = json.loads(Path("results", "cnn-to-others.json").read_text())["rows"]
    scores = [run["result"]["test"]["top1"] for run in row["runs"]]
    assert (row["seeds"], [run["seed"] for run in row["runs"]], len(scores)) == ([0, 1, 2], [0, 1, 2], 3)
    assert (row["top1"], row["spread"]) == pytest.approx((mean(scores), stdev(scores)))
    assert row["difference"] == pytest.approx(mean(scores) - row["published_top1"])
    table = zoo.reproduce("cnn-to-others", only=FLIPS[1], budget="small", dataset="digits", first_seed=1, train=False)
    assert table.rows[0]["seeds"] == []  # shown as it would be trained: no run of seed 1 is there
    reproduce(*FLIPS, "--first-seed", "1", "--seeds", "2")  # seed 1 anew, in the place of the old one
    (again,) = json.loads(Path("results", "cnn-to-others.json").read_text())["rows"]
    assert again["seeds"] == [0, 1, 2]
    assert timeless(again["runs"][1]["result"]) == timeless(row["runs"][1]["result"])
    assert again["runs"][2] == row["runs"][2]


def test_a_seed_of_another_training_is_not_added() -> None:
    reproduce(*FLIPS)
    before = Path("results", "cnn-to-others.json").read_bytes()
    for other in (["--epochs", "3"], ["--limit-train", "200"]):
        with pytest.raises(RunError, match=r"cnn-baseline on cifar10-flips: its recorded seeds had another training"):
            reproduce(*FLIPS, "--first-seed", "1", *other)
    assert not list(Path("runs").rglob("*seed1*"))  # it is said before anything is trained
    assert Path("results", "cnn-to-others.json").read_bytes() == before

    table = json.loads(before)
    del table["rows"][0]["decides"]  # as earlier versions wrote it
    Path("results", "cnn-to-others.json").write_text(json.dumps(table))
    with pytest.raises(RunError, match="had another training"):
        reproduce(*FLIPS, "--first-seed", "1", "--epochs", "3")
    reproduce(*FLIPS, "--first-seed", "1")
    (row,) = json.loads(Path("results", "cnn-to-others.json").read_text())["rows"]
    assert row["seeds"] == [0, 1]
