"""A dataset is known by its images, whatever their order and whatever files they came in."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server.runs import untrained_run
from PIL import Image

import zoo
from zoo.catalogue.registry import load_registry
from zoo.data.content import content_sha256
from zoo.data.load import load
from zoo.data.split import Split
from zoo.errors import RunError

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def split() -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (9, 3, 4, 5), np.uint8)
    return Split(images, np.arange(9, dtype=np.int64) % 3)


def test_the_order_of_images_and_of_classes_changes_nothing(split: Split) -> None:
    rows = np.random.default_rng(1).permutation(9)
    assert content_sha256(split.select(rows), CLASSES) == content_sha256(split, CLASSES)
    renumbered = Split(split.images, 2 - split.labels)
    assert content_sha256(renumbered, CLASSES[::-1]) == content_sha256(split, CLASSES)


def test_a_pixel_a_label_a_size_and_a_repeated_image_change_it(split: Split) -> None:
    images, labels = np.array(split.images), np.array(split.labels)
    images[4, 1, 2, 3] ^= 1
    labels[0] = 1
    others = [
        Split(images, split.labels),
        Split(split.images, labels),
        Split(np.asarray(split.images).reshape(9, 3, 5, 4), split.labels),
        split.select(np.array([0, 0, *range(1, 9)])),
        split.select(np.arange(8)),
    ]
    assert len({content_sha256(one, CLASSES) for one in (split, *others)}) == len(others) + 1


@pytest.mark.slow  # sixty thousand images are decoded
def test_the_lossless_copy_of_cifar10_has_the_images_that_the_catalogue_names(cifar10_parquet) -> None:
    registry = load_registry()
    data = load(f"parquet:{cifar10_parquet}/plain_text", registry)
    assert content_sha256(data.test, data.classes) == registry.datasets["cifar10"].sha256["test"]


def write(folder: Path, rows: np.ndarray, images: np.ndarray, labels: np.ndarray, split: str) -> None:
    """A parquet file of PNG images in the Hub's layout."""
    cells = []
    for row in rows:
        file = io.BytesIO()
        Image.fromarray(images[row]).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    names = [CLASSES[label] for label in labels[rows]]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(cells), "label": names}), folder / f"{split}.parquet")


@pytest.fixture(scope="module")
def two_copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two copies of a dataset in another order; a registry names the first one, and what its images are."""
    base = tmp_path_factory.mktemp("copies")
    generator = np.random.default_rng(2)
    for split, count in (("train", 60), ("test", 30)):
        images = generator.integers(0, 256, (count, 8, 8, 3), np.uint8)
        labels = np.arange(count) % 3
        write(base / "first", np.arange(count), images, labels, split)
        write(base / "second", generator.permutation(count), images, labels, split)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        data = load("parquet:first", load_registry())
        sha256 = {name: content_sha256(getattr(data, name), data.classes) for name in ("train", "test")}
    (base / "registry.toml").write_text(
        '[datasets.dots]\nsource = "parquet:first"\nclasses = ["ant", "bee", "cat"]\nsize = [8, 8]\n'
        "train = 60\ntest = 30\n"
        f'sha256 = {{ train = "{sha256["train"]}", test = "{sha256["test"]}" }}\n'
    )
    return base


def test_a_package_names_the_dataset_and_is_measured_on_any_copy_of_its_test_images(
    two_copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two_copies)
    run = zoo.train("cnn-baseline", dataset="parquet:second", epochs=1, output="run")
    package = zoo.package(run)
    assert zoo.Run.open(package).record.data.spec == "dots"
    assert zoo.verify(package).holds
    again = zoo.evaluate(package)
    assert again.same_as_recorded
    with pytest.raises(RunError, match="is not the recorded one"):
        zoo.evaluate(package, split="val")  # which images are held out depends on their order
    with pytest.raises(RunError, match="is not the recorded one"):
        zoo.evaluate(run, dataset="dots")  # a run says nothing of the kind

    shutil.move("first/test.parquet", "first/kept")
    shutil.copy("first/train.parquet", "first/test.parquet")
    with pytest.raises(RunError, match="is not the recorded one"):
        zoo.evaluate(package)
    shutil.move("first/kept", "first/test.parquet")


def test_the_options_that_the_recorded_images_had_are_named(tmp_path: Path) -> None:
    spec = "sklearn:digits?alter_test=transpose"
    run = untrained_run(tmp_path / "run", "cnn-baseline", spec, limit_train=64, limit_test=32)
    with pytest.raises(RunError, match=r"recorded [0-9a-f]{12}; the recorded SPEC ends in \?alter_test=transpose$"):
        zoo.evaluate(run, dataset="sklearn:digits")
