"""Sources: every scheme gives the same arrays that were put in, and says what is wrong with bad ones."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from zoo.catalogue.spec import Dataset
from zoo.data.files.decode import Rule, image_array
from zoo.data.load import load
from zoo.data.sources.hub import HubSource
from zoo.data.sources.parquet_files import split_of
from zoo.data.sources.source import Request
from zoo.data.split import is_given
from zoo.errors import BadImagesError, DataError, InputError, UnknownNameError

RNG = np.random.default_rng(7)


def pixels(n: int, side: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, counts: dict[str, int], side: int = 8) -> Path:
    for name, n in counts.items():
        (root / name).mkdir(parents=True)
        for i, array in enumerate(pixels(n, side)):
            (root / name / f"{i:03d}.png").write_bytes(png(array))
    return root


def write_parquet(path: Path, images: list[bytes], labels: list, names: list[str] | None, image: str = "img") -> None:
    cells = pa.array([{"bytes": b, "path": None} for b in images])
    table = pa.table({image: cells, "label": labels})
    if names:
        features = {image: {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def registry(**datasets: Dataset) -> SimpleNamespace:
    return SimpleNamespace(datasets=datasets, dataset=datasets.__getitem__, unknown=UnknownNameError)


def test_digits_are_the_1797_of_scikit_learn_with_a_fixed_stratified_split():
    data = load("sklearn:digits")
    assert data.train.images.shape == (1437, 3, 8, 8)
    assert data.test.images.shape == (360, 3, 8, 8)
    assert data.train.images.max() == 255
    assert (np.bincount(data.test.labels) >= 34).all()
    assert data.dataset.classes == tuple("0123456789")
    assert data.dataset.size == (8, 8)


def test_a_folder_with_train_and_test_keeps_its_pixels_and_class_order(tmp_path):
    write_folder(tmp_path / "train", {"cat": 3, "ant": 2})
    write_folder(tmp_path / "test", {"cat": 1, "ant": 1})
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "cat" / ".hidden").write_text("x")
    data = load(f"folder:{tmp_path}")
    assert data.classes == ("ant", "cat")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1]
    expected = np.asarray(Image.open(tmp_path / "train" / "cat" / "001.png")).transpose(2, 0, 1)
    assert np.array_equal(data.train.images[3], expected)
    assert data.ignored == 1


def test_one_folder_of_classes_is_split_by_the_seed(tmp_path):
    write_folder(tmp_path, {"a": 10, "b": 20})
    first, again, other = (load(f"folder:{tmp_path}", seed=s) for s in (0, 0, 1))
    assert np.bincount(first.test.labels).tolist() == [2, 4]
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize("damage", [b"", b"not an image", "cut"])
def test_a_corrupt_image_is_named_by_its_path(tmp_path, damage):
    write_folder(tmp_path / "train", {"a": 3, "b": 3}, side=32)
    write_folder(tmp_path / "test", {"a": 1, "b": 1}, side=32)
    bad = tmp_path / "train" / "b" / "001.png"
    bad.write_bytes(bad.read_bytes()[:-200] if damage == "cut" else damage)
    with pytest.raises(DataError, match=r"train/b/001\.png"):
        load(f"folder:{tmp_path}")
    data = load(f"folder:{tmp_path}", skip_bad=True)
    assert data.skipped == 1
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    kept = np.asarray(Image.open(tmp_path / "train" / "b" / "002.png")).transpose(2, 0, 1)
    assert np.array_equal(data.train.images[4], kept)


def test_a_class_folder_without_images_is_named(tmp_path):
    write_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "hollow").mkdir()
    with pytest.raises(DataError, match="hollow holds no images"):
        load(f"folder:{tmp_path}")


def test_an_empty_or_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match="holds no folders"):
        load(f"folder:{tmp_path}")
    with pytest.raises(InputError, match="no folder"):
        load(f"folder:{tmp_path}/absent")


def test_classes_that_differ_between_train_and_test_are_numbered_as_those_of_train(tmp_path):
    write_folder(tmp_path / "train", {"b": 1, "c": 1})
    write_folder(tmp_path / "test", {"a": 1, "c": 1})
    data = load(f"folder:{tmp_path}")
    assert data.classes == ("b", "c", "a")
    assert data.test.labels.tolist() == [2, 1]


def test_images_of_two_sizes_name_both_and_image_size_brings_them_together(tmp_path):
    write_folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "b" / "000.png").write_bytes(png(pixels(1, 12)[0]))
    with pytest.raises(DataError, match=r"8x8, .*12x12|12x12, .*8x8") as caught:
        load(f"folder:{tmp_path}")
    assert "--image-size N" in str(caught.value)
    assert load(f"folder:{tmp_path}", image_size=10).train.images.shape[2:] == (10, 10)


def test_a_pixel_bomb_is_refused_without_reading_its_pixels(tmp_path):
    write_folder(tmp_path, {"a": 5, "b": 5})
    Image.new("1", (9000, 9000)).save(tmp_path / "a" / "000.png")
    with pytest.raises(DataError, match=r"a/000\.png: 9000x9000 pixels are refused"):
        load(f"folder:{tmp_path}", image_size=8)


@pytest.mark.parametrize(
    ("values", "bright"),
    [
        (np.linspace(0, 1, 16, dtype=np.float32), 255),  # a share of white
        (np.linspace(0, 200, 16, dtype=np.float32), 200),
        (np.linspace(0, 200, 16).astype(np.uint16), 200),  # bytes, in a wide file
        (np.linspace(0, 51_200, 16).astype(np.uint16), 200),
    ],
)
def test_deep_images_are_as_bright_as_they_were_meant(values: np.ndarray, bright: int) -> None:
    file = io.BytesIO()
    Image.fromarray(values.reshape(4, 4)).save(file, "TIFF")
    found = image_array(file.getvalue(), Rule(), "x")
    assert found.shape == (3, 4, 4)
    assert (found.min(), found.max()) == (0, bright)
    assert len(np.unique(found)) == 16


def test_gray_palette_alpha_and_16_bit_images_become_three_channels(tmp_path):
    gray = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Image.fromarray(gray).save(tmp_path / "a" / "0.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "a" / "1.png")
    Image.fromarray(pixels(1)[0]).convert("P").save(tmp_path / "b" / "0.png")
    Image.fromarray(pixels(1)[0]).convert("RGBA").save(tmp_path / "b" / "1.png")
    data = load(f"folder:{tmp_path}")
    everything = np.concatenate([data.train.images, data.test.images])
    assert everything.shape == (4, 3, 8, 8)
    assert sum(np.array_equal(image, np.stack([gray] * 3)) for image in everything) == 2


def test_parquet_columns_and_classes_come_from_the_schema(tmp_path):
    images = pixels(6)
    names = ["north", "south"]
    write_parquet(tmp_path / "data/train-00000-of-00001.parquet", [png(i) for i in images[:4]], [0, 1, 1, 0], names)
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", [png(i) for i in images[4:]], [1, 0], names)
    data = load(f"parquet:{tmp_path}")
    assert data.classes == ("north", "south")
    assert np.array_equal(data.train.images, images[:4].transpose(0, 3, 1, 2))
    assert data.test.labels.tolist() == [1, 0]


def test_parquet_columns_can_be_named_and_text_labels_are_numbered(tmp_path):
    cells = [png(i) for i in pixels(4)]
    write_parquet(tmp_path / "train-0.parquet", cells, ["pear", "fig", "fig", "pear"], None, image="picture")
    write_parquet(tmp_path / "holdout-0.parquet", cells, ["fig", "fig", "pear", "pear"], None, image="picture")
    with pytest.raises(InputError, match=r"splits: holdout, train; name it by \?test=SPLIT"):
        load(f"parquet:{tmp_path}")
    with pytest.raises(InputError, match="columns: picture, label"):
        load(f"parquet:{tmp_path}?test=holdout")
    data = load(f"parquet:{tmp_path}?test=holdout&image=picture")
    assert data.classes == ("fig", "pear")
    assert data.train.labels.tolist() == [1, 0, 0, 1]


def test_a_bad_row_a_bad_label_and_a_bad_file_are_named(tmp_path):
    cells = [png(i) for i in pixels(4)]
    test = tmp_path / "test-0.parquet"
    write_parquet(test, cells, [0, 1, 0, 1], ["a", "b"])
    write_parquet(tmp_path / "train-0.parquet", [*cells[:2], b"junk", cells[3]], [0, 1, 0, 1], ["a", "b"])
    with pytest.raises(DataError, match=r"train-0\.parquet row 2: cannot be read"):
        load(f"parquet:{tmp_path}")
    write_parquet(tmp_path / "train-0.parquet", cells, [0, 1, 0, 2], ["a", "b"])
    with pytest.raises(DataError, match=r"train-0\.parquet row 3: label 2, allowed: 0\.\.1"):
        load(f"parquet:{tmp_path}")
    test.write_bytes(test.read_bytes()[:100])
    with pytest.raises(DataError, match=r"test-0\.parquet"):
        load(f"parquet:{tmp_path}")


def test_class_names_that_differ_between_parquet_splits_are_matched_by_name(tmp_path):
    cells = [png(i) for i in pixels(2)]
    write_parquet(tmp_path / "train-0.parquet", cells, [0, 1], ["a", "b"])
    write_parquet(tmp_path / "test-0.parquet", cells, [0, 1], ["b", "a"])
    data = load(f"parquet:{tmp_path}")
    assert (data.classes, data.test.labels.tolist()) == (("a", "b"), [1, 0])
    write_parquet(tmp_path / "test-0.parquet", cells, [0, 1], ["b", "b"])
    with pytest.raises(DataError, match="'b' is the name of several"):
        load(f"parquet:{tmp_path}")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("plain_text/test/0000.parquet", "test"),
        ("validation.parquet", "validation"),
        ("train_small-00000-of-00001.parquet", "train_small"),
        ("data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "train"),
        ("train/data-00003-of-00010.parquet", "train"),
        ("en/training/part-0.parquet", "training"),
        ("train_1.parquet", "train"),
        ("train.2.parquet", "train"),
        ("cifar10-00000-of-00001.parquet", "cifar10"),
        ("train/0000.parquet", "train"),
    ],
)
def test_the_split_of_a_parquet_file_is_in_its_name_or_folder(path, split):
    assert split_of(path) == split


def write_idx(path: Path, array: np.ndarray, packed: bool) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    data = header + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if packed else data)


def write_mnist(folder: Path, packed: bool = False) -> np.ndarray:
    images = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    end = ".gz" if packed else ""
    for stem, part in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        write_idx(folder / f"{stem}-images-idx3-ubyte{end}", images[part], packed)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{end}", np.arange(30, dtype=np.uint8)[part] % 10, packed)
    return images


def test_idx_files_are_read_gzipped_or_not(tmp_path):
    images = write_mnist(tmp_path, packed=True)
    data = load(f"idx:{tmp_path}")
    assert np.array_equal(data.train.images[:, 1], images[:20])
    assert data.test.labels.tolist() == list(range(10))


def test_torchvision_reads_what_lies_in_the_data_folder(tmp_path):
    images = write_mnist(tmp_path / "FashionMNIST" / "raw")
    data = load("torchvision:FashionMNIST", data_dir=tmp_path)
    assert np.array_equal(data.test.images[:, 0], images[20:])
    assert data.classes[1] == "Trouser"


def test_hand_made_images_of_torchvision_are_looked_at_again(tmp_path):
    write_folder(tmp_path / "eurosat" / "2750", {"Forest": 10, "River": 5})
    before = load("torchvision:EuroSAT", data_dir=tmp_path).fingerprint
    (tmp_path / "eurosat" / "2750" / "River" / "000.png").write_bytes(png(pixels(1)[0]))
    assert load("torchvision:EuroSAT", data_dir=tmp_path).fingerprint != before


def test_train_and_test_of_torchvision_are_two_splits(tmp_path):
    with pytest.raises(InputError, match=r"train and test are the same images \(split 'test'\)"):
        load("torchvision:STL10?train=test&test=test", data_dir=tmp_path)


@pytest.mark.parametrize("label", [[1, 0, 1], "a dog on a bench", None, np.array([1, 0])])
def test_a_torchvision_set_without_classes_is_refused_by_its_first_image(label, monkeypatch, tmp_path):
    class Attributes:
        def __init__(self, root):
            pass

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return Image.new("RGB", (4, 4)), label

    monkeypatch.setattr("torchvision.datasets.EuroSAT", Attributes)
    with pytest.raises(DataError, match=r"torchvision:EuroSAT \(train\), image 0: its label holds"):
        load("torchvision:EuroSAT", data_dir=tmp_path)


def test_a_validation_split_of_torchvision_is_read_where_it_is_named(tmp_path):
    for split, count in (("train", 5), ("valid", 3), ("test", 2)):
        write_folder(tmp_path / "country211" / split, {"FI": count, "SE": count})
    plain = load("torchvision:Country211", data_dir=tmp_path)
    assert (len(plain.train), len(plain.test), plain.train.columns) == (10, 4, {})
    data = load("torchvision:Country211?validation=valid", data_dir=tmp_path)
    assert is_given(data.train).tolist() == [False] * 10 + [True] * 6
    assert data.splits_from.validation == "valid"
    with pytest.raises(InputError, match="Unknown value 'dev' for argument split"):
        load("torchvision:Country211?validation=dev", data_dir=tmp_path)
    with pytest.raises(InputError, match="CIFAR10 has no split for validation"):
        load("torchvision:CIFAR10?validation=val", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"torchvision:CIFAR10 does not name its splits; leave out \?test="):
        load("torchvision:CIFAR10?test=val", data_dir=tmp_path)


def test_a_torchvision_set_without_splits_gets_a_fixed_stratified_one(tmp_path):
    write_folder(tmp_path / "eurosat" / "2750", {"Forest": 10, "River": 5})
    data = load("torchvision:EuroSAT", data_dir=tmp_path, seed=3)
    assert np.bincount(data.train.labels).tolist() == [8, 4]
    assert data.classes == ("Forest", "River")
    assert data.fingerprint == load("torchvision:EuroSAT", data_dir=tmp_path, seed=4).fingerprint


def test_a_dataset_that_cannot_be_had_says_where_it_looked_and_names_digits(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib would keep an opener made now, dead proxy included, for every later test in this process.
    monkeypatch.setattr("urllib.request._opener", None)
    with pytest.raises(DataError, match="--dataset digits") as caught:
        load("torchvision:USPS", data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_hub_out_of_reach_says_so_and_names_digits(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="--dataset digits") as caught:
        load("hf:someone/pictures", data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SSL_CERT_FILE", "/nowhere.pem", "SSL_CERT_FILE names /nowhere.pem, which does not exist"),
        ("HF_ENDPOINT", "http://127.0.0.1:1", "; HF_ENDPOINT is set to http://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://127.0.0.1:1", "; HTTPS_PROXY is set"),
    ],
)
def test_a_dataset_of_the_hub_names_the_setting_that_keeps_it_away(name, value, said, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    for variable in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv(name, value)
    huggingface_hub.close_session()
    with pytest.raises(DataError, match=re.escape(said)):
        load("hf:someone/pictures", data_dir=tmp_path)
    huggingface_hub.close_session()


def test_a_hub_dataset_downloaded_before_is_used_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sha = "1" * 40
    base = tmp_path / "hub" / "datasets--someone--pictures"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(sha)
    cells = [png(i) for i in pixels(2)]
    for split in ("train", "test"):
        write_parquet(base / "snapshots" / sha / "data" / f"{split}-0.parquet", cells, [0, 1], ["a", "b"])
    source = HubSource.make(Request("someone/pictures", tmp_path, given=True))
    assert source.sha == sha
    assert load("hf:someone/pictures", data_dir=tmp_path).classes == ("a", "b")


def test_an_unknown_name_scheme_or_option_suggests_what_there_is():
    known = registry(cifar10=Dataset(source="torchvision:CIFAR10"))
    with pytest.raises(UnknownNameError, match="did you mean cifar10"):
        load("cifar01", known)
    with pytest.raises(UnknownNameError, match="did you mean folder"):
        load("foldr:/tmp", known)
    with pytest.raises(UnknownNameError, match="did you mean CIFAR10"):
        load("torchvision:CIFAR11")
    with pytest.raises(InputError, match=r"unknown option colour; allowed: .*resize"):
        load("sklearn:digits?colour=1")


def test_the_catalogue_names_classes_and_contradictions_are_refused(tmp_path):
    write_mnist(tmp_path)
    names = tuple("abcdefghij")
    data = load("letters", registry(letters=Dataset(source=f"idx:{tmp_path}", classes=names)))
    assert data.classes == names
    assert data.name == "letters"
    with pytest.raises(DataError, match="10 classes, the catalogue says 3"):
        load("few", registry(few=Dataset(source=f"idx:{tmp_path}", num_classes=3)))


def test_real_cifar10_is_read_whole(cifar10_parquet, tmp_path):
    source = cifar10_parquet / "plain_text" / "test-00000-of-00001.parquet"
    os.symlink(source, tmp_path / "test-0.parquet")
    os.symlink(source, tmp_path / "train-0.parquet")
    data = load(f"parquet:{tmp_path / 'test-0.parquet'}", whole=True)
    assert data.test.images.shape == (10000, 3, 32, 32)
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.classes[3] == "cat"
    assert np.allclose(data.test.images.mean((0, 2, 3)) / 255, (0.4942, 0.4851, 0.4504), atol=2e-4)  # as is published


def test_every_unreadable_image_is_listed_by_path(tmp_path: Path) -> None:
    for side in ("train", "test"):
        write_folder(tmp_path / "photos" / side, {"a": 3, "b": 2})
    bad = [tmp_path / "photos" / "train" / "a" / f"bad{i}.png" for i in range(3)]
    for path in bad:
        path.write_bytes(b"no image")
    with pytest.raises(BadImagesError, match=r"2 more like it; .*--skip-bad") as caught:
        load(f"folder:{tmp_path / 'photos'}")
    assert [line.split(":")[0] for line in caught.value.problems] == [str(path) for path in bad]
    assert load(f"folder:{tmp_path / 'photos'}", skip_bad=True).skipped == 3
