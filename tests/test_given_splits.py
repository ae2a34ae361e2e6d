"""The user's own splits: given validation images select, given test images are read once, what is missing is drawn."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from test_folders import MODES, images, kinds
from test_parquet import write

from zoo.data.api import check_dataset
from zoo.data.batches.mode import Delivery
from zoo.data.checks import check
from zoo.data.load import load
from zoo.data.split import ImageData, is_given
from zoo.errors import DataError, InputError
from zoo.runs.images import RunImages
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request


def tree(root: Path, **folders: tuple[str, ...] | list[str]) -> Path:
    """A folder for each split with the named classes: 10 training images of each, 3 of other splits."""
    for split, classes in folders.items():
        for name in classes:
            images(root / split / name, 10 if split.lower().startswith("train") else 3)
    return root


def read(spec: str | Path, mode: str = "resident", **more: Any) -> ImageData:
    spec = f"folder:{spec}" if isinstance(spec, Path) else spec
    return load(spec, delivery=Delivery(mode, 0), **more)  # type: ignore[arg-type]


def plan(spec: str | Path, **more: Any) -> Plan:
    spec = f"folder:{spec}" if isinstance(spec, Path) else spec
    return resolve(Request(model="cnn-baseline", **{"dataset": spec, "image_size": 32, "device": "cpu"} | more))


def files(data: Any) -> set[str]:
    return {"/".join(Path(name).parts[-3:]) for name in data.origins()}


@MODES
@pytest.mark.parametrize("word", ["val", "valid", "validation", "dev", "VAL", "Validation"])
def test_a_given_validation_folder_selects_and_a_given_test_is_the_test(tmp_path: Path, mode: str, word: str) -> None:
    data = read(tree(tmp_path, Train=["ant", "bee"], TEST=["ant", "bee"], **{word: ["ant", "bee"]}), mode)
    divided = RunImages(data, 0.1)
    train, selecting, test = divided.divided()
    assert [len(part) for part in (train, selecting, test)] == [20, 6, 6]
    assert {name.split("/")[0] for name in files(train)} == {"Train"}
    assert {name.split("/")[0] for name in files(selecting)} == {word}
    assert {name.split("/")[0] for name in files(test)} == {"TEST"}
    assert data.splits_from == (word, "TEST")
    for part in (train, selecting):
        for row, name in enumerate(part.origins()):
            assert Path(name).parent.name == data.classes[part.labels[row]]
            np.testing.assert_array_equal(part.images[row], np.asarray(Image.open(name)).transpose(2, 0, 1))


@MODES
def test_a_missing_test_is_drawn_from_the_training_images_alone(tmp_path: Path, mode: str) -> None:
    data = read(tree(tmp_path, train=["ant", "bee"], val=["ant", "bee"]), mode)
    train, selecting, test = RunImages(data, 0.1).divided()
    assert [len(part) for part in (train, selecting, test)] == [16, 6, 4]
    assert not is_given(data.test).any()
    assert {name.split("/")[0] for name in files(test) | files(train)} == {"train"}
    assert not files(test) & files(train)
    assert data.splits_from == ("val", "carved")


def test_both_ways_of_delivery_give_the_same_rows(tmp_path: Path) -> None:
    tree(tmp_path, train=["ant", "bee"], valid=["bee", "cow"], test=["ant"])
    for option in ("", "?drop-unknown"):
        one, other = (read(f"folder:{tmp_path}{option}", mode) for mode in ("resident", "stream"))
        for side in ("train", "test"):
            first, second = getattr(one, side), getattr(other, side)
            assert first.origins() == second.origins()
            np.testing.assert_array_equal(first.labels, second.labels)
            np.testing.assert_array_equal(is_given(first), is_given(second))
        assert one.classes == other.classes


def test_a_folder_is_read_as_before_for_a_run_of_before(tmp_path: Path) -> None:
    tree(tmp_path, train=["ant", "bee"], val=["ant", "bee"])
    before = read(tmp_path, earlier=True)
    assert (len(before.train), len(before.test)) == (20, 6)
    tree(tmp_path, test=["ant", "bee"])
    before = read(tmp_path, earlier=True)
    assert {name.split("/")[0] for name in files(before.test)} == {"test"}
    assert not is_given(before.train).any()


# ---- classes that do not match ------------------------------------------------------------------------


@MODES
def test_a_class_without_test_or_validation_images_is_a_warning(tmp_path: Path, mode: str) -> None:
    tree(tmp_path, train=["ant", "bee", "cow"], val=["ant", "bee"], test=["ant"])
    (tmp_path / "test" / "bee").mkdir()  # an empty folder says no more than none
    found = kinds(read(tmp_path, mode))
    assert found["empty-class"] == "2 classes have no test image, of 3 (bee, cow)"
    said = [finding.line() for finding in plan(tmp_path, data_mode=mode).findings]
    assert said[:2] == ["1 class has no validation image, of 3 (cow)", "2 classes have no test image, of 3 (bee, cow)"]


@MODES
def test_a_class_that_train_lacks_is_refused_unless_it_is_dropped(tmp_path: Path, mode: str) -> None:
    tree(tmp_path, train=["ant", "cow"], val=["ant", "bee"], test=["bee", "cow", "dog"])
    with pytest.raises(DataError) as caught:
        plan(tmp_path, data_mode=mode)
    assert str(caught.value).endswith(
        "class 'bee' has no training images (2 of 4 classes are empty); 3 validation images and 6 test images are of "
        "such a class: add training images, or leave them out by ?drop-unknown"
    )
    made = plan(f"folder:{tmp_path}?drop-unknown", data_mode=mode)
    assert made.record.data.classes == ("ant", "cow")
    assert [len(split) for split in (made.train, made.selecting, made.test)] == [20, 3, 3]
    assert {name.split("/")[1] for name in files(made.test)} == {"cow"}
    assert made.test.labels.tolist() == [1, 1, 1]
    said = [finding.line() for finding in made.findings]
    assert "9 images of 2 classes without training images left out (?drop-unknown) (bee, dog)" in said
    again = plan(f"folder:{tmp_path}?drop_unknown=yes", data_mode=mode)  # from the cache
    assert "9 images of 2" in " ".join(finding.line() for finding in again.findings)


def test_a_check_counts_validation_images_and_reports_classes_without_stopping(tmp_path: Path) -> None:
    tree(tmp_path, train=["ant", "cow"], val=["ant", "bee"], test=["cow"])
    found = check_dataset(f"folder:{tmp_path}")
    assert (found.train, found.validation, found.test, found.usable) == ((10, 10, 0), (3, 0, 3), (0, 3, 0), False)
    assert found.lines()[0].startswith(f"{tmp_path.name.lower()}: 20 train, 6 validation and 3 test images, 8x8")
    assert "no train image, of 3; 3 validation images are of such a class" in found.lines()[3]


def test_nothing_is_dropped_where_all_classes_match(tmp_path: Path) -> None:
    tree(tmp_path, train=["ant", "bee"], test=["ant", "bee"])
    data = read(f"folder:{tmp_path}?drop-unknown")
    assert (len(data.train), len(data.test), data.findings) == (20, 6, ())


def test_a_test_folder_alone_can_be_evaluated(tmp_path: Path) -> None:
    tree(tmp_path, Test=["ant", "bee"])
    data = read(tmp_path, whole=True)
    assert (data.classes, len(data.test)) == (("ant", "bee"), 6)
    with pytest.raises(DataError, match="has Test/ but no train/"):
        read(tmp_path)
    tree(tmp_path, val=["ant", "bee"])
    assert {name.split("/")[0] for name in files(read(tmp_path, whole=True).test)} == {"Test"}


# ---- parquet ------------------------------------------------------------------------------------------


def test_a_validation_split_of_parquet_files_selects(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1] * 10, ["a", "b"])
    write(tmp_path / "validation.parquet", [1, 0, 1], ["b", "a"])  # numbered otherwise
    data = read(f"parquet:{tmp_path}")
    train, selecting, test = RunImages(data, 0.1).divided()
    assert [len(part) for part in (train, selecting, test)] == [16, 3, 4]
    assert selecting.labels.tolist() == [0, 1, 0]
    assert [Path(name).name for name in selecting.origins()] == [f"validation.parquet row {i}" for i in range(3)]
    assert data.splits_from == ("validation", "carved")
    write(tmp_path / "test.parquet", [0, 1], ["a", "b"])
    data = read(f"parquet:{tmp_path}")
    assert [len(part) for part in RunImages(data, 0.1).divided()] == [20, 3, 2]
    assert read(f"parquet:{tmp_path}").splits_from == ("validation", "test")  # from the cache


def test_a_column_says_which_row_is_of_which_split(tmp_path: Path) -> None:
    parts = ["train"] * 10 + ["VAL", "Test", "train", "val", "Testing", "train"]
    write(tmp_path / "all.parquet", pa.array(["ant", "bee"] * 8), part=parts)
    spec = f"parquet:{tmp_path / 'all.parquet'}?split-column=part"
    data = read(spec)
    rows = [[int(name.rpartition(" ")[2]) for name in part.origins()] for part in RunImages(data, 0.1).divided()]
    assert rows == [[*range(10), 12, 15], [10, 13], [11, 14]]
    assert data.splits_from == ("column 'part'", "column 'part'")
    whole = read(spec, whole=True)
    assert (len(whole.train), len(whole.test)) == (12, 2)
    with pytest.raises(InputError, match=r"no column 'side' \(\?split-column=side\); columns: image, label, part"):
        read(spec.replace("part", "side"))
    write(tmp_path / "all.parquet", [0, 1], part=["train", "perhaps"])
    with pytest.raises(DataError, match=r"row 1: column 'part' holds 'perhaps', which is no split; needed: train"):
        read(spec)
    write(tmp_path / "all.parquet", [0, 1], part=["test", "test"])
    with pytest.raises(DataError, match="no row of column 'part' is of the training split"):
        read(spec)


def test_groups_of_a_column_are_not_torn(tmp_path: Path) -> None:
    patients = np.repeat([f"patient {i}" for i in range(20)], 4).tolist()
    write(tmp_path / "all.parquet", [0, 1] * 40, patient=[*patients[:-2], None, None])
    data = read(f"parquet:{tmp_path}?group=patient")
    train, selecting, test = RunImages(data, 0.1).divided()
    sides = [{patients[int(name.rpartition(" ")[2])] for name in part.origins()} for part in (train, selecting, test)]
    assert len(test) == 16
    assert len(selecting) in (4, 6, 8)
    shared = {frozenset(one & other) for one, other in combinations(sides, 2)}
    assert shared <= {frozenset(), frozenset({"patient 19"})}  # of which two rows name no patient


@MODES
def test_equal_images_of_given_splits_are_named_by_their_own_split(tmp_path: Path, mode: str) -> None:
    tree(tmp_path, train=["ant", "bee"], val=["ant", "bee"], test=["ant", "bee"])
    pairs = {"val/ant/000.png": "train/ant/000.png", "test/ant/000.png": "val/ant/001.png"}
    pairs |= {"test/bee/000.png": "train/bee/000.png", "train/ant/001.png": "train/ant/002.png"}
    for copy, source in (*pairs.items(), ("val/bee/000.png", "train/ant/003.png")):
        shutil.copy(tmp_path / source, tmp_path / copy)
    found = {finding.kind: finding for finding in check(read(tmp_path, mode)) if finding.images}
    assert {kind: finding.message for kind, finding in found.items()} == {
        "validation-duplicate": "2 validation images are also in train",
        "validation-conflict": "1 validation image has another label than the same image in train",
        "train-test-duplicate": "1 test image is also in train",
        "validation-test-duplicate": "1 test image is also in validation",
        "train-duplicate": "1 training image seen earlier in the same set",
    }
    assert [side for side, _ in found["validation-test-duplicate"].images[0]] == ["test", "validation"]
    checked = check_dataset(f"folder:{tmp_path}", html=tmp_path / "page.html")
    found = {finding.kind: finding for finding in checked.findings}
    assert found["validation-test-duplicate"].examples == ("test/ant/000.png = val/ant/001.png",)
    assert found["validation-conflict"].examples == ("val/bee/000.png (bee) = train/ant/003.png (ant)",)
    assert "val/ant/001.png (validation)" in (tmp_path / "page.html").read_text()
    said = {finding.kind for finding in plan(tmp_path, data_mode="resident", protocol="paper").findings}
    assert {kind for kind in said if "duplicate" in kind or "conflict" in kind} == {"train-test-duplicate"}


def test_groups_in_train_and_test_are_warned_of(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1] * 5, film=[*"abcdefghij"])
    write(tmp_path / "val.parquet", [0, 1, 0], film=[*"aax"])
    write(tmp_path / "test.parquet", [0, 1, 0], film=[*"byb"])
    found = [finding.message for finding in check(read(f"parquet:{tmp_path}?group=film")) if "group" in finding.kind]
    assert found == [
        "1 group has images both in train and in validation",
        "1 group has images both in train and in test",
    ]


def test_parquet_classes_that_train_lacks_are_refused_or_dropped(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", pa.array(["bee", "cow"] * 5))
    write(tmp_path / "test.parquet", pa.array(["cow", "ant", "bee"]))
    with pytest.raises(DataError, match=r"class 'ant' has no training images.*1 test image is of such a class"):
        plan(f"parquet:{tmp_path}")
    made = plan(f"parquet:{tmp_path}?drop-unknown")
    assert made.record.data.classes == ("bee", "cow")
    assert made.test.labels.tolist() == [1, 0]
    assert [Path(name).name for name in made.test.origins()] == ["test.parquet row 0", "test.parquet row 2"]


def test_numbers_without_names_are_dropped_by_the_same_rule(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 2] * 5)
    write(tmp_path / "test.parquet", [0, 1, 2, 3])
    data = read(f"parquet:{tmp_path}?drop-unknown")
    assert (data.classes, data.test.labels.tolist(), data.named) == (("0", "2"), [0, 1], True)


# ---- against other readers ----------------------------------------------------------------------------


@MODES
def test_labels_are_those_of_torchvision_s_and_timm_s_readers(tmp_path: Path, mode: str) -> None:
    from timm.data.readers.reader_image_folder import ReaderImageFolder
    from torchvision.datasets import ImageFolder

    sets = {
        "plain": ["ant", "bee", "cow"],
        "named": ["Zebra", "ant", "Äsche", "bee_2", "cow", "dog house"],
        "numbered": ["1", "10", "2"],
        "nested": ["ant", "bee"],
    }
    for folder, classes in sets.items():
        tree(tmp_path / folder, train=classes, val=classes, test=classes)
        if folder == "nested":
            images(tmp_path / folder / "train" / classes[0] / "more", 2)
        data = read(tmp_path / folder, mode)
        train, selecting, test = RunImages(data, 0.1).divided()
        for side, split in (("train", train), ("val", selecting), ("test", test)):
            ours = [(str(name), data.classes[label]) for name, label in zip(split.origins(), split.labels, strict=True)]
            theirs = ImageFolder(str(tmp_path / folder / side))
            assert theirs.classes == list(data.classes)
            assert [(str(name), theirs.classes[label]) for name, label in theirs.samples] == ours
            assert [label for _, label in theirs.samples] == split.labels.tolist()
            if folder == "nested":  # timm takes the inner folder for a class
                continue
            reader = ReaderImageFolder(str(tmp_path / folder / side))
            names = {number: name for name, number in reader.class_to_idx.items()}
            assert sorted((str(name), names[label]) for name, label in reader.samples) == sorted(ours)
            alike = reader.class_to_idx == {name: number for number, name in enumerate(data.classes)}
            assert alike == (folder == "plain")  # timm sorts numbers by their size, and without regard to case
