"""Images that are given in Python in place of a SPEC."""

from __future__ import annotations

import io
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_things import ARRAYS, IMAGES, LABELS, plan_with, train, write_nets
from PIL import Image

from zoo.catalogue.registry import load_registry
from zoo.data.given_data import given_data
from zoo.data.load import load
from zoo.data.sources.source import Once
from zoo.data.split import ImageData
from zoo.data.split_findings import refuse_classes
from zoo.errors import DataError, InputError, RunError, SizesError, ZooError
from zoo.plugin.contract import ImageSplits
from zoo.runs.folder import read_weights
from zoo.runs.images import RunImages, split_of
from zoo.runs.record import read_record
from zoo.train.given import again
from zoo.train.runner import Watch, train_in
from zoo.train.start import continued

NAMES = ("red", "green", "blue")
BOTH = (slice(0, 20), slice(20, 30))


class Items:
    """A torch dataset, as its protocol is: a length, and items by number."""

    def __init__(self, rows: slice, form: Callable[[Any], Any], classes: Any = NAMES) -> None:
        self.images, self.labels, self.form, self.classes = IMAGES[rows], LABELS[rows], form, classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        if row >= len(self):
            raise IndexError(row)
        return self.form(self.images[row]), self.labels[row]


class Part:
    """As `torch.utils.data.Subset`: it has no classes of its own."""

    def __init__(self, dataset: Items) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Any:
        return self.dataset[row]


def as_tensor(image: Any) -> torch.Tensor:
    """As torchvision's ToTensor."""
    return torch.tensor(image).permute(2, 0, 1) / 255


def opened(dataset: Any, **options: Any) -> ImageData:
    given = given_data(dataset)
    return load(given.spec, None, given=given, **options)


def as_tensors(rows: slice) -> tuple[Any, Any]:
    return torch.tensor(IMAGES[rows]).permute(0, 3, 1, 2) / 255, torch.tensor(LABELS[rows])


UNNAMED = {
    "arrays": ARRAYS,
    "channels first": tuple((IMAGES[rows].transpose(0, 3, 1, 2), LABELS[rows][:, None]) for rows in BOTH),
    "float tensors": tuple(map(as_tensors, BOTH)),
    "integers and lists": tuple((IMAGES[rows].astype(int), LABELS[rows].tolist()) for rows in BOTH),
    "a mapping": {"train": ARRAYS[0], "test": ARRAYS[1]},
    "splits": ImageSplits(*ARRAYS),
    "lists of arrays": tuple((list(IMAGES[rows]), list(LABELS[rows])) for rows in BOTH),
    "pictures": tuple(([Image.fromarray(i) for i in IMAGES[rows]], list(torch.tensor(LABELS[rows]))) for rows in BOTH),
    "datasets": [Items(rows, Image.fromarray, None) for rows in BOTH],
}
NAMED = {
    "splits": ImageSplits(*ARRAYS, NAMES),
    "a mapping": {"train": ARRAYS[0], "test": ARRAYS[1], "classes": NAMES},
    "datasets of pictures": tuple(Items(rows, Image.fromarray) for rows in BOTH),
    "datasets of tensors": {"train": Items(BOTH[0], as_tensor), "test": Part(Items(BOTH[1], as_tensor))},
    "a dataset of arrays": tuple(Items(rows, lambda image: image) for rows in BOTH),
    "names for labels": {
        "train": (IMAGES[:20], [NAMES[n] for n in LABELS[:20]]),
        "test": (IMAGES[20:], np.array(NAMES)[LABELS[20:]]),
        "classes": NAMES,
    },
}


def test_all_forms_of_the_same_images_are_the_same_dataset() -> None:
    for forms, classes in ((UNNAMED, ("0", "1", "2")), (NAMED, NAMES)):
        found = {name: opened(form) for name, form in forms.items()}
        assert {data.classes for data in found.values()} == {classes}
        assert len({data.fingerprint for data in found.values()}) == 1, {n: d.fingerprint for n, d in found.items()}
        for data in found.values():
            assert np.array_equal(data.train.images, IMAGES[:20].transpose(0, 3, 1, 2))
            assert np.array_equal(data.test.labels, LABELS[20:])


def test_one_set_is_divided_always_alike_and_gray_images_have_three_channels() -> None:
    gray = IMAGES[..., 0]
    first, second = opened((gray, LABELS)), opened({"train": (gray[..., None], LABELS)})
    assert first.fingerprint == second.fingerprint
    assert (len(first.train), len(first.test), first.train.images.shape[1]) == (24, 6, 3)
    assert {*first.test.labels.tolist()} == {0, 1, 2}
    whole = given_data((gray, LABELS), whole=True)
    both = load(whole.spec, None, given=whole)
    assert len(both.train) == len(both.test) == 30


def test_the_name_says_what_it_was_and_its_content() -> None:
    spec = given_data(ARRAYS).spec
    assert spec == given_data([*ARRAYS]).spec
    assert spec.startswith("memory:arrays-")
    assert spec != given_data((ARRAYS[0], (IMAGES[20:], LABELS[20:][::-1]))).spec
    assert given_data(Items(BOTH[0], as_tensor)).spec.startswith("memory:items-")


@pytest.fixture
def photos(tmp_path: Path) -> list[tuple[Path, str]]:
    """Files of two sizes, with the names of their classes."""
    rows = []
    for row, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        path = tmp_path / f"{row}.png"
        Image.fromarray(image).resize((6 + row % 2, 6)).save(path)
        rows.append((path, NAMES[label]))
    return rows


@pytest.mark.parametrize("kind", ["RGBA", "I;16"])
def test_images_that_were_given_are_found_again_by_what_they_have_in_common(kind: str) -> None:
    """The background of transparent ones and the white of deep ones decide the pixels, and are known without them."""
    draw, images = np.random.default_rng(0), []
    for number in range(12):
        values = draw.integers(0, 4000, (8, 8), dtype=np.uint16)
        made = Image.fromarray(values) if kind == "I;16" else Image.new("RGBA", (8, 8), (number, 0, 0, 9 * number))
        images.append(made)
    given = given_data((images, [number % 2 for number in range(12)]))
    data = load(given.spec, None, given=given)
    assert load(given.spec).fingerprint == data.fingerprint


def test_a_dataset_that_is_known_is_not_opened() -> None:
    class Closed:
        def identity(self) -> dict[str, Any]:
            return {"scheme": "closed"}

        def open(self) -> Any:
            raise AssertionError("opened")

    key, _ = Once(Closed()).content()
    assert key == '{"scheme": "closed"}'


def test_a_list_of_files_is_found_again_by_its_name_alone(photos: list[tuple[Path, str]]) -> None:
    given = given_data([(str(path), name) for path, name in photos])
    with pytest.raises(SizesError):
        load(given.spec, None, given=given)
    data = load(given.spec, None, given=given, image_size=6)
    assert data.classes == tuple(sorted(NAMES))
    for change in (lambda: None, lambda: shutil.rmtree(_images())):
        change()
        assert load(given.spec, None, image_size=6).fingerprint == data.fingerprint
    assert data.test.origins()[0] in [str(path) for path, _ in photos]
    photos[3][0].unlink()
    with pytest.raises(DataError, match=r"3.png: no such file \(1 of 30 are missing\)"):
        given_data(photos)


def _images() -> Path:
    from zoo.base.paths import cache_dir

    return cache_dir() / "images"


def random_image(image: Any) -> Any:
    return np.random.default_rng().integers(0, 255, image.shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ((IMAGES * 1.0, LABELS), r"float64 values from 0 to \d+; floats are taken as 0..1: divide them by 255"),
        ((IMAGES / 100.0 - 1, LABELS), r"values from -1 to .*; give them as 0..1 \(undo the normalisation"),
        ((IMAGES[:, :, :, 0] * np.nan, LABELS), "float64 values from nan to nan"),
        ((IMAGES.astype(int) * 300, LABELS), "int64 values from 0 to .*; integers are taken as 0..255"),
        ((IMAGES.astype(bool), LABELS), "images of bool; needed: uint8 of 0..255, or floats of 0..1"),
        ((IMAGES[..., :2], LABELS), r"images of shape \(30, 6, 6, 2\); needed: \(N, H, W\)"),
        ((IMAGES, LABELS[:5]), r"dataset \(train\): 30 images for 5 labels"),
        ((IMAGES, LABELS + 0.5), r"dataset \(train\), image 0: its label holds 0.5, which is not a class"),
        ((IMAGES, LABELS - 1), r"dataset \(train\), image 0: label -1, allowed: 0 and above"),
        (ImageSplits(*ARRAYS, ("a", "b")), r"dataset \(train\), image 2: label 2, allowed: 0..1"),
        ({"train": (IMAGES, ["x"] * 30), "classes": ("a", "b")}, "the label 'x' is no class; the classes are a, b"),
        ({"tain": (IMAGES, LABELS)}, "unknown key 'tain'; allowed: train, validation, test, classes"),
        (3, r"cannot be made of a int; give a SPEC, \(\(images, labels\)"),
        ([1, 2, 3], r"cannot be made of a list of 3 values \(int, int, int\)"),
        (Items(slice(0, 0), as_tensor), r"dataset \(train\): holds no images"),
        (
            Items(BOTH[0], random_image),
            "its images are others each time that they are read; take the random transforms",
        ),
        (Items(BOTH[0], str), r"dataset \(train\), image 0: is a str; give a PIL image, an array or a tensor"),
        ([("nowhere.png", 0), ("nor.png", 1)], r"nowhere.png: no such file \(2 of 2 are missing\)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(dataset: Any, message: str) -> None:
    with pytest.raises(ZooError, match=message) as caught:
        opened(dataset)
    assert "\n" not in str(caught.value)


def test_a_loader_is_told_from_its_dataset() -> None:
    loader = torch.utils.data.DataLoader(Items(BOTH[0], as_tensor), batch_size=4)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a DataLoader \(give its .dataset\)"):
        given_data(loader)


class Rarely(Items):
    """A dataset whose transform leaves most images as they are, the first always."""

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        image, label = super().__getitem__(row)
        self.read = getattr(self, "read", 0) + 1
        return (255 - image if row and self.read > len(self) else image), label


class Ends(Items):
    """A dataset that ends the program."""

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        raise SystemExit(3)


class Endless(Items):
    """A dataset that does not know its length."""

    def __len__(self) -> int:
        raise RuntimeError("two\nlines")


def closed() -> Image.Image:
    image = Image.fromarray(IMAGES[0])
    image.close()
    return image


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Rarely(BOTH[0], lambda image: image), "its images are others each time that they are read"),
        (Ends(BOTH[0], str), r"dataset \(train\), image 0: SystemExit: 3"),
        (Endless(BOTH[0], str), r"dataset \(train\): RuntimeError: two"),
        (([closed()] * 30, LABELS), r"dataset \(train\), image 0: the picture cannot be read: "),
        ((IMAGES[:, :0], LABELS), r"dataset \(train\): images of shape \(30, 0, 6, 3\) have no pixels"),
        ((["nowhere.png"] * 30, LABELS), r"nowhere.png: no such file \(30 of 30 are missing\)"),
        ({"train": (IMAGES, LABELS), "classes": "rgb"}, "classes: is a str; give a list of names"),
        ({"train": (IMAGES, LABELS), "classes": {0: "red"}}, "classes: is a dict; give a list of names"),
    ],
)
def test_what_fails_while_it_is_read_is_said_in_one_line(dataset: Any, message: str) -> None:
    with pytest.raises(ZooError, match=message) as caught:
        given_data(dataset)
    assert "\n" not in str(caught.value)


def test_a_class_that_train_lacks_is_behind_those_of_train() -> None:
    data = opened((Items(BOTH[0], as_tensor), Items(BOTH[1], as_tensor, ("red", "green", "gray"))))
    assert data.classes == (*NAMES, "gray")
    assert np.array_equal(data.test.labels == 3, LABELS[20:] == 2)
    with pytest.raises(DataError, match=r"'gray' has no training images.*or leave them out$"):
        refuse_classes(data)


def test_validation_images_of_python_select(tmp_path: Path) -> None:
    given = {"train": (IMAGES[:20], LABELS[:20]), "validation": (IMAGES[20:24], LABELS[20:24])}
    data = opened(given)
    parts = RunImages(data, 0.1).divided()
    assert [len(part) for part in parts] == [16, 4, 4]
    assert np.array_equal(parts[1].images[:], IMAGES[20:24].transpose(0, 3, 1, 2))
    assert data.splits_from == ("validation", "carved")
    other = opened({**given, "test": (IMAGES[24:], LABELS[24:])})
    assert [len(part) for part in RunImages(other, 0.1).divided()] == [20, 4, 6]


def test_two_datasets_that_number_their_classes_each_are_one_by_the_names() -> None:
    number = np.array([2, 0, 1])
    swapped = Items(BOTH[1], Image.fromarray, tuple(NAMES[n] for n in np.argsort(number)))
    for kind in (int, float):
        swapped.labels = number[LABELS[20:]].astype(kind)
        data = opened((Items(BOTH[0], Image.fromarray), swapped))
        assert np.array_equal(data.test.labels, LABELS[20:])
        assert data.classes == NAMES


def test_tensors_of_types_that_numpy_lacks_and_no_names_are_taken() -> None:
    half = torch.tensor(IMAGES[:, :, :, 0] // 128).bfloat16()
    data = opened({"train": (half, LABELS), "classes": None})
    assert {*np.unique(data.train.images).tolist()} == {0, 255}
    assert data.classes == ("0", "1", "2")


# ---- runs ---------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A run of given images, and one that was stopped."""
    model = f"{write_nets(tmp_path)}:MyNet"
    return (
        train(tmp_path / "whole", plan_with(model, dataset=ARRAYS)),
        train(tmp_path / "stopped", plan_with(model, dataset=ImageSplits(*ARRAYS)), steps=3),
    )


def test_a_run_is_resumed_by_its_record_while_the_cache_has_its_images(runs: tuple[Path, Path]) -> None:
    whole, stopped = runs
    record = read_record(whole)
    assert record.data.spec.startswith("memory:arrays-")
    assert len(split_of(record, "test", load_registry())) == 10
    train_in(stopped, continued(stopped), Watch())
    assert all(torch.equal(value, read_weights(stopped)[key]) for key, value in read_weights(whole).items())
    shutil.rmtree(_images())
    with pytest.raises(
        DataError, match=r"was given in Python, and its images are not in the cache any more: give them"
    ):
        split_of(record, "test", load_registry())


def test_without_the_cache_it_is_resumed_with_the_same_images_alone(runs: tuple[Path, Path]) -> None:
    whole, stopped = runs
    shutil.rmtree(_images())
    with pytest.raises(DataError, match="give them again there by dataset="):
        continued(stopped)
    with pytest.raises(RunError, match="is not the recorded one: its fingerprint is "):
        continued(stopped, given=again(dataset=((255 - IMAGES[:20], LABELS[:20]), ARRAYS[1])))
    train_in(stopped, continued(stopped, given=again(dataset=ARRAYS)), Watch())
    assert all(torch.equal(value, read_weights(stopped)[key]) for key, value in read_weights(whole).items())


def test_images_of_python_that_differ_in_their_palette_or_orientation_alone_are_other_data() -> None:
    def named(palette: int, turn: int) -> tuple[str, bytes]:
        image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) % 4, "P")
        image.putpalette([palette * value for value in range(4) for _ in range(3)])
        image.getexif()[0x112] = turn
        file = io.BytesIO()
        image.save(file, "PNG", exif=image.getexif())
        again = Image.open(file)
        given = given_data(([again] * 8, [0, 1] * 4))
        return given.spec, load(given.spec, given=given).train.images.tobytes()

    found = [named(*how) for how in ((10, 1), (20, 1), (10, 6))]
    assert len({spec for spec, _ in found}) == len({pixels for _, pixels in found}) == 3


def _deep_pages(*values: int) -> bytes:
    """A TIFF of 16 bits in colour with a page of 4x4 for each value, which Pillow does not write."""
    file = b"II*\0" + struct.pack("<I", 8)
    for number, value in enumerate(values, 1):
        bits = len(file) + 2 + 9 * 12 + 4
        pixels = bits + 6
        following = pixels + 96 if number < len(values) else 0
        short = [(256, 4), (257, 4), (258, bits), (259, 1), (262, 2), (277, 3), (278, 4)]
        tags = [(tag, 3, 3 if tag == 258 else 1, of) for tag, of in short] + [(273, 4, 1, pixels), (279, 4, 1, 96)]
        file += struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
        file += struct.pack("<I3H", following, 16, 16, 16) + struct.pack("<H", value) * 48
    return file


def test_a_later_page_of_a_deep_tiff_is_the_page_that_was_chosen(tmp_path: Path) -> None:
    (tmp_path / "pages.tif").write_bytes(_deep_pages(10 * 257, 200 * 257))
    image = Image.open(tmp_path / "pages.tif")
    image.seek(1)
    given = given_data(([image] * 8, [0, 1] * 4))
    assert set(load(given.spec, given=given).train.images.flat) == {200}
