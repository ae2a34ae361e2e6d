"""An exported file in the place of its run: the same predictions, and one clear line where it cannot stand there."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hub_server.runs import own_caches, untrained_run
from PIL import Image

import zoo
from zoo.cli import cli
from zoo.errors import InputError, RunError
from zoo.export import write
from zoo.export.facts import PIXEL_VALUES

onnx = pytest.importorskip("onnx", reason="needs the extra export: pip install -e '.[export]'")
pytest.importorskip("onnxruntime", reason="needs the extra export: pip install -e '.[export]'")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("onnx-file")
    with own_caches(base):
        folder = untrained_run(base / "run", model="cnn-baseline", limit_train=64, limit_test=100)
        for name, how in {
            "prepared": {},
            "pixels": {"with_preprocessing": True},
            "threes": {"batch": 3, "with_preprocessing": True},
        }.items():
            zoo.export(folder, base / f"{name}.onnx", check=False, **how)
        yield base


def pictures(count: int = 5) -> list[Any]:
    draw = np.random.default_rng(3)
    return [draw.integers(0, 256, (20 + number, 31, 3), dtype=np.uint8) for number in range(count)]


def chosen(model: Any, tta: str, margin: bool) -> Any:
    """A model whose answers differ, calibrated, over these views: with a margin, of half of the pictures alone."""
    with torch.no_grad():
        list(model.module.parameters())[-2].mul_(40)
        first = model.module(model.read(pictures(40))).softmax(1).topk(2).values
    model.tta, model.temperature = tta, 0.4
    model.tta_margin = (first[:, 0] - first[:, 1]).quantile(0.5).item() if margin else None
    return model


def assert_alike(found: list[zoo.Prediction], wanted: list[zoo.Prediction]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.classes[0].name == other.classes[0].name
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


@pytest.mark.parametrize("name", ["prepared", "pixels", "threes"])
def test_a_file_predicts_what_its_run_predicts(home: Path, name: str) -> None:
    assert_alike(zoo.predict(home / f"{name}.onnx", pictures()), zoo.predict(home / "run", pictures()))
    loaded = zoo.load(home / f"{name}.onnx")
    assert_alike(zoo.predict(loaded, pictures()), zoo.predict(home / "run", pictures()))
    run = zoo.load(home / "run")
    assert (loaded.name, loaded.classes, loaded.parameter_count) == (run.name, run.classes, run.parameter_count)
    assert loaded.transform.preprocessing.rule == run.transform.preprocessing.rule


@pytest.mark.parametrize(("tta", "margin", "several"), [("mirror", True, False), ("dihedral", False, True)])
def test_a_file_of_a_loaded_model_predicts_what_it_predicts(
    home: Path, tmp_path: Path, several: bool, tta: str, margin: bool
) -> None:
    model = chosen(zoo.load(home / "run"), tta, margin)
    model.thresholds = (0.5,) * 10 if several else ()
    zoo.export(model, tmp_path / "loaded.onnx", check=False)
    loaded = zoo.load(tmp_path / "loaded.onnx")
    assert (loaded.tta, loaded.tta_margin, loaded.thresholds) == (tta, model.tta_margin, model.thresholds)
    assert loaded.dataset == model.dataset
    assert_alike(zoo.predict(loaded, pictures(40)), zoo.predict(model, pictures(40)))
    assert sum(loaded.probabilities(np.zeros((1, 3, 8, 8), np.uint8))[0]).item() == pytest.approx(1) or several


@pytest.mark.parametrize(("tta", "margin"), [("mirror", True), ("dihedral", False)])
def test_views_inside_of_a_file_are_those_of_unsure_images_alone(
    home: Path, tmp_path: Path, tta: str, margin: bool
) -> None:
    model, file = chosen(zoo.load(home / "run"), tta, margin), tmp_path / "inside.onnx"
    write.export(model, file, takes=PIXEL_VALUES, check=False)
    assert_alike(zoo.predict(file, pictures(40)), zoo.predict(model, pictures(40)))


def test_the_file_of_a_package_has_views_inside_and_is_not_averaged_twice(with_onnx: Path) -> None:
    file, run = with_onnx / "onnx" / "model.onnx", zoo.load(with_onnx)
    assert_alike(zoo.predict(file, pictures()), zoo.predict(run, pictures()))
    assert zoo.load(file).tta == "none"


def test_the_commands_take_a_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pictures(1)[0]).save("photo.png")
    said = [
        CliRunner().invoke(cli, ["predict", str(home / name), "photo.png", "--json"]).stdout
        for name in ("prepared.onnx", "run")
    ]
    first, second = (json.loads(text)["classes"] for text in said)
    assert [one["name"] for one in first] == [one["name"] for one in second]
    done = CliRunner().invoke(cli, ["eval", str(home / "pixels.onnx"), "--on", "digits", "--json"])
    assert done.exit_code == 0, done.stderr
    of_run = json.loads(CliRunner().invoke(cli, ["eval", str(home / "run"), "--on", "digits", "--json"]).stdout)
    found = json.loads(done.stdout)
    assert found["top1"] == of_run["top1"]


def test_a_file_is_served(home: Path) -> None:
    with zoo.serve(str(home / "pixels.onnx"), port=0, block=False) as server:
        held = BytesIO()
        Image.fromarray(pictures(1)[0]).save(held, "PNG")
        request = urllib.request.Request(f"{server.url}predict", held.getvalue(), {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=30) as answered:
            got = json.loads(answered.read())["classes"]
    (wanted,) = zoo.predict(home / "run", pictures(1))
    assert [one["name"] for one in got] == [one.name for one in wanted.classes]


def test_neither_the_run_nor_its_architecture_is_needed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = zoo.predict(home / "run", pictures())
    (tmp_path / "alone.onnx").write_bytes((home / "pixels.onnx").read_bytes())
    monkeypatch.setattr("zoo.models.compose.import_factory", lambda *_: 1 / 0)
    with pytest.raises(RunError, match="cannot be built"):
        zoo.load(home / "run")
    assert_alike(zoo.predict(tmp_path / "alone.onnx", pictures()), wanted)


def test_a_file_of_integers_answers_nearly_as_its_run(home: Path, tmp_path: Path) -> None:
    zoo.export(home / "run", tmp_path / "int8.onnx", int8=True, calibration=64, tolerance_top1=1.0, check=False)
    found, wanted = zoo.predict(tmp_path / "int8.onnx", pictures()), zoo.predict(home / "run", pictures())
    near = [np.abs(one.probabilities - other.probabilities).max() for one, other in zip(found, wanted, strict=True)]
    assert 0 < max(near) < 0.05


def test_a_file_for_several_labels_gives_those_that_reach_their_thresholds(home: Path, tmp_path: Path) -> None:
    thresholds = [0.4 + 0.02 * number for number in range(10)]
    facts = {"zoo.thresholds": json.dumps(thresholds)}
    (found,) = zoo.predict(rewritten(home, tmp_path, lambda known: known.update(facts)), pictures(1))
    reached = {str(n) for n, (p, least) in enumerate(zip(found.probabilities, thresholds, strict=True)) if p >= least}
    assert 0 < len(reached) < 10
    assert found.labels is not None
    assert {one.name for one in found.labels} == reached


def test_a_file_cannot_be_explained(home: Path) -> None:
    pytest.importorskip("captum", reason="needs the extra explain: pip install -e '.[explain]'")
    with pytest.raises(InputError, match="an explanation needs the run"):
        zoo.explain(home / "pixels.onnx", pictures(1))


def rewritten(home: Path, tmp_path: Path, change: Any) -> Path:
    """A copy of a file with other facts in it."""
    model = onnx.load(str(home / "prepared.onnx"))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    change(facts)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, facts)
    path = tmp_path / "other.onnx"
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts.clear(), "was not written by zoo export"),
        (lambda facts: facts.pop("zoo.rule"), "was written by hybrid-zoo .*, an older one; export the run again"),
        (lambda facts: facts.update({"zoo.classes": "{"}), "is damaged .*; export the run again"),
        (lambda facts: facts.update({"zoo.rule": '{"resize": "x"}'}), "is damaged .*; export the run again"),
        (lambda facts: facts.update({"zoo.tta": "spin"}), "is damaged .*; export the run again"),
        (lambda facts: facts.update({"zoo.tta_margin": "a little"}), "is damaged .*; export the run again"),
        (lambda facts: facts.update({"zoo.thresholds": "["}), "is damaged .*; export the run again"),
        (lambda facts: facts.update({"zoo.temperature": "0"}), "is damaged .*; export the run again"),
    ],
)
def test_a_file_that_does_not_say_what_it_takes_is_refused(home: Path, tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        zoo.load(rewritten(home, tmp_path, change))


def test_what_needs_layers_or_another_device_is_refused(home: Path, tmp_path: Path) -> None:
    file = home / "pixels.onnx"
    (tmp_path / "broken.onnx").write_bytes(b"no protobuf")
    for call, words in (
        (lambda: zoo.export(file), "exported file, whose layers are not known; an export needs the run"),
        (lambda: zoo.export(zoo.load(file)), "an export needs the run"),
        (lambda: zoo.embed(file, pictures(), output=tmp_path / "x.npy"), "an embedding needs the run"),
        (lambda: zoo.embed(zoo.load(file), pictures(), output=tmp_path / "x.npy"), "an embedding needs the run"),
        (lambda: zoo.probe(file, on="digits"), "an embedding needs the run"),
        (lambda: zoo.load(file, device="cuda:0"), "cuda"),
        (lambda: zoo.load(file).to("meta"), "run by ONNX Runtime on the CPU, not on meta"),
        (lambda: zoo.load(file, revision="main"), "an exported file are loaded as they are, without `revision`"),
        (lambda: zoo.load(tmp_path / "broken.onnx"), "broken.onnx: ONNX Runtime cannot load it"),
        (lambda: zoo.evaluate(file), "no run: no images of its own are recorded"),
    ):
        with pytest.raises(zoo.ZooError, match=words):
            call()


def test_without_onnx_runtime_it_says_how_to_install_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="needs onnxruntime, which is not installed"):
        zoo.predict(home / "pixels.onnx", pictures(1))
