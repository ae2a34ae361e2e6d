"""What streaming is made of: random crops, the index of a folder, the choice between resident and streamed."""

from __future__ import annotations

import math
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as T
from image_folders import drawn, same, settle, streamed, write_images
from PIL import Image

from zoo.catalogue import augmentation
from zoo.data.augment import boxes
from zoo.data.augment.crop import Bounds, RandomCut, crop_key, random_box
from zoo.data.augment.pipeline import crop_bounds
from zoo.data.batches.mode import Delivery, fit
from zoo.data.batches.open import open_source
from zoo.data.batches.resident import order
from zoo.data.files.decode import Rule
from zoo.data.files.image_files import FileImages, Files, Listing, index_path, list_folder, read_folder
from zoo.data.files.pool import Pool, default_workers
from zoo.data.load import load
from zoo.data.normalization import measured
from zoo.data.sources.source import silent
from zoo.data.split import Split, validation_split
from zoo.errors import DataError, InputError

BOUNDS = Bounds()
CROP = augmentation.RandomResizedCrop()


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder of 120 files for one test to break."""
    write_images(tmp_path / "few", 3, 40)
    return tmp_path / "few"


# ---- random-resized-crop ----------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (60, 400), (9, 7)])
def test_boxes_are_torchvisions_in_distribution_and_the_same_on_the_device(height: int, width: int) -> None:
    rows, key = torch.arange(3000) * 7919 + 3, crop_key(3, 5)
    ours = boxes.random_boxes(key, rows, height, width, BOUNDS)
    assert ours[:300].tolist() == [list(random_box(key, int(r), height, width, BOUNDS)) for r in rows[:300]]
    torch.manual_seed(0)
    theirs_make = T.RandomResizedCrop((height, width)).make_params
    blank = [torch.zeros(3, height, width)]
    theirs = torch.tensor([[theirs_make(blank)[k] for k in ("top", "left", "height", "width")] for _ in rows])
    for a, b in zip(ours.float().T, theirs.float().T, strict=True):
        levels = torch.cat((a, b)).unique()
        shares = [torch.searchsorted(side.sort().values, levels, right=True) / len(rows) for side in (a, b)]
        distance = float((shares[0] - shares[1]).abs().max())
        assert distance < 1.95 * math.sqrt(2 / len(rows))  # Kolmogorov-Smirnov at 0.1%


def test_a_streamed_crop_has_the_pixels_of_torchvisions() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for row in range(20):
        top, left, tall, wide = random_box(9, row, 50, 70, BOUNDS)
        expected = T.functional.resized_crop(image, top, left, tall, wide, [24, 32])
        assert np.array_equal(RandomCut(9, row, BOUNDS, (24, 32)).apply(image), expected)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((augmentation.Flip(), CROP), "first step"),
        ((CROP, CROP), "once"),
        ((augmentation.RandomResizedCrop(scale=(0.5, 0.2)),), r"scale is \[0.5, 0.2\]"),
        ((augmentation.RandomResizedCrop(ratio=(2.0, 1.0)),), "ratio"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(steps: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        crop_bounds(steps)


# ---- the index --------------------------------------------------------------------------------


def test_an_index_of_imagenets_size_is_small_and_gives_an_epoch_without_a_file() -> None:
    count, classes = 1_331_167, 1000
    labels = np.sort(np.arange(count) % classes)
    text = "".join(f"n{label:08}/n{label:08}_{row:07}.JPEG" for row, label in enumerate(labels.tolist()))
    names = np.frombuffer(text.encode(), np.uint8)
    del text
    tracemalloc.start()
    ends = (np.arange(count, dtype=np.int64) + 1) * (len(names) // count)
    sizes, times = np.full(count, 110_000), np.full(count, 1_700_000_000_000_000_000)
    listing = Listing(Files(Path("/data"), names, ends, sizes, times), labels, tuple(map(str, range(1000))), 0)
    images = FileImages(listing.files, np.arange(count), Rule((224, 224)), (224, 224))
    split = Split(images, labels, pool=Pool(0, images.rule, images.size))
    train = split.select(validation_split(split.labels, 0.1, 0)[0])
    assert images.nbytes == count * 150_528
    batches = order(0, 0, len(train))[: len(train) // 256 * 256].view(-1, 256).numpy()
    assert isinstance(train.images, FileImages)
    for rows in batches[::50]:
        for row in rows[:8].tolist():
            path = train.images.path(row)
            assert int(path.parent.name[1:]) == train.labels[row]
    assert len(listing.digest(times=True)) == 64
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    arrays = (names, ends, sizes, times, labels)
    assert sum(a.nbytes for a in arrays) < 150e6
    assert names.nbytes + labels.nbytes + peak < 300e6


def test_the_index_is_used_again_until_a_folder_changes(few: Path) -> None:
    first = list_folder(few)
    assert index_path(few).is_file()
    (few / "c00" / "00000.jpg").write_bytes(b"in place: no folder's time changes")
    kept = list_folder(few)
    assert kept.digest(times=True) == first.digest(times=True) != read_folder(few).digest(times=True)
    assert list(map(str, kept.files[:3])) == list(map(str, first.files[:3]))
    assert kept.files[-1] == few / "c02" / "00039.jpg"
    (few / "c01" / "new.png").write_bytes(b"")
    assert len(list_folder(few).files) == 121
    settle(few)
    assert len(list_folder(few).files) == 121
    index_path(few).write_bytes(b"damaged")
    assert len(list_folder(few).files) == 121


@pytest.mark.parametrize("whole", [False, True])
def test_a_file_that_was_replaced_in_its_place_stops_one_start_alone(whole: bool, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for seed, side in enumerate(("train", "val", "test")):
        write_images(root / side, 2, 4, seed=seed)
    settle(root)

    def read() -> object:
        data = streamed(root)
        return measured(data, silent) if whole else list(open_source(data.train).batches(4))

    streamed(root)
    victim = root / "train" / "c01" / "00002.jpg"
    shutil.copyfile(root / "train" / "c00" / "00001.jpg", victim)
    with pytest.raises(DataError, match=r"00002\.jpg: was changed after its folder was listed"):
        read()
    assert read()


def test_a_repaired_image_is_not_left_out_any_more(few: Path) -> None:
    victim = few / "c01" / "00007.jpg"
    content = victim.read_bytes()
    victim.write_bytes(b"damaged")
    settle(few)
    assert streamed(few).skipped == 0  # an index is kept
    assert streamed(few, skip_bad=True).skipped == 1
    victim.write_bytes(content)
    assert streamed(few, skip_bad=True).skipped == 0


def test_an_index_of_a_folder_that_may_still_change_is_not_kept(few: Path) -> None:
    (few / "c00" / "late.jpg").write_bytes(b"")
    assert len(list_folder(few).files) == 121
    assert not index_path(few).exists()


def test_nested_and_hidden_entries_are_listed_as_when_they_are_decoded(tmp_path: Path) -> None:
    write_images(tmp_path / "train", 2, 3)
    write_images(tmp_path / "test", 2, 2)
    deeper = tmp_path / "train" / "c00" / "0000"
    deeper.mkdir()
    for name in ("x.jpg", "ü b.JPG", ".hidden.jpg", "notes.txt"):
        shutil.copy(tmp_path / "test" / "c00" / "00000.jpg", deeper / name)
    decoded, data = load(f"folder:{tmp_path}"), streamed(tmp_path)
    assert (len(data.train), len(data.test), data.ignored, data.classes) == (8, 4, 1, decoded.classes)
    assert np.array_equal(data.train.images[:], decoded.train.images)
    assert np.array_equal(data.train.labels, decoded.train.labels)


# ---- the choice -------------------------------------------------------------------------------


def test_auto_says_the_arithmetic_and_streams_what_does_not_fit(few: Path, tmp_path: Path) -> None:
    small = fit(50_000, (32, 32), "cpu", disk=tmp_path, decoded=lambda: False)
    assert small.fits
    assert small.why.startswith("50,000 images x 3 x 32 x 32 bytes = 0.15 GB; ")
    large = fit(1_331_167, (10_000, 10_000), "cpu", disk=tmp_path, decoded=lambda: True)
    assert not large.fits
    assert "free in memory, of which images may take 50%" in large.why
    data = load(f"folder:{few}", delivery=Delivery("auto"))
    assert not data.streamed
    assert data.notes[0].startswith("data resident: 120 images x 3 x 12 x 12 bytes = 0.05 MB")
    data = load(f"folder:{few}", image_size=50_000, delivery=Delivery("auto", 3))
    assert data.streamed
    assert "900.00 GB" in data.notes[0]
    assert data.notes[0].endswith("files are decoded by 3 workers")
    assert not load("sklearn:digits", delivery=Delivery("auto")).streamed


def test_altered_splits_are_decoded_first_and_can_be_streamed_then(few: Path) -> None:
    spec_ = f"folder:{few}?alter_train=original,flip"
    data = load(spec_, delivery=Delivery("stream", 0))
    assert data.streamed
    assert "from the decoded cache" in data.notes[0]
    assert same(drawn(open_source(data.train)), drawn(open_source(load(spec_).train)))


def test_workers_are_as_many_as_the_cores_of_a_process_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= default_workers("cpu") <= max(1, cores // 4)
    assert default_workers("cuda") <= max(1, cores - 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(4 * cores))
    assert default_workers("cuda:0") == 1
