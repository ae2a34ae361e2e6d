"""Tables: labels, splits, groups and weights of images from CSV, JSON lines and Parquet files of paths."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torchvision.datasets import ImageFolder

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.data.batches.mode import Delivery
from zoo.data.checks import check
from zoo.data.files.decode import Rule
from zoo.data.load import load
from zoo.data.portable import portable_spec, spec_of
from zoo.data.split import ImageData, Split
from zoo.data.types import GROUP, VALIDATES, WEIGHT
from zoo.errors import BadImagesError, InputError, ZooError
from zoo.evaluate.new_images import Taken, other_images
from zoo.runs.folder import read_weights
from zoo.runs.validation_images import validation_images

MODES = pytest.mark.parametrize("mode", ["resident", "stream"])
RNG = np.random.default_rng(25)
CLASSES = ("1", "2", "10")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in each of the folders 1, 2 and 10, below img/; nobody may change them."""
    root = tmp_path_factory.mktemp("tables")
    for name in CLASSES:
        (root / "img" / name).mkdir(parents=True)
        for number in range(12):
            pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "img" / name / f"{number:02}.png")
    return root


@pytest.fixture
def root(images: Path, tmp_path: Path) -> Path:
    """A folder of its own with the images in img/."""
    (tmp_path / "img").symlink_to(images / "img", target_is_directory=True)
    return tmp_path


def rows(**columns: Any) -> list[dict[str, Any]]:
    """A row for each image: path, the folder's name as its label, and columns that are functions of the number."""
    made = []
    for place, name in enumerate(CLASSES):
        for number in range(12):
            more = {key: give(place, number) if callable(give) else give for key, give in columns.items()}
            made.append({"path": f"img/{name}/{number:02}.png", "label": f"class {name}", **more})
    return made


def write(path: Path, table: Sequence[dict[str, Any]], separator: str = ",", encoding: str = "utf-8") -> Path:
    """As CSV, JSON lines or Parquet, by the ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(table)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in table), encoding)
    else:
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(table)
    return path


def read(path: Path, mode: str = "resident", options: str = "", **more: Any) -> ImageData:
    return load(f"{spec_of(path)}{options}", delivery=Delivery(mode, 0), **more)  # type: ignore[arg-type]


def by_hand(path: Path, side: str) -> list[tuple[str, str]]:
    """File and label of the rows of a split, with nothing but the standard library."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["path"], row["label"]) for row in csv.DictReader(file) if row["split"] == side]


def as_read(data: ImageData, split: Split, root: Path) -> list[tuple[str, str]]:
    labels = (data.classes[label] for label in split.labels)
    return [(os.path.relpath(name, root), label) for name, label in zip(split.origins(), labels, strict=True)]


def real(split: Split) -> dict[str, int]:
    """The files of a split, whatever links lead to them, and their class numbers."""
    return {os.path.realpath(name): int(label) for name, label in zip(split.origins(), split.labels, strict=True)}


def refusal(spec: str, **more: Any) -> str:
    with pytest.raises(ZooError) as caught:
        load(spec, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sides(place: int, number: int) -> str:
    del place
    return ("train", "train", "Validation", "TEST")[number % 4]


@MODES
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_images_labels_and_splits_that_it_lists(
    ending: str, mode: str, root: Path
) -> None:
    path = write(root / f"t.{ending}", rows(split=sides), "\t" if ending == "tsv" else ",")
    data = read(path, mode)
    reference = write(root / "reference.csv", rows(split=sides))
    assert data.classes == ("class 1", "class 10", "class 2")
    both = by_hand(reference, "train"), by_hand(reference, "Validation")
    validates = data.train.columns[VALIDATES]
    listed = as_read(data, data.train, root)
    assert [row for row, given in zip(listed, validates, strict=True) if not given] == both[0]
    assert [row for row, given in zip(listed, validates, strict=True) if given] == both[1]
    assert as_read(data, data.test, root) == by_hand(reference, "TEST")
    wanted = [np.asarray(Image.open(root / name)).transpose(2, 0, 1) for name, _ in by_hand(reference, "TEST")]
    assert np.array_equal(np.asarray(data.test.images[:]), np.stack(wanted))
    assert data.streamed == (mode == "stream")
    assert data.splits_from == ("Validation", "TEST")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_quotes_a_byte_order_mark_blanks_and_any_usual_separator_are_understood(separator: str, root: Path) -> None:
    name = f'a "b"{separator} c'
    table = [{**row, "label": f" {name} " if row["label"] == "class 1" else "ä"} for row in rows()]
    data = read(write(root / "t.csv", table, separator, "utf-8-sig"))
    assert data.classes == (name, "ä")
    (root / "t.csv.gz").write_bytes(gzip.compress((root / "t.csv").read_bytes()))
    assert load(f"csv:{root}/t.csv.gz").fingerprint == data.fingerprint


def test_two_spellings_of_an_accent_are_one_class(root: Path) -> None:
    table = [{**row, "label": ("caf\u00e9", "cafe\u0301")[i % 2] if i < 12 else "tea"} for i, row in enumerate(rows())]
    assert read(write(root / "t.csv", table)).classes == ("caf\u00e9", "tea")


@pytest.mark.parametrize(
    ("columns", "options", "says"),
    [
        (("path", "file", "label"), "", "the columns path, file could each hold the path; name the one that is meant"),
        (("path", "label", "class"), "", "the columns label, class could each hold the label"),
        (("path", "label", "split", "subset"), "", "could each hold the split; name the one that is meant by ?split="),
        (("path", "species"), "", "no column is known to hold the label; columns: path, species; name it by ?label="),
        (("path", "label"), "?label=species", "no column 'species' (?label=); columns: path, label"),
        (("path", "label", "label"), "", "2 columns are called 'label'"),
    ],
)
def test_no_column_is_guessed(columns: tuple[str, ...], options: str, says: str, root: Path) -> None:
    (root / "t.csv").write_text(f"{','.join(columns)}\nimg/1/00.png,{',1' * (len(columns) - 2)}\n")
    assert says in refusal(f"csv:{root}/t.csv{options}")


def test_columns_are_known_by_usual_names_or_by_options_and_a_line_says_which(root: Path) -> None:
    table = [{"File Name": row["path"], "Class": row["label"], "species": "x", "fold": "0"} for row in rows()]
    path = write(root / "t.csv", table)
    assert "its split is '0'" in refusal(f"csv:{path}") or "holds '0', which is no split" in refusal(f"csv:{path}")
    data = read(path, options="?split=")
    assert data.notes[0] == "t.csv: path: File Name, label: Class"
    assert len(data.classes) == 3
    assert read(path, options="?split=&label=species").classes == ("x",)


@pytest.mark.parametrize(
    ("labels", "classes", "named"),
    [
        ("0 1 2", "0 1 2", False),
        ("0.0 1.0 2.0", "0 1 2", False),
        ("1 2 10", "1 2 10", True),
        ("01 02 10", "01 02 10", True),
        ("b a 7", "7 a b", True),
    ],
)
@MODES
def test_numbers_stay_the_names_of_their_classes(labels: str, classes: str, named: bool, mode: str, root: Path) -> None:
    given = labels.split()
    table = rows(label=lambda place, number: given[place])
    data = read(write(root / "t.csv", table), mode)
    assert (data.classes, data.named) == (tuple(classes.split()), named)
    written = {row["path"]: row["label"].removesuffix(".0") for row in table}
    assert all(written[file] == label for file, label in as_read(data, data.test, root))


def test_numbers_of_json_and_parquet_are_those_of_csv(root: Path) -> None:
    prints = set()
    for ending, give in (("csv", str), ("jsonl", int), ("jsonl", float), ("parquet", int), ("parquet", float)):
        data = read(write(root / f"t.{ending}", rows(label=lambda place, _, give=give: give(place))))
        prints.add((data.fingerprint, data.named))
    assert len(prints) == 1


def test_measured_values_and_identifiers_are_no_classes(root: Path) -> None:
    path = write(root / "t.csv", rows(label=lambda place, number: place + number / 16))
    assert "holds numbers with fractions (0.0625), which are no classes" in refusal(f"csv:{path}")
    path = write(root / "t.csv", rows(label=lambda place, number: 10**9 + place))
    assert "classes are numbered from 0, below 100,000" in refusal(f"csv:{path}")


@MODES
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_rows_without_a_label_are_left_out_and_counted(ending: str, mode: str, root: Path) -> None:
    table = rows(label=lambda place, number: None if number == 0 else -1 if number == 1 else place)
    data = read(write(root / f"t.{ending}", table), mode)
    assert (len(data.train) + len(data.test), data.ignored, data.skipped) == (30, 6, 0)
    assert "6 rows without a label not read" in [finding.message for finding in check(data)]
    every = write(root / f"none.{ending}", rows(label=-1))
    assert "no row has a label in the column 'label'" in refusal(spec_of(every))


@MODES
def test_rows_that_cannot_be_used_are_named_by_their_number_or_left_out_and_counted(mode: str, root: Path) -> None:
    table = rows(split=sides, weight=1)
    for place, change in enumerate(
        (
            {"path": "img/no.png"},
            {"path": ""},
            {"path": "../x.png"},
            {"split": "kept"},
            {"weight": "much"},
            {"split": ""},
        )
    ):
        table[place] |= change
    path = write(root / "t.csv", table)
    with pytest.raises(BadImagesError) as caught:
        read(path, mode)
    said = [line.removeprefix(f"{path} ") for line in caught.value.problems]
    assert said[0] == f"row 2: no file {root}/img/no.png"
    assert said[1] == "row 3: it has no path"
    assert said[2].startswith("row 4: ../x.png leads out of the table's folder; ?images=FOLDER")
    assert said[3].startswith("row 5: its split is 'kept'; known: train, ")
    assert said[4] == "row 6: its weight is 'much'; needed is a number of 0 or more"
    assert said[5].startswith("row 7: its split is nothing")
    assert "row 2: no file" in str(caught.value)
    assert "5 more like it" in str(caught.value)
    data = read(path, mode, "?skip_bad=1")
    assert (data.skipped, len(data.train) + len(data.test)) == (6, 30)
    (finding,) = (f for f in data.findings if f.kind == "bad-row")
    assert (finding.count, finding.examples) == (6, caught.value.problems[:5])


@MODES
def test_a_class_without_training_images_keeps_a_number_or_is_dropped_as_asked(mode: str, root: Path) -> None:
    table = rows(split=sides)
    table[3]["label"] = "another"
    path = write(root / "t.csv", table)
    data = read(path, mode)
    assert data.classes == ("class 1", "class 10", "class 2", "another")
    assert any(finding.level == "error" and "another" in finding.line() for finding in check(data))
    dropped = read(path, mode, "?drop-unknown")
    assert (dropped.classes, len(dropped.test)) == (data.classes[:3], len(data.test) - 1)
    gap = [{**row, "label": 1 if k == 3 else 2 * (k % 8 > 3)} for k, row in enumerate(table)]  # 1: in a test image
    assert (read(write(root / "gap.csv", gap), mode).classes, table[3]["split"]) == (("0", "1", "2"), "TEST")
    left = read(root / "gap.csv", mode, "?drop-unknown")
    assert (left.classes, left.named) == (("0", "2"), True)


def test_the_words_of_a_table_name_its_splits_though_the_images_were_decoded_before(root: Path) -> None:
    for word in ("val", "Dev"):
        path = write(root / "t.csv", rows(split=lambda _, k, word=word: ("train", word, "test")[k % 3]))
        assert read(path).splits_from == (word, "test")


def test_a_wrong_folder_is_said_once_and_another_one_or_an_ending_can_be_named(root: Path) -> None:
    (root / "lists").mkdir()
    table = [{**row, "path": row["path"].removeprefix("img/").removesuffix(".png")} for row in rows()]
    path = write(root / "lists" / "t.csv", table)
    assert "none of the other paths is one; they are read relative to the table's folder" in refusal(f"csv:{path}")
    data = read(path, options="?images=../img&suffix=.png")
    assert len(data.train) + len(data.test) == 36
    up = write(root / "lists" / "up.csv", [{**row, "path": f"../{row['path']}"} for row in rows()])
    assert "leads out of the table's folder" in refusal(f"csv:{up}")
    whole = write(root / "lists" / "whole.csv", [{**row, "path": str(root / row["path"])} for row in rows()])
    assert real(read(whole).train) == real(data.train)
    windows = write(root / "windows.csv", [{**row, "path": row["path"].replace("/", "\\")} for row in rows()])
    assert real(read(windows).train) == real(data.train)


@MODES
def test_a_table_for_each_split(mode: str, root: Path) -> None:
    table = rows()
    train, valid, _ = (write(root / f"{name}.csv", table[k::3]) for k, name in enumerate(("train", "valid", "test")))
    data = read(train, mode, "?validation=valid.csv&test=test.csv")
    assert (len(data.train), int(data.train.columns[VALIDATES].sum()), len(data.test)) == (24, 12, 12)
    assert as_read(data, data.test, root) == [(row["path"], row["label"]) for row in table[2::3]]
    assert data.splits_from == ("valid.csv", "test.csv")
    drawn = read(train, mode, f"?validation={valid}")
    assert drawn.splits_from == ("valid.csv", "carved")
    assert int(drawn.train.columns[VALIDATES].sum()) == 12
    assert (len(drawn.train), len(drawn.test)) == (22, 2)
    assert "one table is named for two splits" in refusal(f"csv:{train}?test=train.csv")
    assert "?test=absent.csv: no such file in" in refusal(f"csv:{train}?test=absent.csv")
    mixed = write(root / "mixed.csv", rows(split=sides))
    both = write(root / "both.csv", rows(split="train"))
    assert "but the table was named for 'train'" in refusal(f"csv:{mixed}?test=both.csv")
    assert "but the table was named for 'test'" in refusal(f"csv:{both}?test=mixed.csv")


def test_a_key_that_the_last_lines_of_json_alone_have_is_a_column(root: Path) -> None:
    table = rows()
    last = [{**row, "split": "test", "group": "late"} for row in table]
    path = write(root / "late.jsonl", [*table * 30, *last])
    assert "row 1: its split is nothing" in refusal(f"jsonl:{path}")
    assert GROUP in read(path, options="?split=").train.columns


def test_a_table_without_splits_is_divided_as_a_folder_is(root: Path) -> None:
    folder = load(f"folder:{root}/img?order=natural", seed=3)
    table = read(write(root / "t.csv", rows(label=lambda place, _: place)), seed=3)
    assert (real(folder.train), real(folder.test)) == (real(table.train), real(table.test))
    other = read(root / "t.csv", seed=4)
    assert other.test.origins() != table.test.origins()
    whole = read(root / "t.csv", whole=True)
    assert (len(whole.train), len(whole.test)) == (36, 36)


def test_weights_and_groups_are_columns_of_the_images(root: Path) -> None:
    table = rows(split=sides, weight=lambda place, number: place + number / 4, group=lambda place, _: f"g{place}")
    data = read(write(root / "t.csv", table))
    wanted = [row["weight"] for row in table if row["split"] == "TEST"]
    assert data.test.columns[WEIGHT].tolist() == wanted
    pairs = set(zip(data.test.columns[GROUP].tolist(), data.test.labels.tolist(), strict=True))
    assert pairs == {(0, 0), (1, 2), (2, 1)}  # numbered by their first rows, and by the names of classes
    groups = write(
        root / "groups.csv", [{**row, "split": "", "group": f"g{k // 3 % 4}"} for k, row in enumerate(table)]
    )
    drawn = read(groups, options="?split=")
    assert not {*drawn.train.columns[GROUP].tolist()} & {*drawn.test.columns[GROUP].tolist()}
    without = read(root / "t.csv", options="?weight=&group=")
    assert without.fingerprint != data.fingerprint
    assert WEIGHT not in without.train.columns


def test_a_list_fixes_the_order_and_the_set_of_the_classes(root: Path) -> None:
    (root / "classes.txt").write_text("\ufeffclass 10\nclass 2\n\nclass 1\n", encoding="utf-8")
    path = write(root / "t.csv", rows())
    data = read(path, options="?classes=classes.txt")
    assert data.classes == ("class 10", "class 2", "class 1")
    assert {(Path(file).parent.name, label) for file, label in real(data.test).items()} == {
        ("10", 0),
        ("2", 1),
        ("1", 2),
    }
    numbers = write(root / "n.csv", rows(label=lambda place, _: place))
    assert read(numbers, options="?classes=classes.txt").classes == data.classes
    (root / "few.txt").write_text("class 1\nclass 2\n")
    assert "is none of the 2 classes that" in refusal(f"csv:{path}?classes=few.txt")
    (root / "twice.txt").write_text("a\na\n")
    assert "lists the class 'a' twice" in refusal(f"csv:{path}?classes=twice.txt")


def test_folders_of_classes_take_a_list_or_natural_order_as_timm_and_torchvision_do(root: Path) -> None:
    folder = root / "img"
    (root / "list.txt").write_text("10\n1\n2\n")
    timm, listed = ReaderImageFolder(str(folder)), ReaderImageFolder(str(folder), class_map=str(root / "list.txt"))
    plain = ImageFolder(str(folder))
    for options, samples in (
        ("?order=natural", timm.samples),
        (f"?classes={root}/list.txt", listed.samples),
        ("?order=text", plain.samples),
        ("", plain.samples),
    ):
        for mode in ("resident", "stream"):
            data = load(f"folder:{folder}{options}", delivery=Delivery(mode, 0), whole=True)  # type: ignore[arg-type]
            assert real(data.train) == {os.path.realpath(name): label for name, label in samples}, options
    (root / "list.txt").write_text("10\n1\n")
    assert "does not list the class 2" in refusal(f"folder:{folder}?classes={root}/list.txt")
    assert "allowed: text, natural" in refusal(f"folder:{folder}?order=size")


def test_the_default_order_keeps_what_was_decoded_before(root: Path) -> None:
    before = load(f"folder:{root}/img")
    assert load(f"folder:{root}/img?order=text").fingerprint == before.fingerprint
    natural = load(f"folder:{root}/img?order=natural")
    assert (natural.classes, natural.fingerprint != before.fingerprint) == (("1", "2", "10"), True)


@MODES
def test_a_changed_label_or_image_is_read_again(mode: str, root: Path) -> None:
    (root / "own").mkdir()
    table = rows()
    for place, row in enumerate(table):
        row["path"] = f"own/{place}.png"
        Image.new("RGB", (8, 8), (place, 0, 0)).save(root / row["path"])
    path = write(root / "t.csv", table)
    first = read(path, mode)
    assert read(path, mode).fingerprint == first.fingerprint
    table[0]["label"] = "class 2"
    second = read(write(path, table), mode)
    assert second.fingerprint != first.fingerprint
    Image.new("RGB", (8, 8), (200, 0, 0)).save(root / "own/0.png", compress_level=0)
    third = read(path, mode)
    assert third.fingerprint != second.fingerprint
    place = third.train.origins().index(str(root / "own/0.png"))
    assert third.train.images[place][0, 0, 0] == 200


def test_a_file_that_is_listed_twice_is_said(root: Path) -> None:
    table = rows()
    table += [table[0], {**table[1], "label": "class 2"}]
    (finding,) = (f for f in read(write(root / "t.csv", table)).findings if f.kind == "repeated-file")
    assert finding.line() == (
        f"2 rows repeat the file of another row, 1 of them with another label ({root}/img/1/01.png)"
    )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"", "t.csv is empty"),
        ("t.csv", b"path,label\n", "t.csv has no rows"),
        ("t.csv", b"path,label\na.png,b,c\n", "cannot be read: CSV parse error: Row #2: Expected 2 columns, got 3"),
        ("t.csv", b"path,label\n\xff\xe9.png,b\n", "save it as UTF-8"),
        ("t.csv", "path,label\na,b\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("t.csv", b"img/1/00.png,cat\nimg/1/01.png,dog\n", "(the first row must name the columns)"),
        ("t.jsonl", b'{"path": "a.png", "label": 1}\n{"path": \n', "row 2: "),
        ("t.jsonl", b'[{"path": "a.png", "label": 1}]\n', "row 1: "),
        ("t.jsonl", b'{"path": "a.png", "label": {"a": 1}}\n', "row 1: column 'label' holds {'a': 1}"),
        ("t.jsonl", b'{"path": ["a.png"], "label": 1}\n', "row 1: column 'path' holds ['a.png']"),
        ("t.jsonl", b"", "t.jsonl is empty"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(name: str, content: bytes, says: str, root: Path) -> None:
    (root / name).write_bytes(content)
    assert says in refusal(spec_of(root / name))


def test_what_cannot_be_asked_is_refused_in_one_line(root: Path) -> None:
    path = write(root / "t.csv", rows(split="val"))
    assert "t.csv: no row is a training image" in refusal(f"csv:{path}")
    assert "needs an existing table" in refusal(f"csv:{root}/absent.csv")
    assert refusal("qqqq:t").count("csv") == 1
    assert "known: csv, folder, hf, idx, jsonl, " in refusal("qqqq:t")
    assert f"for the file of that name write csv:{path}" in refusal(str(path))
    assert "unknown option sep; allowed: " in refusal(f"csv:{path}?sep=;")
    assert refusal(f"csv:{path}?images=absent").endswith("or in the working directory")
    assert refusal(f"csv:{path}?images=my+pictures").endswith("; a blank is written %20")


def test_parquet_of_paths_takes_splits_from_file_names_and_class_names_from_the_schema(root: Path) -> None:
    for side, part in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        table = pa.Table.from_pylist([{"image": row["path"], "label": k % 2} for k, row in enumerate(rows())][part])
        features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, root / f"{side}.parquet")
    data = load(f"parquet:{root}")
    assert (data.classes, len(data.train), len(data.test)) == (("cat", "dog"), 18, 18)
    assert set(data.test.labels.tolist()) == {1}


def test_other_images_in_a_table_are_matched_by_the_names_of_their_classes(root: Path) -> None:
    path = write(root / "t.csv", rows(label=lambda place, _: ("dog", "cat", "dog")[place]))
    taken = Taken("the run", (8, 8), Rule(size=(8, 8)), [("bird", "cat", "dog")])
    split = other_images(taken, load_registry(), f"csv:{path}", "test")
    assert split.labels.tolist() == [2] * 12 + [1] * 12 + [2] * 12
    assert not isinstance(split.images, np.ndarray)  # as of a folder: nothing is decoded into the cache


def test_the_check_counts_the_rows_and_lists_those_that_cannot_be_used(root: Path) -> None:
    path = write(root / "t.csv", rows(split=sides, label=lambda place, number: "" if number == 5 else f"c{place}"))
    found = json.loads(CliRunner().invoke(cli, ["datasets", "check", f"csv:{path}", "--json"]).stdout)
    assert (found["ignored"], found["classes"], sum(found["test"])) == (3, ["c0", "c1", "c2"], 9)
    assert found["name"] == "t"
    write(path, [*rows(), {"path": "absent.png", "label": "c0"}])
    done = CliRunner().invoke(cli, ["datasets", "check", f"csv:{path}", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["unreadable"] == [f"{path} row 38: no file {root}/absent.png"]


def test_a_spec_for_others_names_no_folder_of_this_machine() -> None:
    spec = "csv:/home/me/t.csv?test=/home/me/test.csv&label=a/b&classes=%2Fhome%2Fme%2Fc.txt&images=../img"
    assert portable_spec(spec) == "csv:t.csv?test=test.csv&label=a/b&classes=c.txt&images=img"
    assert portable_spec(portable_spec(spec)) == portable_spec(spec)
    assert portable_spec("jsonl:C:\\me\\t.jsonl") == "jsonl:t.jsonl"


def test_a_run_learns_from_a_table_and_each_image_counts_as_it_says(root: Path) -> None:
    def trained(name: str, weight: Callable[[int], int], accumulate: int = 1, **how: Any) -> dict[str, torch.Tensor]:
        table = [{**row, "split": sides(0, k), "weight": weight(k)} for k, row in enumerate(rows())]
        for row in table if how.pop("wrong", False) else []:
            row["label"] = "class 2" if row["weight"] == 0 and row["split"] == "train" else row["label"]
        path = write(root / f"{name}.csv", table)
        recipe = {"batch_size": 9, "augment": [], "optimizer": "sgd", "accumulate": accumulate, **how}
        run = zoo.train("cnn-baseline", dataset=path, epochs=1, device="cpu", recipe=recipe, output=root / name)
        assert (run.record.data.spec, run.record.data.classes) == (f"csv:{path}", ("class 1", "class 10", "class 2"))
        return read_weights(root / name)

    def alike(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], atol: float) -> bool:
        return all(torch.allclose(first[key], second[key], atol=atol) for key in first)

    even, uneven = trained("even", lambda k: 2), trained("uneven", lambda k: k % 5)
    assert alike(uneven, trained("parts", lambda k: k % 5, accumulate=3), 1e-5)
    assert not alike(uneven, even, 1e-4)
    mixing = {"augment": [{"op": "mixup"}], "lr": 0.1}
    right, wrong = (trained(f"mixed-{wrong}", lambda k: k % 5, wrong=wrong, **mixing) for wrong in (False, True))
    assert alike(right, wrong, 1e-6)  # the label of an image that counts nothing says nothing, mixed or not


def test_weights_of_0_alone_are_refused(root: Path) -> None:
    said = refusal(spec_of(write(root / "nothing.csv", rows(weight=0))))
    assert "the column 'weight' gives every image the weight 0" in said


def test_a_split_of_another_name_is_none_of_the_usual_ones(root: Path) -> None:
    table = [{**row, "split": "test_hard" if k % 9 == 4 else sides(0, k)} for k, row in enumerate(rows())]
    said = refusal(spec_of(write(root / "hard.csv", table)))
    assert "its split is 'test_hard'; known: train" in said


def test_a_table_of_training_and_validation_images_is_not_taken_for_validation_images(root: Path) -> None:
    both = write(root / "both.csv", rows(split=lambda _, k: ("train", "val")[k % 2]))
    held = write(root / "held.csv", rows(split="val"))
    whole = read(both, whole=True)
    assert (len(whole.train), len(whole.test), whole.splits_from.test) == (18, 18, "val")
    size, rule, classes = (8, 8), Rule(), ("class 1", "class 10", "class 2")
    taken = {"data_dir": None, "delivery": Delivery("resident", 0)}
    found = validation_images(spec_of(held), load_registry(), size, rule, classes, **taken)
    assert len(found.images) == 36
    with pytest.raises(InputError, match="is divided into train and test itself"):
        validation_images(spec_of(both), load_registry(), size, rule, classes, **taken)
