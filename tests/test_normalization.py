"""Mean and std: named, ImageNet's, or measured on the training images; and all that reads them."""

from __future__ import annotations

import io
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server.runs import own_caches, untrained_run
from image_folders import write_images
from PIL import Image

import zoo
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import decode
from zoo.data import normalization
from zoo.data.batches.mode import Delivery
from zoo.data.load import load
from zoo.data.normalization import IMAGENET, looked_at, measured
from zoo.data.sources.source import silent
from zoo.data.split import ImageData
from zoo.errors import SpecError
from zoo.hub.pack import package
from zoo.hub.timm_layout import timm_layout
from zoo.runs.record import RunRecord, configuration, read_record
from zoo.train.plan import Plan, resolve
from zoo.train.pretrained import weights_of_run
from zoo.train.run_options import Request


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 training and 5 test images; the test images are white."""
    root = tmp_path_factory.mktemp("photos")
    write_images(root / "train", 2, 20)
    write_images(root / "test", 2, 5)
    for path in (root / "test").rglob("*.jpg"):
        Image.new("RGB", (12, 12), "white").save(path)
    return root


def read(root: Path, mode: str = "resident") -> ImageData:
    return load(f"folder:{root}", delivery=Delivery(mode, 0))  # type: ignore[arg-type]  # a word


def planned(spec: str, *settings: str, **asked: Any) -> Plan:
    return resolve(Request(model="cnn-baseline", dataset=spec, device="cpu", settings=settings, **asked))


def by_numpy(data: ImageData) -> tuple[list[float], list[float]]:
    pixels = data.train.images[:].astype(np.float64) / 255
    return pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist()


# ---- measuring --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_training_images_are_measured_and_test_images_are_not(mode: str, photos: Path) -> None:
    data = read(photos, mode)
    mean, std = by_numpy(data)
    made = measured(data, silent)
    assert made.mean == pytest.approx(mean, abs=1e-6)
    assert made.std == pytest.approx(std, abs=1e-6)
    assert made.measured_on == 40
    assert made.notes(40)[0].startswith(f"mean {mean[0]:.4f}, ")
    assert made.notes(40)[0].endswith("measured on 40 training images")


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_a_dataset_is_measured_once_until_an_image_changes(
    mode: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, 2, 20)
    first = measured(read(tmp_path, mode), silent)
    with monkeypatch.context() as patch:
        patch.setattr(normalization, "_chunks", lambda *_: pytest.fail("measured again"))
        assert measured(read(tmp_path, mode), silent) == first
    for path in tmp_path.rglob("*.jpg"):
        Image.new("RGB", (12, 12), "black").save(path)
        os.utime(path.parent)  # or else the kept list of files is trusted, and training says that they changed
    assert measured(read(tmp_path, mode), silent).mean == (0, 0, 0)


def test_shards_of_the_same_size_with_other_images_are_measured_again(tmp_path: Path) -> None:
    def mean_of(grey: int) -> tuple[float, ...]:
        file = io.BytesIO()
        Image.new("RGB", (12, 12), (grey, grey, grey)).save(file, "BMP")
        table = pa.table({"image": [{"bytes": file.getvalue(), "path": None}] * 20, "label": [0, 1] * 10})
        pq.write_table(table, tmp_path / "train.parquet", compression="none", use_dictionary=False)
        return measured(load(f"parquet:{tmp_path}?stream"), silent).mean

    assert [mean_of(0)[0], mean_of(51)[0]] == [0, 0.2]


def test_of_many_images_evenly_spaced_ones_are_measured() -> None:
    assert looked_at(60_000, 3 * 32 * 32).tolist() == list(range(60_000))
    rows = looked_at(1_281_167, 3 * 224 * 224)
    assert (len(rows), rows[0]) == (1_783, 0)
    assert set(np.diff(rows)) == {718, 719}
    assert rows[-1] > 1_281_167 - 720
    assert len(looked_at(5_000, 3 * 4096 * 4096)) == 1_024
    assert looked_at(7, 3 * 4096 * 4096).tolist() == list(range(7))


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_a_sample_is_the_same_by_both_deliveries_and_said(
    mode: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalization, "VALUES", 3 * 12 * 12 * 8)
    monkeypatch.setattr(normalization, "FEWEST", 1)
    data = read(photos, mode)
    made = measured(data, silent)
    pixels = data.train.images[np.arange(0, 40, 5)].astype(np.float64) / 255
    assert made.measured_on == 8
    assert made.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert made.notes(40)[0].endswith("measured on 8 of 40 training images, evenly spaced")


def test_a_channel_without_contrast_is_not_scaled(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        for row in range(5):
            Image.fromarray(np.full((4, 4, 3), (row * 20, 7, 0), np.uint8)).save(tmp_path / place / f"{row}.png")
    made = measured(read(tmp_path), silent)
    assert made.std[1:] == (1, 1)
    assert 0 < made.std[0] < 1


@pytest.mark.slow
def test_cifar_10_has_the_numbers_that_everybody_names(cifar10_parquet: Path) -> None:
    made = measured(load(f"parquet:{cifar10_parquet}"), silent)
    named = load_registry().dataset("cifar10")
    assert [round(value, 4) for value in made.mean] == list(named.mean)
    assert made.std == pytest.approx(named.std, abs=6e-4)


# ---- what a run normalises by -----------------------------------------------------------------------


def test_a_run_measures_what_its_dataset_does_not_name(photos: Path) -> None:
    plan = planned(f"folder:{photos}", image_size=32)
    data = plan.record.data
    made = measured(load(f"folder:{photos}", image_size=32), silent)
    assert (data.mean, data.std) == (made.mean, made.std)
    assert data.measured_on == 40
    assert any("measured on 40 training images" in note for note in plan.notes)
    limited = planned(f"folder:{photos}", image_size=32, limit_train=20).record.data
    assert (limited.mean, limited.measured_on) == (data.mean, 40)  # the dataset's, however many of it are used


def test_named_numbers_are_kept(photos: Path) -> None:
    digits = load_registry().dataset("digits")
    data = planned("digits").record.data
    assert (data.mean, data.std, data.measured_on) == (digits.mean, digits.std, msgspec.UNSET)


@pytest.mark.parametrize(
    ("word", "recorded", "mean"),
    [("imagenet", "imagenet", IMAGENET[0]), ("none", False, (0, 0, 0)), ("false", False, (0, 0, 0))],
)
def test_the_recipe_may_take_imagenets_or_none(word: str, recorded: object, mean: object, photos: Path) -> None:
    record = planned(f"folder:{photos}", f"normalize={word}", image_size=32).record
    assert (record.settings.normalize, record.data.mean) == (recorded, mean)
    assert record.data.measured_on is msgspec.UNSET


def test_a_recipe_takes_the_words_and_what_they_were_before() -> None:
    pairs = {"dataset": True, "none": False, "imagenet": "imagenet", True: True, False: False}
    assert {word: decode(Recipe, {"normalize": word}, "x").normalize for word in pairs} == pairs
    assert msgspec.structs.replace(Recipe(), normalize="none").normalize is False
    with pytest.raises(SpecError, match="normalize"):
        decode(Recipe, {"normalize": "cifar10"}, "x")


OLD = """
format = 1
model = "m"
recipe = "r"
protocol = "clean"
seed = 3
device = "cpu"
precision = "fp32"
build = { use = "cnn.baseline" }
sizes = { in_channels = 3, height = 32, width = 32, num_classes = 2 }

[settings]
normalize = true

[data]
spec = "folder:x"
fingerprint = "f"
classes = ["a", "b"]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
train = 9
validation = 1
test = 2
"""


def test_the_configuration_of_an_old_run_is_what_it_was() -> None:
    record = decode(RunRecord, tomllib.loads(OLD), "x")
    again = decode(RunRecord, tomllib.loads(OLD.replace("= true", '= "dataset"')), "x")
    plain = decode(RunRecord, tomllib.loads(OLD.replace("= true", "= false")), "x")
    assert configuration(record) == configuration(again)
    assert configuration(record) != configuration(plain)
    text = msgspec.json.encode(record).decode()
    assert '"normalize":true' in text
    assert not any(f'"{new}"' in text for new in ("measured_on", "black", "background"))


# ---- who reads it -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained runs on digits by each word."""
    base = tmp_path_factory.mktemp("normalized")
    few = {"limit_train": 64, "limit_test": 20}
    with own_caches(base):
        for word in ("imagenet", "none"):
            untrained_run(base / word, "timm/resnet10t", size=32, settings=(f"normalize={word}",), **few)
    return base


@pytest.mark.parametrize("word", ["imagenet", "none"])
def test_prediction_package_timm_and_fine_tuning_follow_the_recipe(word: str, runs: Path, tmp_path: Path) -> None:
    named = IMAGENET if word == "imagenet" else ((0.0,) * 3, (1.0,) * 3)
    model, record = zoo.load(runs / word), read_record(runs / word)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    mean, std = (np.array(values)[:, None, None] for values in named)
    given = model.read(pixels)[0].numpy()
    assert np.abs(given - (pixels.transpose(2, 0, 1) / 255 - mean) / std).max() < 1e-5
    packed = package(runs / word, tmp_path / "package").folder
    config = json.loads((packed / "config.json").read_text())
    assert (config["zoo"]["normalize"], tuple(config["zoo"]["mean"])) == (word == "imagenet", named[0])
    unread: Any = None
    layout = timm_layout(record, unread, load_registry())["pretrained_cfg"]
    assert (tuple(layout["mean"]), tuple(layout["std"])) == named
    assert ("not normalised" in (packed / "README.md").read_text()) == (word == "none")
    beginning = weights_of_run(str(runs / word), load_registry()).beginning
    assert beginning.normalize == record.settings.normalize
    assert beginning.mean == record.data.mean


def test_new_weights_say_what_they_will_be_given() -> None:
    registry = load_registry()
    model = registry.model("cnn-baseline")
    recipe = msgspec.structs.replace(registry.recipes[model.recipe], normalize="imagenet")
    from zoo.evaluate.classifier import untrained_classifier

    changed = msgspec.structs.replace(registry, recipes={**registry.recipes, model.recipe: recipe})
    assert untrained_classifier(changed, "cnn-baseline", model).preprocessing.mean == IMAGENET[0]
