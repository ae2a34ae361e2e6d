"""Ensembles, "RUN+RUN", against means of probabilities that are made by hand."""

from __future__ import annotations

import json
import shutil
import urllib.request
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.special import softmax
from small_runs import small_catalogue

import zoo
from zoo.cli import cli
from zoo.data.files.colours import Colours
from zoo.errors import InputError
from zoo.evaluate.ensemble import EnsembleClassifier
from zoo.evaluate.opened import open_run
from zoo.evaluate.temperature import logits_of
from zoo.runs.folder import read_weights, write_weights
from zoo.runs.record import read_record, write_record
from zoo.train.loop import Trainer
from zoo.train.plan import resolve
from zoo.train.run_options import Request


@pytest.fixture(scope="module")
def runs(plugin_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of 8x8, one without normalisation; one of 12x12 images; and the second with its classes turned round."""
    base = tmp_path_factory.mktemp("runs")
    with small_catalogue(base, plugin_index):
        plain = ("recipe.normalize=false", 'recipe.tta="mirror"')
        for name, size, settings in (("a", None, ()), ("b", None, plain), ("large", 12, ())):
            asked = {"image_size": size, "settings": settings, "limit_train": 300}
            plan = resolve(Request(model="tiny", device="cpu", epochs=1, seed=len(name), **asked))
            (base / name).mkdir()
            write_record(base / name, plan.record)
            Trainer(plan, base / name).fit()
    shutil.copytree(base / "b", base / "turned+round")
    record, weights = read_record(base / "b"), read_weights(base / "b")
    head = {key: value.flip(0) for key, value in weights.items() if value.shape[:1] == (10,)}
    assert len(head) == 2
    data = msgspec.structs.replace(record.data, classes=record.data.classes[::-1])
    record = msgspec.structs.replace(record, data=data)
    write_record(base / "turned+round", record)
    write_weights(base / "turned+round", {**weights, **head}, record)
    return base


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A picture of noise."""
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 255, (20, 16, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def probabilities(run: Path) -> np.ndarray:
    """Of the test images, from the run's logits."""
    return softmax(logits_of(open_run(run, device="cpu"))[0].double().numpy(), axis=1)


def test_members_that_read_values_otherwise_see_images_of_their_own(runs: Path) -> None:
    members = [zoo.load(runs / name) for name in ("a", "a")]
    for member, white in zip(members, (255.0, 4095.0), strict=True):
        rule = replace(member.preprocessing.rule, colours=Colours(white=white))
        member.preprocessing = replace(member.preprocessing, rule=rule)
    assert EnsembleClassifier(members, ["a", "b"]).is_mixed
    assert not EnsembleClassifier(members[:1] * 2, ["a", "b"]).is_mixed


@pytest.mark.parametrize("names", [("a", "b"), ("a", "turned+round"), ("a", "large"), ("a", "b", "large")])
def test_an_ensemble_is_measured_by_the_mean_of_its_members_probabilities(runs: Path, names: tuple[str, ...]) -> None:
    word = "+".join(str(runs / name) for name in names)
    found = zoo.evaluate(word)
    labels = np.asarray(open_run(runs / "a", device="cpu").images.labels)
    parts = [probabilities(runs / name) for name in names]
    parts = [part[:, ::-1] if name == "turned+round" else part for name, part in zip(names, parts, strict=True)]
    by_hand = np.mean(parts, axis=0)
    assert found.correct == (by_hand.argmax(1) == labels).sum()
    assert found.loss == pytest.approx(-np.log(by_hand[np.arange(len(labels)), labels]).mean(), abs=1e-5)
    assert found.same_as_recorded is None
    assert "nothing is recorded" in found.verdict


@pytest.mark.parametrize("names", [("a", "b"), ("turned+round", "a"), ("a", "large")])
def test_an_ensemble_predicts_the_mean_of_its_members_probabilities(
    runs: Path, image: Path, names: tuple[str, ...]
) -> None:
    word = "+".join(str(runs / name) for name in names)
    alone = [zoo.predict(runs / name, image)[0].probabilities for name in names]
    alone = [part[::-1] if name == "turned+round" else part for name, part in zip(names, alone, strict=True)]
    mean = np.mean(alone, axis=0)
    together = zoo.predict(word, image)[0]
    np.testing.assert_allclose(together.probabilities, mean[::-1] if names[0] == "turned+round" else mean, atol=1e-5)
    assert together.top1 == str(mean.argmax())
    assert zoo.load(word).predict(image)[0][0].name == together.top1
    done = CliRunner().invoke(cli, ["predict", word, str(image), "--json"])
    assert json.loads(done.stdout)["classes"][0]["name"] == together.top1


def renamed(run: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """A copy of a run with other names of its classes."""
    shutil.copytree(run, folder)
    record = read_record(folder)
    write_record(folder, msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, classes=names)))
    return folder


def test_two_classes_of_one_name_stay_two(runs: Path, image: Path, tmp_path: Path) -> None:
    names = ("crane", "crane", *map(str, range(2, 10)))  # as ImageNet has a bird and a machine
    members = [renamed(runs / name, tmp_path / name, names) for name in ("a", "b")]
    mean = np.mean([zoo.predict(member, image)[0].probabilities for member in members], axis=0)
    together = zoo.predict("+".join(map(str, members)), image)[0].probabilities
    np.testing.assert_allclose(together, mean, atol=1e-5)
    other = renamed(runs / "b", tmp_path / "other", names[::-1])
    with pytest.raises(InputError, match=r"several are called 'crane' and cannot be told apart"):
        zoo.load(f"{members[0]}+{other}")


@pytest.mark.parametrize("other", ["b", "large"])
def test_an_ensemble_is_served(runs: Path, image: Path, other: str) -> None:
    word = f"{runs / 'a'}+{runs / other}"
    with zoo.serve(word, port=0, block=False) as server:
        request = urllib.request.Request(f"{server.url}predict", image.read_bytes(), {"content-type": "image/png"})
        with urllib.request.urlopen(request) as answer:
            found = json.loads(answer.read())
    expected = zoo.predict(word, image)[0]
    assert found["classes"][0]["name"] == expected.top1
    assert found["classes"][0]["probability"] == pytest.approx(expected.probability, abs=1e-5)


def test_members_keep_their_temperatures(runs: Path, image: Path, tmp_path: Path) -> None:
    warm = shutil.copytree(runs / "a", tmp_path / "a")
    zoo.calibrate(warm)
    alone = [zoo.predict(run, image)[0].probabilities for run in (warm, runs / "b")]
    together = zoo.predict(f"{warm}+{runs / 'b'}", image)[0].probabilities
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)


def test_an_ensemble_of_one_size_is_exported_as_one_file(runs: Path, tmp_path: Path) -> None:
    word = f"{runs / 'a'}+{runs / 'b'}"
    made = zoo.export(word, tmp_path / "model.pt2", format="torch")
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        wanted = zoo.load(word)(images)
    margin = 0.2
    assert wanted.exp().topk(2).values.diff().abs().min() < margin  # so that the views of a member count
    unsure = zoo.load(word)
    for member in unsure.members:
        member.tta, member.tta_margin = "mirror", margin
    with torch.no_grad():
        by_margin = unsure(images)
    assert not torch.allclose(by_margin, wanted, atol=1e-4)
    other = zoo.export(unsure, tmp_path / "margin.pt2", format="torch")
    torch.testing.assert_close(torch.export.load(other.path).module()(images), by_margin, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.export.load(made.path).module()(images), wanted, atol=1e-5, rtol=1e-5)
    assert (wanted.exp().sum(1) - 1).abs().max() < 1e-5
    mixed = f"{word}+{runs / 'large'}"
    for call in (lambda: zoo.export(mixed), lambda: zoo.export(zoo.load(mixed)), lambda: zoo.load(mixed).transform):
        with pytest.raises(InputError, match="different sizes"):
            call()


def test_an_ensemble_is_compared_with_one_of_its_members(runs: Path) -> None:
    found = zoo.compare(f"{runs / 'a'}+{runs / 'b'}", runs / "a", what="calibration")
    assert found.comparison is not None
    assert found.comparison.top1 == zoo.evaluate(runs / "a").top1
    assert found.calibration is not None


def test_runs_with_their_classes_in_another_order_are_compared_by_name(runs: Path) -> None:
    found = zoo.compare(runs / "b", runs / "turned+round", on="sklearn:digits").comparison
    assert found is not None
    assert (found.difference, found.counts["only_first"], found.counts["only_second"]) == (0, 0, 0)
    assert found.counts["both_right"] == zoo.evaluate(runs / "b").correct


def test_a_run_whose_name_holds_a_plus_is_itself(runs: Path, image: Path) -> None:
    assert zoo.load(str(runs / "turned+round")).record is not None
    assert zoo.predict(str(runs / "turned+round"), image)[0].top1


def test_a_member_that_is_not_there_is_named(runs: Path) -> None:
    with pytest.raises(InputError, match=r"no run folder 'nothing'"):
        zoo.evaluate(f"{runs / 'a'}+nothing")
    with pytest.raises(InputError, match=r"ends with a plus; an ensemble is RUN\+RUN"):
        zoo.evaluate(f"{runs / 'a'}+")


def test_an_exported_file_as_a_member_is_refused_by_its_name(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.touch()
    for word in (f"{file}+{runs / 'a'}", f"{runs / 'a'}+{file}"):
        with pytest.raises(InputError, match=r"model\.onnx is an exported file, which cannot be a member"):
            zoo.load(word)


def test_where_one_run_is_needed_an_ensemble_is_refused(runs: Path) -> None:
    word = f"{runs / 'a'}+{runs / 'b'}"
    calls = (
        *(lambda: zoo.calibrate(word), lambda: zoo.resume(word), lambda: zoo.soup(word, runs / "a")),
        *(lambda: zoo.embed(word, on="digits"), lambda: zoo.embed(zoo.load(word)), lambda: zoo.probe(word)),
        *(lambda: zoo.probe(zoo.load(word)), lambda: zoo.runs(word), lambda: zoo.report(word)),
        *(lambda: zoo.train("cnn-baseline", weights=word), lambda: zoo.train("cnn-baseline", teacher=word)),
    )
    for call in calls:
        with pytest.raises(InputError, match="is an ensemble of 2 runs, and one run is needed"):
            call()


def test_members_of_other_classes_or_images_are_refused(runs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(runs / "b", tmp_path / "b")
    record = read_record(other)
    named = msgspec.structs.replace(record.data, classes=("ten", *record.data.classes[1:]))
    write_record(other, msgspec.structs.replace(record, data=named))
    with pytest.raises(InputError, match=r"other classes .*only one knows 0, ten"):
        zoo.load(f"{runs / 'a'}+{other}")
    elsewhere = msgspec.structs.replace(record.data, spec="folder:x", fingerprint="f" * 64)
    write_record(other, msgspec.structs.replace(record, data=elsewhere))
    with pytest.raises(InputError, match="--on SPEC"):
        zoo.evaluate(f"{runs / 'a'}+{other}")
    assert zoo.evaluate(f"{runs / 'a'}+{other}", on="sklearn:digits").count == 360
