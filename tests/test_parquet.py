"""Parquet files as people have them: splits, shards and configurations by their names, every schema, every label."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from test_data_sources import pixels, png

from zoo.cli import cli
from zoo.data.load import load
from zoo.data.sources.hub import HubSource
from zoo.data.sources.parquet_files import choose_files
from zoo.data.sources.source import Request, array_rows, item_rows
from zoo.data.split import ImageData
from zoo.errors import BadImagesError, DataError, InputError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def cells(count: int) -> pa.Array:
    return pa.array([{"bytes": png(p), "path": None} for p in pixels(count)], IMAGE)


def write(path: Path, labels: Any, names: list[str] | None = None, **columns: Any) -> None:
    """A file with an image for each label; the names of classes go into the Hub's metadata."""
    table = pa.table({"image": cells(len(labels)), "label": labels} | columns)
    if names:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def both(folder: Path, labels: Any, names: list[str] | None = None, **columns: Any) -> None:
    for split in ("train", "test"):
        write(folder / f"{split}-00000-of-00001.parquet", labels, names, **columns)


def sizes(data: ImageData) -> tuple[int, int]:
    return len(data.train), len(data.test)


def refusal(spec: str, kind: type[Exception] = DataError, **more: Any) -> str:
    with pytest.raises(kind) as caught:
        load(spec, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- which files ----------------------------------------------------------------------------------


def test_a_split_is_its_whole_name_and_no_longer_one_counts_as_it(tmp_path: Path) -> None:
    both(tmp_path, [0, 1])
    for more in ("train_small", "train_unlabeled", "test_hard"):
        write(tmp_path / f"{more}-00000-of-00001.parquet", [0, 1, 1])
    assert sizes(load(f"parquet:{tmp_path}")) == (2, 2)
    assert sizes(load(f"parquet:{tmp_path}?train=train_small&test=test_hard")) == (3, 3)
    assert sizes(load(f"parquet:{tmp_path}?train=train,train_small")) == (5, 2)


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        (["my_train", "my_test"], "my_train", "my_test"),
        (["Training", "dev"], "Training", "dev"),
        (["train", "validation", "test_hard"], "train", "validation"),
        (["train", "eval", "val"], "train", "eval"),
        (["train/a", "valid/a"], "train/a", "valid/a"),
    ],
)
def test_a_split_is_known_by_the_hub_s_words_for_it(names: list[str], train: str, test: str) -> None:
    chosen = choose_files([f"{name}.parquet" for name in names], {}, "x", earlier=True)
    assert (chosen.train, chosen.test) == ((f"{train}.parquet",), (f"{test}.parquet",))


@pytest.mark.parametrize(
    ("names", "options", "parts"),
    [
        (["train", "validation", "test"], {}, ("train", "validation", "test")),
        (["Training", "dev", "eval"], {}, ("Training", "dev", "eval")),
        (["train", "valid"], {}, ("train", "valid", "")),
        (["train", "validation", "test_hard"], {}, ("train", "validation", "test_hard")),
        (["train", "validation"], {"test": "validation"}, ("train", "", "validation")),
        (["train", "test"], {"validation": "test"}, ("train", "test", "")),
        (["a", "b", "c"], {"train": "a", "validation": "b", "test": "c"}, ("a", "b", "c")),
        (["train", "validation", "validation_hard", "test"], {}, ("train", "validation", "test")),
    ],
)
def test_a_validation_split_is_known_by_its_name_or_named(
    names: list[str], options: dict[str, str], parts: tuple[str, ...]
) -> None:
    chosen = choose_files([f"{name}.parquet" for name in names], options, "x")
    found = (chosen.train, chosen.validation, chosen.test)
    assert found == tuple((f"{part}.parquet",) if part else () for part in parts)
    assert chosen.splits_from == (parts[1].lower(), parts[2].lower() or "carved")


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["train_a", "train_b", "test"], {}, "several splits could be train: train_a, train_b; name one"),
        (["train_unlabeled", "test"], {}, "no parquet file of split 'train'; splits: test, train_unlabeled"),
        (["train", "test"], {"test": "train"}, "train and test are the same images"),
        (["train", "test"], {"train": "test"}, "train and test are the same images"),
        (["all"], {"train": "all", "test": "all"}, "train and test are the same images"),
        (["train", "val", "test"], {"validation": "test", "test": "test"}, "validation and test are the same images"),
        (["train", "test"], {"split_column": "part", "test": "test"}, "says which row is what; leave out ?test="),
        (["train", "test"], {"test": "holdout"}, "no parquet file of split 'holdout'; splits: test, train"),
        (["a/train", "b/train", "a/test"], {}, "several configurations: a, b; choose by ?config=NAME"),
        (["train", "b/train", "test"], {}, "several configurations: b; files that lie above"),
        (["a/train", "b/train"], {"config": "c"}, "no configuration 'c'; configurations: a, b"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(names: list[str], options: dict[str, str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_files([f"{name}.parquet" for name in names], options, "x")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["train-00000-of-00002"], "train-00001-of-00002.parquet is missing (1 file of 2)"),
        (["a/train-00001-of-00003-ab"], "a/train-00000-of-00003-ab.parquet is missing (2 files of 3)"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "a set of 1 and a set of 2"),
        (["train", "train-00000-of-00001"], "files without a number and a set of 1"),
        (["train-00000-of-00001-aa", "train-00000-of-00001-bb"], "do not fit their numbers"),
        (["train-00000-of-00001", "test-00001-of-00002"], "test-00000-of-00002.parquet is missing"),
    ],
)
def test_shards_that_are_not_one_whole_set_are_refused(names: list[str], says: str) -> None:
    names = names if any("test" in name for name in names) else [*names, f"{os.path.dirname(names[0])}/test"]
    with pytest.raises(DataError) as caught:
        choose_files([f"{name.strip('/')}.parquet" for name in names], {}, "x")
    assert says in str(caught.value)


def test_shards_that_count_from_one_are_whole() -> None:
    names = [f"train-{i}-of-3.parquet" for i in (1, 2, 3)]
    assert choose_files([*names, "test.parquet"], {}, "x").train == tuple(names)


def test_a_configuration_is_chosen_by_its_name(tmp_path: Path) -> None:
    both(tmp_path / "digits", [0, 1], ["zero", "one"])
    both(tmp_path / "letters", [0, 1, 2], ["a", "b", "c"])
    assert "digits, letters; choose by ?config=NAME" in refusal(f"parquet:{tmp_path}", InputError)
    assert load(f"parquet:{tmp_path}?config=letters").classes == ("a", "b", "c")


def test_links_are_known_by_their_own_names(tmp_path: Path) -> None:
    both(tmp_path / "blobs", [0, 1], ["a", "b"])
    (tmp_path / "view").mkdir()
    for split in ("train", "test"):
        blob = (tmp_path / "blobs" / f"{split}-00000-of-00001.parquet").rename(tmp_path / "blobs" / f"x{split}")
        (tmp_path / "view" / f"{split}.parquet").symlink_to(blob)
    assert load(f"parquet:{tmp_path / 'view'}").classes == ("a", "b")
    (tmp_path / "view" / "test.parquet").unlink()
    (tmp_path / "view" / "test.parquet").symlink_to(tmp_path / "blobs" / "xtrain")
    assert "train and test are the same images" in refusal(f"parquet:{tmp_path / 'view'}", InputError)


@pytest.mark.parametrize("name", ["all.parquet", "0000.parquet", "train-00000-of-00001.parquet"])
def test_one_split_alone_is_divided_by_the_seed_as_a_folder_is(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, [0, 1] * 10, ["a", "b"])
    data = load(f"parquet:{tmp_path}")
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert "one split, which is divided by chance: 20% are test images" in data.notes[0]
    whole = load(f"parquet:{tmp_path}", whole=True)
    rows = [image.tobytes() for image in whole.train.images]
    assert sorted(map(rows.index, (i.tobytes() for s in (data.train, data.test) for i in s.images))) == list(range(20))
    assert sizes(whole) == (20, 20)
    assert load(f"parquet:{tmp_path}", seed=1).fingerprint != data.fingerprint


def test_a_split_by_chance_leaves_every_class_an_image_to_learn_from(tmp_path: Path) -> None:
    labels = [*range(30), 29]
    write(tmp_path / "all.parquet", labels)
    data = load(f"parquet:{tmp_path}")
    assert sorted(data.train.labels.tolist()) == list(range(30))
    assert data.test.labels.tolist() == [29]
    write(tmp_path / "all.parquet", [0, 1])
    assert "no class has two images, so that none can be held out for the test" in refusal(f"parquet:{tmp_path}")


def test_test_images_alone_can_be_evaluated(tmp_path: Path) -> None:
    for split in ("test", "validation"):
        write(tmp_path / f"{split}.parquet", [0, 1], ["a", "b"])
    assert "no parquet file of split 'train'" in refusal(f"parquet:{tmp_path}", InputError)
    assert sizes(load(f"parquet:{tmp_path}", whole=True)) == (2, 2)


def hub_snapshot(folder: Path, *names: str) -> Path:
    sha = "1" * 40
    base = folder / "hub" / "datasets--someone--pictures"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(sha)
    for name in names:
        write(base / "snapshots" / sha / f"{name}.parquet", [0, 1], ["a", "b"])
    return folder


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["en/train", "en/test", "fr/train", "fr/test"], "several configurations: en, fr"),
        (["train-00000-of-00002", "test"], "train-00001-of-00002.parquet is missing"),
        (["train"], "of its splits only train was downloaded before"),
    ],
)
def test_a_hub_dataset_is_chosen_from_by_the_same_rules(
    names: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    request = Request("someone/pictures", hub_snapshot(tmp_path, *names), given=True)
    with pytest.raises((InputError, DataError)) as caught:
        HubSource.make(request)
    assert says in str(caught.value)


# ---- every schema ---------------------------------------------------------------------------------


def test_a_shard_with_its_classes_in_another_order_is_refused(tmp_path: Path) -> None:
    both(tmp_path, [0, 1], ["a", "b"])
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train-00000-of-00002.parquet")
    write(tmp_path / "train-00001-of-00002.parquet", [0, 1], ["b", "a"])
    said = refusal(f"parquet:{tmp_path}")
    assert "train-00001-of-00002.parquet: different classes" in said
    assert "class 0 is 'b', in train-00000-of-00002.parquet 'a'" in said


def test_a_shard_with_other_columns_is_refused(tmp_path: Path) -> None:
    both(tmp_path, [0, 1])
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train-00000-of-00002.parquet")
    table = pa.table({"img": cells(2), "target": [0, 1], "label": [1, 0]})
    pq.write_table(table, tmp_path / "train-00001-of-00002.parquet")
    assert "'img' and 'label', in train-00000-of-00002.parquet in 'image'" in refusal(f"parquet:{tmp_path}")


def test_two_columns_that_could_be_meant_are_both_named(tmp_path: Path) -> None:
    kinds = {name: {"_type": "ClassLabel", "names": ["x", "y"]} for name in ("coarse", "fine")}
    features = {"picture": {"_type": "Image"}, **kinds}
    table = pa.table({"picture": cells(2), "coarse": [0, 0], "fine": [0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    assert "(coarse, fine); columns: picture" in refusal(f"parquet:{tmp_path}", InputError)
    assert load(f"parquet:{tmp_path}?label=fine").train.labels.tolist() == [0, 1]


def test_of_two_columns_the_one_with_the_usual_name_is_meant(tmp_path: Path) -> None:
    names = {name: {"_type": "ClassLabel", "names": ["x", "y"]} for name in ("coarse", "label")}
    features = {"mask": {"_type": "Image"}, "image": {"_type": "Image"}, **names}
    table = pa.table({"mask": cells(2), "image": cells(2), "coarse": [0, 0], "label": [0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    data = load(f"parquet:{tmp_path}")
    assert data.train.labels.tolist() == [0, 1]
    assert data.fingerprint == load(f"parquet:{tmp_path}?image=image&label=label").fingerprint


# ---- images ---------------------------------------------------------------------------------------


def test_images_beside_the_files_are_looked_at_again(tmp_path: Path) -> None:
    for name, pixel in zip("abcd", pixels(4), strict=True):
        (tmp_path / f"{name}.png").write_bytes(png(pixel))
    for split, names in (("train", "ab"), ("test", "cd")):
        table = pa.table(
            {"image": pa.array([{"bytes": None, "path": f"{n}.png"} for n in names], IMAGE), "label": [0, 1]}
        )
        pq.write_table(table, tmp_path / f"{split}.parquet")
    before = load(f"parquet:{tmp_path}")
    assert load(f"parquet:{tmp_path}").fingerprint == before.fingerprint
    other = pixels(1)[0]
    (tmp_path / "b.png").write_bytes(png(other))
    after = load(f"parquet:{tmp_path}")
    assert np.array_equal(after.train.images[1], other.transpose(2, 0, 1))
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (["a.png", "b.png"], "row 0: no file"),
        ([[[0, 5], [5, 0]]] * 2, "(row 0 holds [[0, 5], [5, 0]]), not images"),
        ([1, 2], "column 'image' holds int64"),
    ],
)
def test_a_column_that_cannot_hold_images_is_one_line(column: list[Any], says: str, tmp_path: Path) -> None:
    both(tmp_path, [0, 1], image=pa.array(column))
    assert says in refusal(f"parquet:{tmp_path}")


def test_a_cell_without_an_image_is_named_by_its_row(tmp_path: Path) -> None:
    holes = pa.array([None, {"bytes": None, "path": None}, *cells(2).to_pylist()], IMAGE)
    both(tmp_path, [0, 1, 0, 1], image=holes)
    with pytest.raises(BadImagesError) as caught:
        load(f"parquet:{tmp_path}")
    problems = caught.value.problems
    assert problems[0].endswith("test-00000-of-00001.parquet row 0: holds no image (null)")
    assert [line.partition(": ")[2] for line in problems] == ["holds no image (null)"] * 4
    assert sizes(load(f"parquet:{tmp_path}", skip_bad=True)) == (2, 2)


def test_the_check_shows_five_images_of_a_kind(tmp_path: Path) -> None:
    junk = [{"bytes": b"junk", "path": None}] * 2
    both(tmp_path, [0, 1] * 5, image=pa.array([None] * 7 + junk + cells(1).to_pylist(), IMAGE))
    done = CliRunner().invoke(cli, ["datasets", "check", f"parquet:{tmp_path}"])
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[3:5] == [
        "error: 14 images cannot be read",
        "    test-00000-of-00001.parquet row 0: holds no image (null)",
    ]
    assert lines[9:11] == ["    ... 9 more", "error: 4 images cannot be read"]
    assert sum("cannot be read as an image" in line for line in lines) == 4


# ---- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([b"cat", b"dog"], "row 0: column 'label' holds b'cat', bytes"),
        (pa.array([0, 2**63 + 5], pa.uint64()), "row 1: column 'label' holds 9223372036854775813; classes"),
        ([0, 2_000_000_000], "row 1: column 'label' holds 2000000000; classes are numbered from 0"),
        ([0.0, 0.5], "row 1: column 'label' holds 0.5, which is not a class"),
        ([0, None], "row 1: column 'label' holds nothing (null)"),
        (["cat", None], "row 1: column 'label' holds nothing (null)"),
        ([float("nan"), 1.0], "row 0: column 'label' holds nan"),
    ],
)
def test_a_label_that_is_no_class_is_named_by_its_row(labels: Any, says: str, tmp_path: Path) -> None:
    both(tmp_path, labels)
    assert says in refusal(f"parquet:{tmp_path}")


def test_whole_numbers_in_a_column_of_floats_are_classes(tmp_path: Path) -> None:
    both(tmp_path, [0.0, 1.0])
    assert load(f"parquet:{tmp_path}").train.labels.tolist() == [0, 1]


def test_test_images_without_classes_lead_to_the_other_splits(tmp_path: Path) -> None:
    both(tmp_path, [0, 1], ["a", "b"])
    write(tmp_path / "test-00000-of-00001.parquet", [-1, -1], ["a", "b"])
    write(tmp_path / "validation-00000-of-00001.parquet", [0, 1], ["a", "b"])
    said = refusal(f"parquet:{tmp_path}")
    assert "every label is -1" in said
    assert "?test=validation (splits: test, train, validation)" in said


@pytest.mark.parametrize(
    "labels",
    [[0, 2_000_000_000], [0.5, 1.0], np.array([0, 2**64 - 1], np.uint64), [[0, 1], [1]], [0, "cat"], [None, 1]],
)
def test_labels_of_arrays_and_files_are_looked_at_as_well(labels: Any) -> None:
    with pytest.raises(DataError, match=r"image [01]: its label"):
        array_rows(np.zeros((2, 4, 4), np.uint8), labels, "mine")
    with pytest.raises(DataError, match=r"image [01]: its label"):
        item_rows([b"", b""], labels, lambda i: f"mine, image {i}")


@pytest.mark.parametrize("option", ["train", "validation", "test", "config", "split-column"])
def test_an_option_that_names_nothing_is_refused(tmp_path: Path, option: str) -> None:
    both(tmp_path, [0, 1] * 4)
    assert f"?{option}= names nothing; leave it out" in refusal(f"parquet:{tmp_path}?{option}=", InputError)
