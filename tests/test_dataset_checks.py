"""What `zoo datasets check` finds, and what of it `zoo train` says."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from test_folders import images, kinds, read, splits
from test_parquet import both, refusal, write

from zoo.cli.datasets import datasets
from zoo.data.checks import check
from zoo.data.files.image_files import FileImages
from zoo.data.files.worker import Part
from zoo.data.load import load
from zoo.data.split import VALIDATION_FRACTION, VALIDATION_SEED, validation_split
from zoo.errors import DataError, SizesError, UnknownNameError
from zoo.train.plan import resolve
from zoo.train.run_options import Request

NUMBERS = "the labels have no names and count the classes from 0: here they are 1 to 2"


def checked(root: Path, *options: str) -> Result:
    return CliRunner().invoke(datasets, ["check", f"folder:{root}", *options])


def said_by_training(root: Path, **more: Any) -> dict[str, str]:
    request = Request(model="cnn-baseline", dataset=f"folder:{root}", device="cpu", **more)
    return {finding.kind: finding.line() for finding in resolve(request).findings}


def leaking(root: Path) -> Path:
    """Training images that are also test images, or copies of those that a run holds out."""
    splits(root, "train", "test")
    for name in ("ant", "bee"):
        images(root / "train" / name, 20)
    labels = read(root).train.labels
    rows, held_out = validation_split(labels, VALIDATION_FRACTION, VALIDATION_SEED)
    paths = sorted((root / "train").glob("*/*.png"))
    shutil.copy(paths[held_out[0]], paths[rows[0]])
    shutil.copy(paths[rows[1]], root / "test" / "ant" / "000.png")
    return root


def test_validation_images_that_copy_a_training_image_are_found_and_said_by_training(tmp_path: Path) -> None:
    leaking(tmp_path)
    found = kinds(read(tmp_path))
    assert "1 training image that a run holds out for validation is also among" in found["validation-duplicate"]
    assert "1 test image is also in train" in found["train-test-duplicate"]
    said = said_by_training(tmp_path, image_size=16)
    assert {"validation-duplicate", "train-test-duplicate"} <= said.keys()
    assert "validation-duplicate" not in said_by_training(tmp_path, image_size=16, protocol="paper")


def test_training_looks_at_the_pixels_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaking(tmp_path)
    first = said_by_training(tmp_path, image_size=16)
    monkeypatch.setattr("zoo.data.checks.looked_at", lambda split: pytest.fail("looked at again"))
    assert said_by_training(tmp_path, image_size=16) == first
    monkeypatch.setattr("zoo.data.checks.LOOKED_AT", 0)
    shutil.rmtree(tmp_path / "test" / "bee")
    shutil.copytree(tmp_path / "test" / "ant", tmp_path / "test" / "bee")
    assert "train-test-duplicate" not in said_by_training(tmp_path, image_size=16)


def test_a_class_without_test_images_and_unequal_classes_are_said_by_training(tmp_path: Path) -> None:
    images(tmp_path / "ant", 60)
    images(tmp_path / "Ant", 60)
    images(tmp_path / "bee", 2)
    said = said_by_training(tmp_path, image_size=16)
    assert said["empty-class"] == "1 class has no test image, of 3 (bee)"
    assert "training images per class are uneven, 2 (bee) to 43 (Ant)" in said["imbalance"]
    assert "'Ant' and 'ant'" in said["similar-classes"]


def test_images_of_several_sizes_are_checked_to_the_end(tmp_path: Path) -> None:
    splits(tmp_path, "train", "test")
    Image.new("RGB", (9, 8)).save(tmp_path / "train" / "bee" / "003.png")
    (tmp_path / "train" / "ant" / "002.png").write_bytes(b"")
    with pytest.raises(SizesError, match="images differ in size"):
        load(f"folder:{tmp_path}", skip_bad=True)
    result = checked(tmp_path)
    assert result.exit_code == 1
    assert "002.png: cannot be read as an image: it is empty" in result.output
    result = checked(tmp_path, "--skip-bad", "--json")
    assert result.exit_code == 0
    found = {finding["kind"]: finding["message"] for finding in json.loads(result.stdout)["findings"]}
    assert found.keys() == {"differing-sizes", "sizes", "unreadable", "nearly-black"}
    assert "has 9x8; training needs --image-size N (all else was looked at in 64x64)" in found["differing-sizes"]


@pytest.mark.parametrize(("ending", "level"), [("DNG", "warning"), ("txt", "note")])
def test_photographs_in_a_format_that_is_not_read_are_a_warning(tmp_path: Path, ending: str, level: str) -> None:
    splits(tmp_path, "train", "test")
    images(tmp_path / "train" / "ant", 2, ending)
    found = {finding.kind: finding for finding in read(tmp_path).findings}["ignored"]
    assert (found.level, found.count) == (level, 2)
    assert found.message.endswith("convert them to JPEG or PNG") == (level == "warning")


def test_an_unknown_scheme_names_the_known_ones_once() -> None:
    with pytest.raises(UnknownNameError) as error:
        load("xls:labels.xls")
    assert str(error.value).count("parquet") == str(error.value).count("folder") == 1


@pytest.mark.parametrize("content", [b"<html>404 Not Found</html>", b"\x00\x01", b""])
def test_bytes_that_are_no_image_are_shown_and_no_address_in_memory(tmp_path: Path, content: bytes) -> None:
    cells = [{"bytes": content}] * 8
    for side in ("train", "test"):
        kind = pa.struct([("bytes", pa.binary())])
        pq.write_table(pa.table({"image": pa.array(cells, kind), "label": [0, 1] * 4}), tmp_path / f"{side}.parquet")
    message = refusal(f"parquet:{tmp_path}")
    what = f"no known format; it begins with {content[:12]!r}" if content else "it is empty"
    assert f"train.parquet row 0: cannot be read as an image: {what}; 7 more like it" in message
    lines = CliRunner().invoke(datasets, ["check", f"parquet:{tmp_path}"]).output.splitlines()
    assert len(lines) == 6
    kind = "no known format" if content else "it is empty"
    assert lines[5] == f"... 3 more images: {kind}; --json lists each"


def test_splits_of_parquet_files_that_are_not_read_are_said(tmp_path: Path) -> None:
    for name in ("train", "test", "validation", "train_small"):
        write(tmp_path / f"{name}-00000-of-00001.parquet", [0, 1] * 5)
    spec = f"parquet:{tmp_path}"
    found = {finding.kind: finding.line() for finding in check(load(spec))}
    assert "1 split of the files not read" in found["unread-split"]
    assert "(train_small)" in found["unread-split"]
    assert "unread-split" not in {finding.kind for finding in load(f"{spec}?train=train&test=test").findings}


def test_labels_that_count_from_one_are_explained(tmp_path: Path) -> None:
    both(tmp_path, [1, 2] * 5)
    spec = f"parquet:{tmp_path}"
    assert (
        NUMBERS
        in {finding.kind: finding.message for finding in check(load(spec)) if finding.level == "error"}["empty-class"]
    )
    with pytest.raises(DataError, match=NUMBERS):
        resolve(Request(model="cnn-baseline", dataset=spec, device="cpu", image_size=16))
    both(tmp_path, [1, 2] * 5, ["a", "b", "c"])
    assert NUMBERS not in str([finding.message for finding in check(load(spec))])


def test_two_classes_of_one_name_are_said(tmp_path: Path) -> None:
    both(tmp_path, [0, 1, 2, 0, 1, 2], ["crane", "bird", "crane"])
    found = {finding.kind: finding.line() for finding in check(load(f"parquet:{tmp_path}"))}
    assert found["same-name"] == "1 name is that of several classes ('crane')"


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_warnings_of_the_decoder_do_not_reach_who_loads_images(tmp_path: Path, mode: str) -> None:
    splits(tmp_path, "train", "test")
    tags = Image.Exif()
    tags[0x10F] = "x" * 50
    path = tmp_path / "train" / "ant" / "000.jpg"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, exif=tags)
    content = bytearray(path.read_bytes())
    start = content.index(b"Exif\0\0") + 14
    content[start : start + 2] = b"\xff\xff"  # more tags than there are
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as seen, Image.open(path) as image:
        warnings.simplefilter("always")
        image.getexif()
    assert [str(warning.message)[:12] for warning in seen] == ["Corrupt EXIF"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read(tmp_path, mode)
        assert len(data.train) == 9
        if data.train.pool is not None:  # which decodes while a run trains
            files = data.train.images
            assert isinstance(files, FileImages)
            part = Part([os.fsencode(files.path(0))], [files.stamp(0)])
            out = np.zeros((1, 8, 8, 3), np.uint8)
            assert data.train.pool.submit(part, out).exception() is None
