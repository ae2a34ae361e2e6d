"""`--validation`: a share of the training images or images of their own; the record finds them again."""

from __future__ import annotations

import gzip
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from test_folders import images
from test_given_splits import plan, tree
from test_parquet import write

from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.data.split import Split
from zoo.errors import DataError, InputError, RunError
from zoo.runs.images import split_of
from zoo.runs.record import configuration, read_record, write_record
from zoo.runs.validation_images import share_or_spec
from zoo.runs.without_paths import portable
from zoo.train.plan import Plan, replan
from zoo.train.pretrained import rows_by_name
from zoo.train.teacher import columns_of

NAMES = ("cafz", "café", "zebra")  # decomposed, the second is before the first


def sizes(made: Plan) -> list[int]:
    return [len(split) for split in (made.train, made.selecting, made.test)]


def same(one: Split, other: Split) -> bool:
    return np.array_equal(one.images[:], other.images[:]) and np.array_equal(one.labels, other.labels)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tree(tmp_path / "photos", train=["ant", "bee", "cow"], test=["ant", "bee", "cow"])


@pytest.fixture
def held(tmp_path: Path) -> Path:
    for name, count in (("cow", 2), ("ant", 3)):
        images(tmp_path / "held" / name, count)
    return tmp_path / "held"


def test_a_share_is_held_out_and_recorded(photos: Path) -> None:
    made = plan(photos, validation="0.3")
    assert sizes(made) == [21, 9, 9]
    data = made.record.data
    assert (data.validation_fraction, data.validation_from, data.test_from) == (0.3, "carved", "test")
    assert made.messages == ("validation images: 0.3 of the training images; test images: test",)
    again = replan(made.record)
    assert same(again.selecting, made.selecting)
    usual = plan(photos)
    assert usual.messages == ()
    assert "validation images: 0.1 of the training images; test images: test" in usual.notes


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_images_of_their_own_select_by_their_names(photos: Path, held: Path, mode: str) -> None:
    made = plan(photos, validation=str(held), data_mode=mode, workers=0)
    assert sizes(made) == [30, 5, 9]
    assert made.selecting.labels.tolist() == [0, 0, 0, 2, 2]
    assert (made.selecting.pool is not None) == (mode == "stream")
    data = made.record.data
    assert (data.validation_from, data.validation_fraction, data.validation) == (f"folder:{held}", 0.0, 5)
    assert made.messages == (f"validation images: folder:{held}; test images: test",)
    again = replan(made.record, workers=0)
    assert same(again.selecting, made.selecting)
    assert same(split_of(made.record, "val", load_registry()), made.selecting)
    shutil.rmtree(held / "cow")
    with pytest.raises(RunError, match=r"the validation images 'folder:.*held' are not the recorded ones"):
        replan(made.record)
    shutil.rmtree(held)
    assert len(split_of(made.record, "test", load_registry())) == 9  # which needs no validation images


@pytest.mark.parametrize("option", ["", "?drop-unknown"])
def test_names_match_whichever_way_they_spell_an_accent(option: str, tmp_path: Path) -> None:
    composed, decomposed = (tuple(unicodedata.normalize(form, name) for name in NAMES) for form in ("NFC", "NFD"))
    root = tree(tmp_path / "photos", train=list(composed), test=list(composed))
    for name, count in zip(decomposed, (2, 3, 4), strict=True):
        images(tmp_path / "held" / name, count)
    made = plan(root, validation=f"folder:{tmp_path / 'held'}{option}")
    assert made.record.data.classes == composed == ("cafz", "café", "zebra")
    assert np.bincount(made.selecting.labels).tolist() == [2, 3, 4]
    assert columns_of([decomposed[::-1]], composed, "the teacher") == (2, 1, 0)
    assert rows_by_name(decomposed[::-1], composed, "the weights")[0] == [2, 1, 0]


def test_a_file_selects_too_and_is_scaled_as_the_training_images_are(photos: Path, tmp_path: Path) -> None:
    write(tmp_path / "held.parquet", [0, 1, 1], ["bee", "ant"])
    made = plan(photos, validation=str(tmp_path / "held.parquet"), image_size=16)
    assert made.selecting.labels.tolist() == [1, 0, 0]
    assert made.selecting.images.shape == (3, 3, 16, 16)


def test_the_share_or_the_images_replace_a_split_of_the_dataset_and_it_is_said(tmp_path: Path, held: Path) -> None:
    tree(tmp_path / "three", train=["ant", "cow"], val=["ant", "cow"], test=["ant", "cow"])
    given = plan(tmp_path / "three")
    assert (sizes(given), given.record.data.validation_from) == ([20, 6, 6], "val")
    assert given.messages == ("validation images: val; test images: test",)
    unused = "the dataset's own validation images (val) are not used"
    share = plan(tmp_path / "three", validation="0.2")
    assert sizes(share) == [16, 4, 6]
    assert unused in share.messages[0]
    assert same(replan(share.record).selecting, share.selecting)
    other = plan(tmp_path / "three", validation=f"folder:{held}")
    assert sizes(other) == [20, 5, 6]
    assert unused in other.messages[0]
    paper = plan(tmp_path / "three", protocol="paper")
    assert (sizes(paper), paper.record.data.validation_from) == ([20, 6, 6], "none")
    assert paper.messages == (f"the test images select the epoch; {unused}; test images: test",)
    assert same(replan(paper.record).train, paper.train)


def test_a_limit_of_training_images_leaves_given_validation_images_whole(tmp_path: Path) -> None:
    tree(tmp_path, train=["ant", "cow"], val=["ant", "cow"], test=["ant", "cow"])
    assert sizes(plan(tmp_path, limit_train=8)) == [8, 6, 6]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("0", "--validation 0: a share is above 0 and below 1"),
        ("1.5", "--validation 1.5: a share is above 0 and below 1"),
        ("nan", "a share is above 0 and below 1"),
        ("nowhere", r"--validation nowhere: no such folder or file; give a share of the training images \(0.2\)"),
        ("folder:nowhere", "no folder nowhere"),
    ],
)
def test_what_cannot_be_validated_with_is_one_line(photos: Path, given: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        plan(photos, validation=given)
    assert "\n" not in str(caught.value)


def test_a_compressed_table_is_known_by_its_ending(photos: Path, tmp_path: Path) -> None:
    lines = ["path,label", *(f"photos/test/{name}/000.png,{name}" for name in ("ant", "cow"))]
    (tmp_path / "held.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    assert share_or_spec(str(tmp_path / "held.csv.gz")) == f"csv:{tmp_path / 'held.csv.gz'}"
    assert len(plan(photos, validation=str(tmp_path / "held.csv.gz")).selecting) == 2


def test_a_class_without_validation_images_is_a_warning_whoever_chose_them(photos: Path, held: Path) -> None:
    def said(spec: Path, **more: Any) -> list[str]:
        return [f.line() for f in plan(spec, **more).findings if f.kind in ("unvalidated-class", "single-image")]

    assert said(photos) == []
    assert said(photos, validation=str(held)) == ["1 class has no validation image, of 3 (bee)"]
    assert said(photos, validation="0.04") == ["2 classes have no validation image, of 3 (bee, cow)"]
    assert said(photos, validation="0.04", limit_train=25) == []
    for image in sorted((photos / "train" / "bee").iterdir())[1:]:
        image.unlink()
    assert len(said(photos)) == 1
    assert "validation has none of them (bee)" in said(photos)[0]
    shutil.copytree(held, photos / "val")
    shutil.copytree(held / "cow", photos / "val" / "bee")
    assert said(photos) == []
    assert said(photos, protocol="paper") == []


def test_images_that_do_not_suit_are_refused(photos: Path, held: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is divided into train and test itself; name a folder of classes"):
        plan(photos, validation=str(photos))
    with pytest.raises(InputError, match="--protocol paper selects the epoch on the test images"):
        plan(photos, validation="0.2", protocol="paper")
    images(held / "dog", 4)
    with pytest.raises(InputError, match=r"its class 'dog' is none of the training images' 3.*by \?drop-unknown"):
        plan(photos, validation=str(held))
    made = plan(photos, validation=f"folder:{held}?drop-unknown")
    assert "4 images of other classes left out" in made.messages[0]
    assert len(made.selecting) == 5


def test_a_drawn_test_is_said_and_recorded(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        images(tmp_path / name, 20)
    made = plan(tmp_path)
    assert made.record.data.test_from == "carved"
    said = (
        "validation images: 0.1 of the training images; test images: 0.2 of the training images, always the same ones"
    )
    assert made.messages == (said,)


def test_a_run_of_an_earlier_version_finds_its_images_again(tmp_path: Path) -> None:
    tree(tmp_path / "set", train=["ant", "bee"], test=["ant", "bee"])
    before = plan(tmp_path / "set").record
    unset = dict.fromkeys(("validation_from", "test_from"), msgspec.UNSET)
    before = msgspec.structs.replace(before, data=msgspec.structs.replace(before.data, **unset))
    tree(tmp_path / "set", val=["ant", "bee"])  # which earlier versions did not read
    write_record(tmp_path, before)
    assert "validation_from" not in (tmp_path / "run.toml").read_text()
    record = read_record(tmp_path)
    assert record == before
    assert sizes(replan(record)) == [18, 2, 6]
    now = plan(tmp_path / "set")
    assert sizes(now) == [20, 6, 6]
    with pytest.raises(RunError, match="is not the recorded one"):
        replan(msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, validation_from="carved")))


def test_where_the_splits_came_from_changes_no_configuration(photos: Path, held: Path) -> None:
    record = plan(photos).record
    unset = dict.fromkeys(("validation_from", "test_from"), msgspec.UNSET)
    bare = msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, **unset))
    assert configuration(record) == configuration(bare)
    others = [plan(photos, validation=given).record for given in ("0.2", str(held))]
    assert len({configuration(other) for other in (record, *others)}) == 3
    assert portable(others[1]).data.validation_from == "folder:held"


def test_too_few_images_to_hold_any_out_are_said(tmp_path: Path) -> None:
    images(tmp_path / "train" / "ant", 2)
    images(tmp_path / "train" / "bee", 3)
    images(tmp_path / "test" / "ant", 1)
    with pytest.raises(InputError, match=r"at least 11\), another share \(--validation\)"):
        plan(tmp_path, validation="0.05")
    with pytest.raises(DataError, match="needs two or more"):
        plan(tree(tmp_path / "one", train=["ant"], test=["ant"]))


@pytest.mark.slow
def test_a_run_is_resumed_and_measured_on_images_of_its_own_choice(photos: Path, held: Path, tmp_path: Path) -> None:
    run: Any = ["train", "cnn-baseline", "--dataset", f"folder:{photos}", "--image-size", "32", "--device", "cpu"]
    runner = CliRunner()
    done = runner.invoke(cli, [*run, "--epochs", "1", "--validation", str(held), "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert f"validation images: folder:{held}; test images: test" in done.stderr
    assert "30 train + 5 validation + 9 test images" in done.stderr
    more = runner.invoke(cli, ["train", "--resume", str(tmp_path / "run"), "--epochs", "2"])
    assert more.exit_code == 0, more.output
    measured = runner.invoke(cli, ["eval", str(tmp_path / "run"), "--split", "val"])
    assert measured.exit_code == 0, measured.output
