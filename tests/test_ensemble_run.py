"""An ensemble as one run: the same answers as RUN+RUN, and a package that anybody can verify."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hub_server.runs import own_caches
from square_images import png, squares, write_parquet

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import InputError
from zoo.evaluate.multi_label import best_thresholds
from zoo.runs.folder import read_result
from zoo.runs.images import images_of
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
    assert "made of other runs, finished" in repr(run)
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


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two networks for images with several labels, the second without normalisation, and their ensemble."""
    base = tmp_path_factory.mktemp("several")
    data = {"dataset": f"parquet:{write_parquet(base / 'data')}?label=names", "device": "cpu"}
    recipe = {"epochs": 4, "batch_size": 32, "lr": 3e-3, "precision": "fp32"}
    with own_caches(base):
        zoo.train("cnn-baseline", seed=0, settings=recipe, output=base / "a", **data)
        zoo.train("cnn-baseline", seed=1, settings={**recipe, "normalize": "none"}, output=base / "b", **data)
        zoo.soup(base / "a", base / "b", method="ensemble", output=base / "ab")
        yield base


def test_an_ensemble_for_several_labels_is_the_mean_of_sigmoids_with_thresholds_of_its_own(
    several: Path, tmp_path: Path
) -> None:
    def mean(images: Iterable[np.ndarray]) -> np.ndarray:
        parts = [np.stack([one.probabilities for one in zoo.predict(several / name, list(images))]) for name in "ab"]
        assert abs(parts[0] - parts[1]).max() > 0.01
        return (parts[0] + parts[1]) / 2

    images = squares(20, 5)[0]
    found, wanted = zoo.predict(several / "ab", list(images)), mean(images)
    np.testing.assert_allclose(np.stack([one.probabilities for one in found]), wanted, atol=1e-6)

    record, result = read_record(several / "ab"), read_result(several / "ab")
    held_out = images_of(record, load_registry()).selecting
    of_them = mean(np.asarray(held_out.images).transpose(0, 2, 3, 1))
    chosen = best_thresholds(torch.tensor(np.asarray(held_out.labels)), torch.tensor(of_them))
    np.testing.assert_allclose(result["thresholds"]["values"], chosen.numpy(), atol=1e-5)
    assert all(result["thresholds"] != read_result(several / name)["thresholds"] for name in "ab")
    for one, row in zip(found, wanted, strict=True):
        reached = {name for name, p, t in zip(record.data.classes, row, chosen.tolist(), strict=True) if p >= t}
        assert {name for name, _ in one.labels or ()} == reached

    assert zoo.evaluate(several / "ab").same_as_recorded
    package = zoo.package(several / "ab", output=tmp_path / "package")
    verified = zoo.verify(package, dataset=record.data.spec)
    assert all(check.holds for check in verified.checks)


def test_an_ensemble_for_several_labels_is_served_and_exported(several: Path, tmp_path: Path) -> None:
    image = squares(3, 11)[0][2]
    (expected,) = zoo.load(several / "ab").predict([image])
    with zoo.serve(several / "ab", port=0, block=False) as serving:
        request = urllib.request.Request(f"{serving.url}predict", png(image), {"Content-Type": "image/png"})
        answer = json.load(urllib.request.urlopen(request, timeout=20))
    assert [label["name"] for label in answer["labels"]] == [name for name, _ in expected]
    pytest.importorskip("onnxruntime", reason="needs the extra export: pip install -e '.[export]'")
    zoo.export(several / "ab", tmp_path / "ab.onnx")
    by_file = zoo.predict(tmp_path / "ab.onnx", [image])[0].labels
    assert by_file is not None
    assert [name for name, _ in by_file] == [name for name, _ in expected]
    np.testing.assert_allclose([p for _, p in by_file], [p for _, p in expected], atol=1e-5)


def test_members_for_several_labels_without_one_run_are_refused_with_the_way_to_one(several: Path) -> None:
    with pytest.raises(InputError, match="zoo soup RUN RUN --method ensemble makes one run"):
        zoo.load(f"{several / 'a'}+{several / 'b'}")


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
