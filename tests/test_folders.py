"""Folders as people have them: which folders are the splits, which are classes, and what is not read."""

from __future__ import annotations

import io
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from zoo.cli.datasets import datasets
from zoo.data.batches.mode import Delivery
from zoo.data.checks import check
from zoo.data.load import load
from zoo.data.split import ImageData
from zoo.errors import DataError

RNG = np.random.default_rng(5)
MODES = pytest.mark.parametrize("mode", ["resident", "stream"])


def images(folder: Path, count: int, ending: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(count):
        array = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{row:03d}.png")
        (folder / f"{row:03d}.png").rename(folder / f"{row:03d}.{ending}")


def splits(root: Path, train: str, test: str, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    for name in classes:
        images(root / train / name, 4)
        images(root / test / name, 2)
    return root


def read(root: Path, mode: str = "resident") -> ImageData:
    return load(f"folder:{root}", delivery=Delivery(mode, 0))  # type: ignore[arg-type]


def kinds(data: ImageData) -> dict[str, str]:
    return {finding.kind: finding.line() for finding in check(data)}


@MODES
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAINING", "testing"),
        ("train", "tests"),
        ("training_set", "test_set"),
        ("TrainImages", "TestImages"),
        ("trainset", "testset"),
        ("seg_train", "seg_test"),
        ("train2017", "test2017"),
        ("01_train", "02_test"),
        ("archive/birds/train", "archive/birds/test"),
        ("train-images", "test"),
        ("data/train", "data/test"),
        ("birds-v2/Training", "birds-v2/Holdout"),
    ],
)
def test_folders_of_splits_are_known_by_any_usual_name_and_one_level_down(
    tmp_path: Path, mode: str, train: str, test: str
) -> None:
    data = read(splits(tmp_path, train, test), mode)
    assert (data.classes, len(data.train), len(data.test)) == (("ant", "bee"), 8, 4)
    assert f"training images are read from {train}/, test images from {test}/" in kinds(data)["split-folders"]


@MODES
@pytest.mark.parametrize(
    ("train", "validation"),
    [("training", "validation"), ("train", "dev"), ("train2017", "val2017"), ("birds-v2/Training", "birds-v2/Valid")],
)
def test_a_folder_of_validation_images_is_known_by_any_usual_name(
    tmp_path: Path, mode: str, train: str, validation: str
) -> None:
    data = read(splits(tmp_path, train, validation), mode)
    assert (data.classes, len(data.train), len(data.test)) == (("ant", "bee"), 10, 2)  # test: 2 of 8 drawn
    found = kinds(data)
    assert "nested-class" not in found
    if train != "train":
        said = f"training images are read from {train}/, validation images from {validation}/"
        assert said in found["split-folders"]


def test_a_folder_of_annotations_beside_the_images_is_no_second_set(tmp_path: Path) -> None:
    splits(tmp_path, "images/train", "images/test")
    for split in ("train", "test"):
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "000.txt").write_text("0 0.5 0.5 1 1")
    assert read(tmp_path).classes == ("ant", "bee")


def test_the_plain_names_are_read_without_a_word(tmp_path: Path) -> None:
    assert kinds(read(splits(tmp_path, "train", "test"))) == {}


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train/ant", "train/bee"), "has train/ but neither test/ nor val/"),
        (("Training/ant", "Training/bee", "prüfung/ant", "prüfung/bee"), "has Training/ but neither test/ nor val/"),
        (("test/ant", "test/bee", "lernen/ant", "lernen/bee"), "has test/ but no train/"),
        (("my_train/ant", "my_train/bee", "final_test/ant", "final_test/bee"), "is named otherwise"),
        (("Train/ant", "train/ant", "test/ant"), "which one is meant"),
        (("ant/train", "ant/test", "bee/train", "bee/test"), "2 folders hold training and test folders"),
        (("data/train/ant", "data/test/ant", "more/ant"), "more/ beside it holds images too"),
        (("a_train/ant", "a_test/ant", "b_train/ant", "b_test/ant"), "several pairs of splits"),
        (("train", "test"), "train holds no class folders"),
    ],
)
def test_what_the_names_leave_open_is_refused(tmp_path: Path, folders: tuple[str, ...], said: str) -> None:
    for folder in folders:
        images(tmp_path / folder, 2)
    with pytest.raises(DataError, match=said):
        read(tmp_path)


@pytest.mark.parametrize(
    "classes", [("bus", "car", "train"), ("invalid", "valid"), ("testing shoe", "training shoe"), ("dev", "ops")]
)
def test_a_class_that_is_named_as_a_split_is_a_class(tmp_path: Path, classes: tuple[str, ...]) -> None:
    for name in classes:
        images(tmp_path / name, 5)
    assert read(tmp_path).classes == classes


def test_one_class_is_warned_of_in_a_check_and_refused_in_training(tmp_path: Path) -> None:
    from zoo.train.plan import resolve
    from zoo.train.run_options import Request

    images(tmp_path / "images", 10)
    assert "one class only" in kinds(read(tmp_path))["one-class"]
    with pytest.raises(DataError, match="has one class, 'images': training needs two or more"):
        resolve(Request(model="cnn-baseline", dataset=f"folder:{tmp_path}", device="cpu"))


def test_what_is_said_of_a_folder_reaches_who_trains(tmp_path: Path) -> None:
    from zoo.train.plan import resolve
    from zoo.train.run_options import Request

    splits(tmp_path, "train", "test")
    images(tmp_path / "more" / "ant", 1)
    plan = resolve(Request(model="cnn-baseline", dataset=f"folder:{tmp_path}", image_size=32, device="cpu"))
    assert [(finding.kind, finding.examples) for finding in plan.findings] == [
        ("unread-folder", ("more/",)),
        ("unvalidated-class", ("bee",)),
    ]


def test_a_path_may_look_as_if_it_had_options(tmp_path: Path) -> None:
    root = splits(tmp_path / "photos?resize=4", "train", "test")
    assert read(root).dataset.size == (8, 8)
    assert load(f"folder:{root}?resize=5").dataset.size == (5, 5)


@MODES
def test_folders_and_files_that_are_not_read_are_counted_and_named(tmp_path: Path, mode: str) -> None:
    splits(tmp_path, "train", "test")
    images(tmp_path / "more" / "ant", 2)
    images(tmp_path / "cow", 2)
    images(tmp_path, 3)
    images(tmp_path / "train" / "ant" / "more", 3, "dng")
    images(tmp_path / "train" / "bee" / "@eaDir", 3)
    images(tmp_path / "train" / "__MACOSX" / "ant", 3)
    for again in range(2):  # the second time from the kept index
        for folder in [tmp_path, *(p for p in tmp_path.rglob("*") if p.is_dir())]:
            os.utime(folder, (1e9, 1e9))
        data = read(tmp_path, mode)
        found = kinds(data)
        assert (data.classes, len(data.train), data.ignored) == (("ant", "bee"), 8, 3), again
        assert "3 files" in found["ignored"]
        assert "3 .dng" in found["ignored"]
        assert "cow/, more/" in found["unread-folder"]
        assert "3 images beside" in found["loose-image"]


def test_categories_above_the_classes_and_names_that_look_alike_are_said(tmp_path: Path) -> None:
    for name in ("cars/vw", "Animals/cat", "animals/dog", "plain"):
        images(tmp_path / name, 5)
    found = kinds(read(tmp_path))
    assert "3 classes hold their images in folders below" in found["nested-class"]
    assert "animals: dog" in found["nested-class"]
    assert "'Animals' and 'animals'" in found["similar-classes"]


@MODES
def test_composed_and_decomposed_names_are_one_name(tmp_path: Path, mode: str) -> None:
    names = ("café", "cafz", "zebra")  # decomposed, "café" sorts before "cafz", composed after it
    for name in names:
        images(tmp_path / "train" / unicodedata.normalize("NFC", name), 4)
        images(tmp_path / "test" / unicodedata.normalize("NFD", name), 1 + names.index(name))
    data = read(tmp_path, mode)
    assert data.classes == ("cafz", "café", "zebra")
    assert np.bincount(data.test.labels).tolist() == [2, 1, 3]
    images(tmp_path / "train" / unicodedata.normalize("NFD", "café"), 4)
    with pytest.raises(DataError, match="two class folders named 'café'"):
        read(tmp_path, mode)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "plain", 4)
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    with pytest.raises(DataError, match=r"caf\\xe9.* is not UTF-8"):
        read(tmp_path)


def test_a_check_prints_what_it_found(tmp_path: Path) -> None:
    splits(tmp_path, "data/Train", "data/Test")
    result = CliRunner().invoke(datasets, ["check", f"folder:{tmp_path}", "--json"])
    assert result.exit_code == 0
    assert [finding["kind"] for finding in json.loads(result.stdout)["findings"]] == ["split-folders"]


def test_images_that_repeat_are_found_within_the_test_split_and_with_other_labels(tmp_path: Path) -> None:
    splits(tmp_path, "train", "test")
    bee = (tmp_path / "train" / "bee" / "000.png").read_bytes()
    for name in ("000.png", "001.png"):
        (tmp_path / "test" / "ant" / name).write_bytes(bee)
    found = {finding.kind: finding for finding in check(read(tmp_path))}
    assert set(found) == {"train-test-duplicate", "test-duplicate", "train-test-conflict"}
    assert found["test-duplicate"].count == 1
    assert found["train-test-conflict"].examples == ("test 0 = train 4", "test 1 = train 4")


def test_a_prediction_for_a_folder_leaves_out_what_training_leaves_out(tmp_path: Path) -> None:
    from zoo.predict.inputs import Given, given_images

    images(tmp_path / "photos", 2)
    images(tmp_path / "photos" / "@eaDir" / "000.png", 1)
    images(tmp_path / "__MACOSX", 1)
    found = [Path(one.name).name for one in given_images([str(tmp_path)], io.BytesIO()) if isinstance(one, Given)]
    assert found == ["000.png", "001.png"]
