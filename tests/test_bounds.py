"""Bounds that hold before memory is taken, and small classes that no split takes away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo.catalogue.registry import load_registry
from zoo.data import decoding
from zoo.data.checks import check
from zoo.data.files.decode import Rule, image_array
from zoo.data.load import load
from zoo.data.sources.source import array_rows
from zoo.data.split import Split, limit, stratified, validation_split
from zoo.errors import DataError, InputError

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        ((1, 20_000), Rule(resize=256, crop=224)),
        ((20_000, 1), Rule(resize=256, crop=224)),
        ((1, 20_000), Rule(resize=256)),
        ((1, 20_000), Rule(size=(32, 4_000))),  # the result is small, what Pillow makes on the way is not
    ],
)
def test_an_image_that_grows_beyond_all_bounds_is_refused_before_it_is_scaled(
    tmp_path: Path, size: tuple[int, int], rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", size).save(tmp_path / "strip.png")
    monkeypatch.setattr(Image.Image, "resize", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(DataError, match=r"strip.png: refused: .* pixels on the way \(at most 64,000,000\)"):
        image_array(tmp_path / "strip.png", rule, "strip.png")


def test_a_long_image_within_the_bounds_is_scaled(tmp_path: Path) -> None:
    Image.new("L", (40, 4_000)).save(tmp_path / "long.png")
    assert image_array(tmp_path / "long.png", Rule(resize=256, crop=224), "long.png").shape == (3, 224, 224)


@pytest.mark.parametrize("options", ["", "?crop=9000"])
def test_a_size_of_too_many_pixels_is_refused(options: str) -> None:
    with pytest.raises(InputError, match="9000x9000 pixels are refused"):
        load(f"sklearn:digits{options}", image_size=None if options else 9_000)


def test_images_are_written_before_many_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "AT_ONCE", 5 * 3 * 20 * 20)
    done: list[int] = []
    data = load("sklearn:digits", image_size=20, show=lambda _, now, total: done.append(now))
    whole = np.diff([0, *done[: done.index(1437) + 1]])
    assert whole.max() == 5
    monkeypatch.undo()
    assert data.fingerprint == load("sklearn:digits", image_size=20).fingerprint


def test_an_image_of_another_size_is_refused_before_others_are_held(tmp_path: Path) -> None:
    for row in range(20):
        (tmp_path / "ab"[row % 2]).mkdir(exist_ok=True)
        Image.new("L", (8 + row // 10, 8)).save(tmp_path / "ab"[row % 2] / f"{row}.png")
    with pytest.raises(DataError, match="images differ in size"):
        load(f"folder:{tmp_path}")


def test_a_batch_that_cannot_fit_is_refused_before_an_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.runs.images import eval_batch
    from zoo.train.plan import resolve
    from zoo.train.run_options import Request

    monkeypatch.setattr("zoo.data.batches.mode.host_memory", lambda: 8 << 30)
    monkeypatch.setattr("zoo.train.plan.load", lambda *_, **__: pytest.fail("images were read"))
    with pytest.raises(InputError, match=r"pixels takes .* GB, .* smaller --image-size or --batch-size"):
        resolve(Request(model="cnn-baseline", dataset="digits", image_size=6_000, device="cpu"))
    split = ("accumulate=128",)  # one image at a time fits
    with pytest.raises(pytest.fail.Exception, match="images were read"):
        resolve(Request(model="cnn-baseline", dataset="digits", image_size=6_000, device="cpu", settings=split))

    def images(side: int) -> int:
        record: Any = SimpleNamespace(sizes=SimpleNamespace(height=side, width=side))
        return eval_batch(record)

    assert [images(side) for side in (8, 32, 64, 224, 1024, 6000)] == [512, 512, 128, 64, 64, 1]


@pytest.mark.parametrize("label", [2_000_000_000, 1_000_000, 2**62])
def test_a_wild_label_does_not_make_millions_of_classes(label: int) -> None:
    with pytest.raises(DataError, match=rf"wild, image 2: its label holds {label}; classes are numbered from 0"):
        array_rows(np.zeros((4, 8, 8), np.uint8), [0, 1, label, 1], "wild")


# ---- small classes ----------------------------------------------------------------------------


def sizes(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize("counts", [(*(1,) * 20, 40), (*(1,) * 190, *(2,) * 10), (*(1,) * 9, 2, 19)])
def test_no_class_loses_its_only_training_image_to_validation(counts: tuple[int, ...]) -> None:
    labels = sizes(*counts)
    train, validation = validation_split(labels, 0.1, 0)
    assert len(np.unique(labels[train])) == len(counts)
    assert len(validation) == min(round(len(labels) * 0.1), sum(counts) - len(counts))
    assert sorted([*train, *validation]) == list(range(len(labels)))


def test_the_split_of_a_set_without_a_class_in_danger_is_as_it_always_was() -> None:
    labels = RNG.permutation(sizes(50, 31, 12, 7))
    generator = np.random.default_rng(0)
    rows = [generator.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate((5, 3, 1, 1))]
    assert np.array_equal(validation_split(labels, 0.1, 0)[1], np.sort(np.concatenate(rows)))
    assert np.array_equal(stratified(labels, 10, 0), stratified(labels, 10, 0, leave=1, take=1))


@pytest.mark.parametrize(("counts", "said"), [((1,) * 20, "no class has two of the 20"), ((2, 2), "at least 6")])
def test_what_cannot_be_held_out_is_said(counts: tuple[int, ...], said: str) -> None:
    with pytest.raises(InputError, match=rf"{said}.*--protocol paper"):
        validation_split(sizes(*counts), 0.1, 0)


def test_a_limit_keeps_every_class_if_it_can() -> None:
    labels = sizes(900, 60, *(1,) * 40)
    split = Split(np.zeros((1000, 3, 2, 2), np.uint8), labels)
    kept = limit(split, 50).labels
    assert (len(kept), len(np.unique(kept))) == (50, 42)
    assert len(limit(split, 20)) == 20


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_a_folder_keeps_every_class_in_training_and_says_which_are_small(tmp_path: Path, mode: Any) -> None:
    from zoo.data.batches.mode import Delivery

    for name, count in {"a": 1, "b": 1, "c": 1, "d": 3}.items():
        (tmp_path / name).mkdir()
        for row in range(count):
            Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / name / f"{row}.png")
    data = load(f"folder:{tmp_path}", delivery=Delivery(mode, 0))
    assert np.bincount(data.train.labels).tolist() == [1, 1, 1, 2]
    assert "3 classes have a single training image" in {f.kind: f.message for f in check(data)}["single-image"]
    (tmp_path / "d" / "1.png").unlink()
    (tmp_path / "d" / "2.png").unlink()
    with pytest.raises(DataError, match="no class has two images"):
        load(f"folder:{tmp_path}", delivery=Delivery(mode, 0))


def test_a_run_says_which_classes_a_limit_leaves_out_and_which_validation_lacks() -> None:
    from zoo.data.checks import division_findings

    data = load("digits", load_registry())
    few = limit(data.train, 6)
    assert [f.kind for f in division_findings(data, few, 6)] == ["class-left-out"]
    assert division_findings(data, limit(data.train, 100), 100) == []
