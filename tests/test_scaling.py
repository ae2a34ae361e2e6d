"""How images are brought to their size is recorded with a run, and more images are brought to it in the same way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hub_server.runs import own_caches, untrained_run
from PIL import Image

import zoo
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import Dataset
from zoo.data.batches.mode import Delivery
from zoo.data.files.decode import image_array, make_rule, transform_rule
from zoo.data.load import load
from zoo.plugin.contract import Transform
from zoo.runs.images import dataset_rule, rule_of, scaling_of, split_of
from zoo.runs.record import WEIGHTS, configuration, read_record, write_record
from zoo.runs.validation_images import validation_images
from zoo.train.plan import resolve
from zoo.train.pretrained import weights_of_run
from zoo.train.run_options import Request
from zoo.train.sized import sized
from zoo.train.start import plan_of


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Noise of 16x16 pixels in class folders, so that no two ways of scaling it look alike."""
    base, draw = tmp_path_factory.mktemp("scaling"), np.random.default_rng(0)
    for number in range(24):
        path = base / "photos" / ("train", "test")[number % 2] / "ab"[number // 2 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    with own_caches(base):
        yield base / "photos"


@pytest.mark.parametrize("side", [None, 6, 8])
@pytest.mark.parametrize("options", ["", "?crop=8", "?resize=10&crop=8", "?resize=10"])
def test_another_image_is_brought_to_the_size_as_those_of_the_dataset_were(
    photos: Path, options: str, side: int | None
) -> None:
    spec, registry = f"folder:{photos}{options}", load_registry()
    data = load(spec, registry, image_size=side)
    recorded = transform_rule(scaling_of(data))
    size = data.test.images.shape[2:]
    assert dataset_rule(spec, registry, size, side) == recorded
    for place, pixels in zip(data.test.origins(), data.test.images, strict=True):
        assert np.array_equal(image_array(Path(place), recorded, place), pixels)


def test_a_cut_is_the_same_in_training_in_prediction_and_in_evaluation(photos: Path, tmp_path: Path) -> None:
    spec = f"folder:{photos}?crop=8"
    run = untrained_run(tmp_path / "run", "cnn-baseline", spec)
    assert read_record(run).data.scaling == Transform(size=(8, 8), scaled=False)
    own, other = zoo.evaluate(run), zoo.evaluate(run, on=spec)
    assert (other.loss, other.correct) == (pytest.approx(own.loss), own.correct)
    Image.new("RGB", (7, 20)).save(tmp_path / "small.png")
    with pytest.raises(zoo.ZooError, match=r"small\.png.*7x20 is smaller than the crop of 8"):
        zoo.load(run).predict(tmp_path / "small.png")


def test_the_rule_of_a_catalogue_that_is_not_at_hand_is_the_runs(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    entry = f'[datasets.mine]\nsummary = "mine"\nsource = "folder:{photos}"\noptions = {{ resize = 12, crop = 8 }}\n'
    (here / "registry.toml").write_text(entry)
    monkeypatch.chdir(here)
    run = untrained_run(tmp_path / "run", "cnn-baseline", "mine")
    rule = zoo.load(run).preprocessing.rule
    assert (rule.resize, rule.crop) == (12, 8)
    monkeypatch.chdir(elsewhere)
    assert zoo.load(run).preprocessing.rule == rule


def test_a_run_of_an_earlier_version_is_the_same_run(photos: Path) -> None:
    record = resolve(Request(model="cnn-baseline", dataset=f"folder:{photos}?crop=8", device="cpu")).record
    earlier = msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, scaling=msgspec.UNSET))
    assert configuration(earlier) == configuration(record)


def test_validation_images_of_an_earlier_run_are_read_as_they_were(photos: Path, tmp_path: Path) -> None:
    """A cut scaled them to its size first."""
    spec, registry = f"folder:{photos}?crop=8", load_registry()
    run = untrained_run(tmp_path / "run", "cnn-baseline", spec, validation=f"folder:{photos / 'test'}")
    record, how = read_record(run), {"delivery": Delivery("resident", None, "cpu"), "several": False}
    rule = make_rule(None, (8, 8), None, 8)
    found = validation_images(record.data.validation_from, registry, (8, 8), rule, ("a", "b"), data_dir=None, **how)
    assert found.fingerprint != record.data.validation_fingerprint
    data = msgspec.structs.replace(record.data, scaling=msgspec.UNSET, validation_fingerprint=found.fingerprint)
    assert len(split_of(msgspec.structs.replace(record, data=data), "val", registry)) == 12
    assert len(split_of(record, "val", registry)) == 12


def test_a_run_of_an_earlier_version_asks_its_dataset(photos: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", "cnn-baseline", f"folder:{photos}?crop=12", 8)
    record = read_record(run)
    rule = rule_of(record, load_registry())
    assert (rule.resize, rule.crop) == (8, 8)
    write_record(run, msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, scaling=msgspec.UNSET)))
    assert read_record(run).data.scaling is msgspec.UNSET
    assert rule_of(read_record(run), load_registry()) == rule


CUT = Transform(size=(8, 8), resize=12)


@pytest.mark.parametrize(
    ("options", "side", "expected", "said"),
    [
        ("", None, CUT, "the shorter side is scaled to 12 pixels, then the centre of 8x8 is cut out"),
        ("", 16, CUT.at(16), "the shorter side is scaled to 24 pixels, then the centre of 16x16 is cut out"),
        ("?resize=9&crop=8", None, None, ""),
    ],
)
def test_weights_of_a_run_say_how_images_are_cut_where_the_dataset_does_not(
    photos: Path, tmp_path: Path, options: str, side: int | None, expected: Transform | None, said: str
) -> None:
    run = untrained_run(tmp_path / "run", "cnn-baseline", f"folder:{photos}?resize=12&crop=8")
    assert read_record(run).data.scaling == CUT
    spec = f"folder:{photos}{options}"
    request = Request(model="cnn-baseline", dataset=spec, weights=str(run), image_size=side, device="cpu")
    plan = plan_of(request)
    assert plan.record.data.transform == expected
    assert any(said in line for line in plan.messages) == bool(said)
    rule = rule_of(plan.record, load_registry())
    for place, pixels in zip(plan.test.origins(), plan.test.images, strict=True):
        assert np.array_equal(image_array(Path(place), rule, place), pixels)


def test_a_cut_that_was_taken_over_is_no_more_binding_than_in_the_run_that_it_is_of(
    photos: Path, tmp_path: Path
) -> None:
    """What a run took over from the first one's dataset is not taken for what weights of a library expect."""
    run, child = (tmp_path / name for name in ("run", "child"))
    untrained_run(run, "cnn-baseline", f"folder:{photos}?resize=12&crop=8")
    plan = plan_of(Request(model="cnn-baseline", dataset=f"folder:{photos}", weights=str(run), device="cpu"))
    write_record(child, plan.record)
    shutil.copy(run / WEIGHTS, child)
    for options, expected in (("", CUT), ("?resize=9&crop=8", None)):
        beginning = weights_of_run(str(child), load_registry()).beginning
        assert sized(beginning, f"folder:{photos}{options}", load_registry(), None)[0] == expected


def test_a_dataset_of_the_catalogue_whose_images_are_scaled_as_a_whole_is_not_cut(photos: Path, tmp_path: Path) -> None:
    """`resize = true` says how they are brought to their size, as `?resize=` does."""
    run = untrained_run(tmp_path / "run", "cnn-baseline", f"folder:{photos}?resize=12&crop=8")
    registry, table = load_registry(), {"summary": "x", "source": f"folder:{photos}", "size": (12, 12)}
    for whole, expected in ((True, None), (False, CUT)):
        named = {**registry.datasets, "mine": Dataset(**table, resize=whole)}
        known = msgspec.structs.replace(registry, datasets=named)
        found, lines = sized(weights_of_run(str(run), known).beginning, "mine", known, None)
        assert (found, bool(lines)) == (expected, not whole)


def test_a_cut_that_the_weights_replace_is_said(photos: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", "cnn-baseline", f"folder:{photos}?resize=12&crop=8")
    record = read_record(run)
    data = msgspec.structs.replace(record.data, transform=CUT, scaling=msgspec.UNSET)  # as of weights of a library
    write_record(run, msgspec.structs.replace(record, data=data))
    spec = f"folder:{photos}?resize=16&crop=10"
    plan = plan_of(Request(model="cnn-baseline", dataset=spec, weights=str(run), device="cpu"))
    assert plan.record.data.transform == CUT
    (line,) = [line for line in plan.messages if "passed over" in line]
    assert line.startswith(f"{spec}: resize=16 and crop=10 are passed over, as the weights say how images are prepared")
