"""Several labels an image: where they come from, and how images with them are divided."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from square_images import COLOURS, png, squares, write_folders, write_parquet

import zoo
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import load_registry
from zoo.data.batches.mode import Delivery
from zoo.data.batches.open import open_source
from zoo.data.label_sets import as_sets, moved, sets_from_columns, strata
from zoo.data.load import load
from zoo.data.split import ImageData, divided_rows, drawn_test, validation_split
from zoo.data.types import GROUP, WEIGHT
from zoo.errors import DataError, InputError
from zoo.train.loss import ImageWeights
from zoo.train.plan import resolve
from zoo.train.run_options import Request
from zoo.train.set_loss import loss_of

NAMES = tuple(COLOURS)

# ---- where the labels come from ----------------------------------------------------------------------


def test_lists_of_names_lists_of_numbers_and_columns_are_the_same_labels(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "data")
    options = {"names": "label=names", "numbers": "label=numbers", "columns": f"labels={','.join(COLOURS)}"}
    loaded = {how: load(f"parquet:{folder}?{option}") for how, option in options.items()}
    for how, data in loaded.items():
        assert data.task == "multi-label"
        assert data.classes == (("0", "1", "2", "3") if how == "numbers" else tuple(COLOURS))
        for seed, split in enumerate((data.train, data.test)):
            assert split.labels.dtype == np.uint8
            assert np.array_equal(split.labels, squares(len(split), seed)[1])
    assert loaded["names"].train.images.shape == (160, 3, 16, 16)


@pytest.mark.parametrize(
    ("values", "names", "words"),
    [
        ([["a"], ["a", "b"], None], None, "row 2: column 'tags' holds no list"),
        ([["a"], ["b", None], ["a"]], None, "row 1: column 'tags': a label holds nothing (null)"),
        ([[0, 1], [2, -1], [0]], None, "row 1: column 'tags': a label holds -1"),
        ([1, 0, 2], "tags,also", "row 2: column 'tags' holds 2; a column of a class holds 1"),
        ([1, 0, None], "tags,also", "row 2: column 'tags' holds nothing (null)"),
    ],
)
def test_a_cell_that_is_no_label_is_named_by_its_row(
    values: list[Any], names: str | None, words: str, tmp_path: Path
) -> None:
    images = [{"bytes": png(image), "path": None} for image in squares(3, 0)[0]]
    table = pa.table({"image": images, "tags": values, "also": [1, 1, 0]})
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table.slice(0, 1), tmp_path / "test.parquet")
    option = f"labels={names}" if names else "label=tags"
    with pytest.raises(DataError) as refused:
        load(f"parquet:{tmp_path}?{option}")
    assert words in str(refused.value)
    assert "train.parquet" in str(refused.value)


def test_the_columns_of_the_classes_must_be_several_and_there(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path, 8, 4)
    with pytest.raises(InputError, match="two or more classes"):
        load(f"parquet:{folder}?labels=red")
    with pytest.raises(InputError, match=r"no column 'pink'.*\?labels=COLUMN"):
        load(f"parquet:{folder}?labels=red,pink")


def test_one_file_in_several_class_folders_is_one_image(tmp_path: Path) -> None:
    root, labels = write_folders(tmp_path / "all")
    for seed, name in enumerate(("red", "green")):  # the same name and size, another picture
        Image.fromarray(squares(1, seed)[0][0]).save(root / name / "odd.bmp")
    spec = f"folder:{root}?multi-label"
    data = load(spec)
    assert data.task == "multi-label"
    assert len(data.train) + len(data.test) == len(labels) + 2
    sides = np.concatenate([data.train.labels, data.test.labels])
    assert sorted(map(tuple, sides.tolist())) == sorted([*map(tuple, labels.tolist()), (0, 0, 1, 0), (0, 1, 0, 0)])
    assert [f.message for f in data.findings if f.kind == "several-labels"]
    streamed = load(spec, delivery=Delivery("stream", 0))
    assert streamed.streamed
    for decoded, files in ((data.train, streamed.train), (data.test, streamed.test)):
        assert np.array_equal(decoded.labels, files.labels)
        assert np.array_equal(decoded.images, files.images[: len(files)])
    assert load(f"folder:{root}").task == "single-label"


def test_a_folder_without_any_file_in_several_classes_is_warned_about(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{name}{i}.png").write_bytes(png(squares(1, i)[0][0]))
    found = load(f"folder:{tmp_path}", task="multi-label").findings
    assert [f.level for f in found if f.kind == "one-label"] == ["warning"]


def test_test_folders_in_another_order_of_classes_keep_their_labels(tmp_path: Path) -> None:
    write_folders(tmp_path / "train")
    write_folders(tmp_path / "test")
    data = load(f"folder:{tmp_path}?multi-label=yes")
    assert np.array_equal(data.train.labels, data.test.labels)


def test_every_class_keeps_images_to_learn_from_and_divisions_repeat() -> None:
    labels = squares(200, 3)[1]
    labels[:, 3] = 0
    labels[17, 3] = 1  # a single image
    for divide in (lambda: validation_split(labels, 0.1, 0), lambda: drawn_test(labels, 0, "here")):
        train, held_out = divide()
        assert np.array_equal(divide()[0], train)
        assert len(train) + len(held_out) == 200
        assert 17 in train
        assert (labels[held_out].any(0) == (True, True, True, False)).all()
    assert strata(labels)[17] == 3
    assert strata(np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1]], np.uint8)).tolist() == [1, 0, 2]  # the rarest
    assert strata(np.zeros((2, 3), np.uint8)).tolist() == [3, 3]


def test_one_label_an_image_is_a_set_of_one() -> None:
    digits = load("sklearn:digits", task="multi-label")
    plain = load("sklearn:digits")
    assert digits.task == "multi-label"
    assert np.array_equal(digits.train.labels.argmax(1), plain.train.labels)
    assert digits.train.labels.sum(1).tolist() == [1] * len(plain.train)
    assert digits.fingerprint == plain.fingerprint
    assert as_sets(digits.train.labels, 10) is digits.train.labels


def test_texts_of_0_and_1_are_read_as_a_table_has_them() -> None:
    assert sets_from_columns([["0", "1"], [True, 0.0]], ["a", "b"], str).tolist() == [[0, 1], [1, 0]]


# ---- tables of paths ---------------------------------------------------------------------------------


def write_images(folder: Path, count: int = 40) -> np.ndarray:
    """Files 00.png, 01.png ... in `folder`; their labels, uint8 (N, 4)."""
    images, labels = squares(count, 5)
    folder.mkdir(parents=True, exist_ok=True)
    for row, image in enumerate(images):
        (folder / f"{row:02}.png").write_bytes(png(image))
    return labels


def names_of(row: np.ndarray) -> list[str]:
    return [name for name, has in zip(NAMES, row, strict=True) if has]


def write_csv(path: Path, labels: np.ndarray, between: str) -> None:
    rows = [f'{row:02}.png,"{between.join(names_of(its))}"' for row, its in enumerate(labels)]
    path.write_text("path,label\n" + "".join(f"{row}\n" for row in rows))


def write_columns(path: Path, labels: np.ndarray) -> None:
    rows = [f"{row:02}.png,{','.join(map(str, its))}" for row, its in enumerate(labels)]
    path.write_text(f"path,{','.join(NAMES)}\n" + "".join(f"{row}\n" for row in rows))


def write_jsonl(path: Path, labels: np.ndarray) -> None:
    rows = ({"path": f"{row:02}.png", "label": names_of(its)} for row, its in enumerate(labels))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_paths(path: Path, labels: np.ndarray) -> None:
    paths = [f"{row:02}.png" for row in range(len(labels))]
    pq.write_table(pa.table({"path": paths, "label": [names_of(its) for its in labels]}), path)


TABLES: dict[str, tuple[Callable[[Path, np.ndarray], None], str]] = {
    "csv:a.csv?multi-label": (lambda path, labels: write_csv(path, labels, ";"), "a.csv"),
    "csv:b.csv?multi-label": (lambda path, labels: write_csv(path, labels, ", "), "b.csv"),
    "csv:c.csv?separator=/": (lambda path, labels: write_csv(path, labels, "/"), "c.csv"),
    "csv:c.csv?separator=+": (lambda path, labels: write_csv(path, labels, "+"), "c.csv"),
    "csv:c.csv?separator=%26": (lambda path, labels: write_csv(path, labels, "&"), "c.csv"),
    f"csv:d.csv?labels={','.join(NAMES)}": (write_columns, "d.csv"),
    "jsonl:e.jsonl": (write_jsonl, "e.jsonl"),
    "parquet:f.parquet": (write_paths, "f.parquet"),
}


@pytest.mark.parametrize("spec", TABLES)
def test_tables_of_paths_say_several_labels_in_each_way(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = write_images(tmp_path)
    write, name = TABLES[spec]
    write(tmp_path / name, labels)
    data = load(spec)
    assert data.task == "multi-label"
    assert data.classes == NAMES
    rows = [int(Path(place).stem) for side in (data.train, data.test) for place in side.origins()]
    assert sorted(rows) == list(range(40))
    assert np.array_equal(np.concatenate([data.train.labels, data.test.labels]), labels[rows])
    assert (len(data.train), len(data.test)) == (32, 8)
    none = [f for f in data.findings if f.kind == "no-class"]
    assert bool(none) == (name in ("a.csv", "b.csv", "c.csv") and not labels.any(1).all())


def test_a_csv_without_the_option_has_one_label_a_cell(tmp_path: Path) -> None:
    labels = write_images(tmp_path)
    write_csv(tmp_path / "a.csv", np.eye(4, dtype=np.uint8)[np.arange(40) % 4], ";")
    assert load(f"csv:{tmp_path / 'a.csv'}").task == "single-label"
    sets = load(f"csv:{tmp_path / 'a.csv'}", task="multi-label")
    assert sets.task == "multi-label"
    assert sets.train.labels.sum(1).tolist() == [1] * 32
    write_jsonl(tmp_path / "b.jsonl", labels)
    with pytest.raises(InputError, match="its images have several labels"):
        load(f"jsonl:{tmp_path / 'b.jsonl'}", task="single-label")
    with pytest.raises(InputError, match="names no sign; an ampersand is written"):
        load(f"csv:{tmp_path / 'a.csv'}?separator=&")


def test_a_catalogue_lists_the_columns_of_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_columns(tmp_path / "d.csv", write_images(tmp_path))
    lists = '[datasets.squares]\nsource = "csv:d.csv"\noptions = { labels = ["red", "green", "blue"] }\n'
    (tmp_path / "registry.toml").write_text(lists)
    monkeypatch.chdir(tmp_path)
    assert load("squares", load_registry()).classes == ("red", "green", "blue")


def test_a_table_with_whole_and_relative_paths_is_streamed(tmp_path: Path) -> None:
    write_images(tmp_path / "here")
    write_images(tmp_path / "there")
    places = [Path("00.png"), Path("01.png"), *sorted((tmp_path / "there").iterdir())[:8]]
    rows = [f"{place},{'cat' if row % 2 else 'dog'}" for row, place in enumerate(places)]
    (tmp_path / "here" / "a.csv").write_text("\n".join(["path,label", *rows]))
    data = load(f"csv:{tmp_path / 'here' / 'a.csv'}", delivery=Delivery("stream", 0))
    given = [images for _, images, _ in open_source(data.train).batches(3)]
    assert np.array_equal(torch.cat(given), data.train.images[:])


@pytest.mark.parametrize(
    ("name", "text", "option", "words"),
    [
        ("a.csv", "path,cat,dog\n00.png,1,0\n01.png,2,1\n", "labels=cat,dog", "row 3: its column 'cat' holds '2'"),
        ("a.csv", "path,cat,dog\n00.png,1,\n01.png,0,1\n", "labels=cat,dog", "row 2: its column 'dog' holds nothing"),
        (
            "a.jsonl",
            '{"path": "00.png", "label": ["a"]}\n{"path": "01.png", "label": "b"}',
            "",
            "row 2: its label 'b' is",
        ),
        ("a.jsonl", '{"path": "00.png", "label": ["a", null]}', "", "row 1: column 'label' holds a list with nothing"),
        ("a.jsonl", '{"path": "00.png", "label": [{"a": 1}]}', "", "row 1: column 'label' holds"),
        ("a.jsonl", '{"path": ["00.png"], "label": ["a"]}', "", "row 1: column 'path' holds"),
    ],
)
def test_a_row_of_a_table_that_holds_no_labels_is_named(
    name: str, text: str, option: str, words: str, tmp_path: Path
) -> None:
    write_images(tmp_path, 2)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as refused:
        load(f"{name.partition('.')[2]}:{tmp_path / name}{'?' if option else ''}{option}")
    assert words in str(refused.value)


def test_columns_of_a_table_must_be_there_and_are_named_in_one_way(tmp_path: Path) -> None:
    write_columns(tmp_path / "a.csv", write_images(tmp_path))
    with pytest.raises(InputError, match=r"no column 'pink' \(\?labels=\)"):
        load(f"csv:{tmp_path / 'a.csv'}?labels=red,pink")
    with pytest.raises(InputError, match="give one of them"):
        load(f"csv:{tmp_path / 'a.csv'}?labels=red,blue&label=green")


def test_a_row_with_a_class_that_a_file_does_not_list_is_named_or_left_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", labels := write_images(tmp_path))
    (tmp_path / "classes.txt").write_text("white\nred\ngreen\n")
    spec = f"jsonl:{tmp_path / 'a.jsonl'}?classes=classes.txt"
    with pytest.raises(DataError, match=r"its label 'blue' is none of the 3 classes that .*classes.txt lists"):
        load(spec)
    data = load(spec, skip_bad=True)
    assert data.classes == ("white", "red", "green")
    rows = [int(Path(place).stem) for side in (data.train, data.test) for place in side.origins()]
    assert sorted(rows) == np.flatnonzero(labels[:, 0] == 0).tolist()
    assert np.array_equal(np.concatenate([data.train.labels, data.test.labels]), labels[rows][:, [3, 2, 1]])


# ---- splits, groups, weights -------------------------------------------------------------------------


def with_columns(tmp_path: Path) -> tuple[ImageData, np.ndarray]:
    """A table with a split, groups of two images, and weights."""
    labels = write_images(tmp_path)
    sides = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    rows = [
        f'{row:02}.png,"{";".join(names_of(its))}",{sides[row]},{row // 2},{1 + row % 3}'
        for row, its in enumerate(labels)
    ]
    (tmp_path / "a.csv").write_text("path,label,split,group,weight\n" + "".join(f"{row}\n" for row in rows))
    return load(f"csv:{tmp_path / 'a.csv'}?multi-label"), labels


def test_splits_groups_and_weights_of_a_table_hold_for_sets(tmp_path: Path) -> None:
    data, labels = with_columns(tmp_path)
    assert np.array_equal(data.train.labels, labels[:32])
    assert np.array_equal(data.test.labels, labels[32:])
    learnt, held = divided_rows(data.train, 0.1, 0)
    assert (learnt.tolist(), held.tolist()) == (list(range(24)), list(range(24, 32)))
    assert data.train.columns[GROUP].tolist() == [row // 2 for row in range(32)]
    images = data.train.select(learnt)
    weights = ImageWeights(images, torch.device("cpu"))
    loss = loss_of(Recipe(loss="bce"), images, data.classes, torch.device("cpu"))
    logits, targets = torch.randn(24, 4), torch.from_numpy(images.labels)
    (each,) = weights.of(torch.arange(24))
    assert each.tolist() == images.columns[WEIGHT].tolist()
    mean = loss(logits, targets, loss.count(targets, each), each)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").mean(1)
    torch.testing.assert_close(mean, (wanted * each).sum() / each.sum())


def test_groups_stay_whole_where_images_have_several_labels() -> None:
    labels, groups = squares(200, 3)[1], np.arange(200) // 4
    for learnt, held in (drawn_test(labels, 0, "here", groups), validation_split(labels, 0.2, 0, groups=groups)):
        assert not np.isin(groups[held], groups[learnt]).any()
        assert labels[learnt].any(0).all()
        assert 20 < len(held) < 60


def test_validation_folders_and_classes_that_only_they_have(tmp_path: Path) -> None:
    for side in ("train", "val", "test"):
        write_folders(tmp_path / side)
    (tmp_path / "val" / "pink").mkdir()
    (tmp_path / "val" / "pink" / "x.png").write_bytes(png(squares(1, 9)[0][0]))
    spec = f"folder:{tmp_path}?multi-label"
    for delivery in (Delivery(), Delivery("stream", 0)):
        data = load(spec, delivery=delivery)
        assert data.classes == (*NAMES, "pink")
        learnt, held = divided_rows(data.train, 0.1, 0)
        assert data.train.labels.shape == (len(learnt) + len(held), 5)
        assert data.train.labels[learnt, 4].sum() == 0
        assert data.train.labels[held, 4].sum() == 1
        assert np.array_equal(data.train.labels[learnt], data.test.labels)
        known = load(f"{spec}&drop-unknown", delivery=delivery)
        assert known.classes == NAMES
        assert np.array_equal(known.train.labels, data.train.labels[:, :4])
        assert [f.examples for f in known.findings if f.kind == "dropped-class"] == [("pink",)]
    with pytest.raises(DataError, match="'pink' has no training images"):
        resolve(Request(model="cnn-baseline", dataset=spec, image_size=16, device="cpu"))


def test_images_of_another_folder_validate(tmp_path: Path) -> None:
    write_folders(tmp_path / "all")
    (tmp_path / "held" / "red").mkdir(parents=True)
    (tmp_path / "held" / "blue").mkdir()
    for name in ("red", "blue"):
        (tmp_path / "held" / name / "x.png").write_bytes(png(squares(1, 9)[0][0]))
    plan = resolve(
        Request(
            model="cnn-baseline",
            dataset=f"folder:{tmp_path / 'all'}?multi-label",
            validation=str(tmp_path / "held"),
            device="cpu",
        )
    )
    assert plan.selecting.labels.tolist() == [[1, 0, 1, 0]]
    assert plan.record.settings.loss == "bce"
    assert plan.record.data.task == "multi-label"


def test_a_check_compares_sets_of_labels_and_counts_their_images(tmp_path: Path) -> None:
    images, labels = squares(20, 4)
    data = {"train": (images, labels), "test": (images[:5], np.roll(labels[:5], 1, 0))}
    table = {
        side: pa.table(
            {"image": [{"bytes": png(image), "path": None} for image in its], "label": [names_of(row) for row in sets]}
        )
        for side, (its, sets) in data.items()
    }
    for side, rows in table.items():
        pq.write_table(rows, tmp_path / f"{side}.parquet")
    found = zoo.check_dataset(f"parquet:{tmp_path}", html=tmp_path / "check.html")
    assert found.train == tuple(labels.sum(0).tolist())
    assert (sum(found.train) != 20, found.images) == (True, {"train": 20, "test": 5})
    assert "20 train and 5 test images" in found.lines()[0]
    kinds = {finding.kind: finding.count for finding in found.findings}
    assert kinds["train-test-duplicate"] == 5
    assert kinds["train-test-conflict"] == int((labels[:5] != np.roll(labels[:5], 1, 0)).any(1).sum()) > 0
    conflict = next(finding for finding in found.findings if finding.kind == "train-test-conflict")
    assert any(f"({', '.join(names_of(row))})" in conflict.examples[0] for row in labels[:5] if row.any())
    assert (tmp_path / "check.html").stat().st_size > 1000


def test_labels_are_moved_to_another_numbering() -> None:
    places = np.array([2, -1, 0])
    assert moved(np.array([0, 2]), places, 3).tolist() == [2, 0]
    assert moved(np.array([[1, 1, 0], [0, 1, 1]], np.uint8), places, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
