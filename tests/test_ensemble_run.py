"""An ensemble as one run: the same answers as RUN+RUN, and a package that anybody can verify."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hub_server.runs import own_caches

import zoo
from zoo.cli import cli
from zoo.errors import InputError
from zoo.runs.record import read_record


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two networks, the second with another normalisation and a temperature, and their ensemble."""
    base = tmp_path_factory.mktemp("runs")
    small = {"dataset": "digits", "limit_train": 300, "limit_test": 100, "epochs": 2, "device": "cpu"}
    with own_caches(base):
        zoo.train("cnn-baseline", seed=0, output=base / "a", **small)
        zoo.train("cnn-baseline-bn", seed=1, settings={"normalize": "none"}, output=base / "b", **small)
        zoo.calibrate(base / "b")
        zoo.soup(base / "a", base / "b", method="ensemble", output=base / "ab")
        yield base


def test_the_run_answers_as_its_members_do_together(runs: Path) -> None:
    together, one = zoo.load(f"{runs / 'a'}+{runs / 'b'}"), zoo.load(runs / "ab")
    images = torch.rand(6, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(one(images), together(images), rtol=0, atol=1e-6)
        by_hand = []
        for name in ("a", "b"):
            member = zoo.load(runs / name)
            given = member.preprocessing
            mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (given.mean, given.std))
            logits = member((images - mean) / std if given.normalize else images) / member.temperature
            by_hand.append(logits.softmax(1))
    torch.testing.assert_close(one(images).softmax(1), sum(by_hand) / 2, rtol=0, atol=1e-5)
    assert zoo.load(runs / "b").temperature != 1


def test_the_record_names_the_members_and_the_result_is_measured(runs: Path) -> None:
    run = zoo.runs(runs / "ab")[0]
    soup = read_record(runs / "ab").soup
    assert soup
    assert [(one.name, one.weight, one.seed) for one in soup.of] == [("a", 0.5, 0), ("b", 0.5, 1)]
    assert soup.method == "ensemble"
    assert run.result is not None
    assert run.result["parameters"] == sum(zoo.runs(runs / name)[0].result["parameters"] for name in ("a", "b"))
    assert zoo.evaluate(runs / "ab").same_as_recorded
    assert zoo.evaluate(f"{runs / 'a'}+{runs / 'b'}").top1 == pytest.approx(run.top1)


def test_the_run_is_packaged_and_verified_as_one(runs: Path, tmp_path: Path) -> None:
    zoo.package(runs / "ab", output=tmp_path / "package")
    verified = zoo.verify(tmp_path / "package")
    assert "verified" in repr(verified)
    assert all(check.holds for check in verified.checks)
    card = (tmp_path / "package" / "README.md").read_text()
    assert "holds the weights of 2 runs" in card
    assert "mean of those" not in card


def test_an_ensemble_is_not_trained_further(runs: Path) -> None:
    with pytest.raises(InputError, match="is an ensemble of other runs, and cannot be trained further"):
        zoo.resume(runs / "ab", epochs=9)
    for source in ({"from_run": runs / "ab"}, {"weights": runs / "ab", "model": "cnn-baseline"}):
        with pytest.raises(InputError, match="is an ensemble of other runs, and cannot be trained further"):
            zoo.train(**source, dataset="digits", output=runs / "no")


def test_where_one_run_is_needed_the_way_to_make_one_is_said(runs: Path) -> None:
    with pytest.raises(InputError, match=r"`zoo soup RUN RUN --method ensemble` makes one run of it"):
        zoo.package(f"{runs / 'a'}+{runs / 'b'}")


def test_features_of_an_ensemble_are_not_those_of_its_last_member(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"come from several layers .* each with features of its own"):
        zoo.embed(runs / "ab", output=tmp_path / "a.parquet")


def test_members_that_were_measured_on_other_images_are_refused(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs / "a", other)
    record = other / "run.toml"
    record.write_text(record.read_text().replace("limit_test = 100", "limit_test = 90"))
    words = ["soup", str(runs / "b"), str(other), "--method", "ensemble", "--output", str(tmp_path / "new")]
    with pytest.raises(InputError, match=r"other differs from b in data\.limit_test"):
        cli.main(words, standalone_mode=False)
    assert not (tmp_path / "new").exists()


def test_the_component_refuses_lists_of_another_length() -> None:
    members = [zoo.part("cnn.baseline"), zoo.part("cnn.baseline")]
    with pytest.raises(InputError, match="temperature has 1 entries for 2 members; give one for each, or none"):
        zoo.create(zoo.part("hybrid.ensemble", members=members, temperature=[1.0]), num_classes=10, image_size=8)


def test_the_command_prints_the_folder(runs: Path, tmp_path: Path) -> None:
    words = ["soup", str(runs / "a"), str(runs / "b"), "--method", "ensemble", "--output", str(tmp_path / "new")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "new")
    assert "ensemble of 2 runs" in done.stderr
