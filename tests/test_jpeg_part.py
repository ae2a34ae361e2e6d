"""JPEG files of which a random crop needs a part: what is decoded, what stays the same, and what a run records."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from image_folders import settle, streamed
from PIL import Image

from zoo.data.augment.crop import Bounds, Box, RandomCut, random_box
from zoo.data.batches.stream import Streamed
from zoo.data.files.colours import Colours, rgb
from zoo.data.files.decode import Rule, image_array
from zoo.data.files.jpeg import with_rows
from zoo.data.files.orientation import TURNS, stored_box, upright
from zoo.errors import DataError
from zoo.runs.record import read_record, write_record
from zoo.train.loop import Trainer
from zoo.train.plan import Plan, replan, resolve
from zoo.train.run_options import Request

SIZE = (24, 32)


def photograph(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth shapes with noise."""
    noise = np.random.default_rng(seed)
    small = Image.fromarray(noise.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(smooth + noise.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def jpeg(image: Image.Image, orientation: int = 1, **options: int | bool) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x112] = orientation
    image.save(file, "JPEG", quality=85, exif=exif, **options)
    return file.getvalue()


def cut_whole(data: bytes, cut: RandomCut) -> np.ndarray:
    """The pixels of a crop, from the whole image."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(cut.apply(rgb(upright(image), Colours()))).transpose(2, 0, 1)


# ---- the same pixels --------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_has_the_pixels_of_the_whole_image_however_the_file_is_stored(orientation: int) -> None:
    kinds = product(("RGB", "L", "CMYK"), ((61, 47), (150, 118)), (0, 2), (False, True), (0, 3))
    for mode, (width, height), subsampling, progressive, restart in kinds:
        image = photograph(width, height, mode)
        more = {"subsampling": subsampling, "progressive": progressive, "restart_marker_blocks": restart}
        data = jpeg(image, orientation, **more)
        for row in range(3):
            cut = RandomCut(4, row, Bounds(), SIZE)
            assert np.array_equal(image_array(data, cut, ""), cut_whole(data, cut)), (mode, width, more, row)


@pytest.mark.parametrize("turn", [None, *TURNS])
def test_a_part_is_cut_before_it_is_turned_as_after(turn: Image.Transpose | None) -> None:
    image = photograph(31, 20)
    turned = image if turn is None else image.transpose(turn)
    for row in range(10):
        top, left, tall, wide = random_box(1, row, turned.height, turned.width, Bounds())
        box = (left, top, left + wide, top + tall)
        part = image.crop(stored_box(box, turn, image.size))
        assert np.array_equal(turned.crop(box), part if turn is None else part.transpose(turn))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_file_that_states_fewer_rows_is_the_upper_part_of_the_image(subsampling: int) -> None:
    data = jpeg(photograph(90, 120), subsampling=subsampling)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    for rows in (17, 40, 119):
        shorter = with_rows(data, rows)
        assert shorter is not None
        assert len(shorter) == len(data)
        upper = np.asarray(Image.open(io.BytesIO(shorter)))
        assert upper.shape == (rows, 90, 3)
        assert np.array_equal(upper[: rows - 1], whole[: rows - 1])


def test_a_file_whose_rows_are_not_in_order_or_that_may_be_cut_short_is_left_as_it_is() -> None:
    image = photograph(90, 120)
    assert with_rows(jpeg(image, progressive=True), 40) is None
    for damaged in (jpeg(image)[:-1], jpeg(image) + b"more", b"\xff\xd8\xff\xd9", b"", jpeg(image)[300:]):
        assert with_rows(damaged, 40) is None


@pytest.mark.parametrize("reduced", [False, True])
def test_a_file_cut_short_is_refused_wherever_the_crop_lies(reduced: bool) -> None:
    data = jpeg(photograph(150, 118))
    for length in (len(data) * 9 // 10, len(data) - 2, len(data) - 1):
        said = set()
        for rule in (Rule((8, 8)), *(RandomCut(4, row, Bounds(reduced=reduced), (8, 8)) for row in range(8))):
            with pytest.raises(DataError, match=r"photo\.jpg: cannot be read as an image \(image file is trunc") as no:
                image_array(data[:length], rule, "photo.jpg")
            said.add(str(no.value))
        assert len(said) == 1


# ---- decoded at a reduced size ----------------------------------------------------------------


def test_an_image_is_reduced_by_what_leaves_the_crop_as_large_as_its_result() -> None:
    cut = RandomCut(0, 0, Bounds(reduced=True), SIZE)
    boxes = {
        (24, 32): 1,
        (47, 64): 1,
        (48, 63): 1,
        (48, 64): 2,
        (96, 128): 4,
        (95, 999): 2,
        (192, 256): 8,
        (999, 999): 8,
    }
    for (height, width), times in boxes.items():
        assert cut.reduction(Box(0, 0, height, width)) == times
        assert RandomCut(0, 0, Bounds(), SIZE).reduction(Box(0, 0, height, width)) == 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_reduced_image_looks_as_the_whole_one(progressive: bool, orientation: int) -> None:
    data = jpeg(photograph(811, 603), orientation, progressive=progressive)
    for row in range(6):
        cut = RandomCut(4, row, Bounds((0.3, 1.0), reduced=True), SIZE)
        found = image_array(data, cut, "")
        assert found.shape == (3, *SIZE)
        difference = np.abs(found.astype(int) - cut_whole(data, cut))
        assert 0 < difference.mean() < 2  # of 255: other pixels, of the same picture


def test_reducing_changes_no_file_that_is_not_a_jpeg() -> None:
    file = io.BytesIO()
    photograph(400, 300).save(file, "PNG")
    cut = RandomCut(4, 1, Bounds((0.5, 1.0), reduced=True), SIZE)
    assert np.array_equal(image_array(file.getvalue(), cut, ""), cut_whole(file.getvalue(), cut))


# ---- scaled by torch --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_crops_that_torch_scales_differ_from_pils_by_one_at_most_with_any_number_of_workers(
    tmp_path: Path, ending: str
) -> None:
    for number in range(24):
        path = tmp_path / f"c{number % 2}" / f"{number:03}.{ending}"
        path.parent.mkdir(exist_ok=True)
        photograph(70 + number, 90, seed=number).save(path)
    settle(tmp_path)
    rows, made = torch.arange(20).view(1, -1), []
    for workers, by_torch in ((0, False), (0, True), (2, True)):
        data = streamed(tmp_path, workers, image_size=32)
        source = Streamed(data.train, bounds=Bounds(reduced=True, by_torch=by_torch), seed=3)
        made.append(next(source.steps(rows, epoch=1))[1])
        assert data.train.pool is not None
        data.train.pool.close()
    by_pil, here, elsewhere = made
    assert torch.equal(here, elsewhere)
    assert here.stride() == elsewhere.stride()
    difference = (here.int() - by_pil.int()).abs()
    assert difference.max() == 1
    assert (difference > 0).float().mean() < 0.1


def test_only_crops_that_the_memory_of_a_worker_holds_are_left_to_torch() -> None:
    for (width, height), size in {(64, 48): (64, 48), (65, 48): (32, 24), (32, 24): (32, 24), (9, 5): (9, 5)}.items():
        cut = RandomCut(0, 0, Bounds(by_torch=True), (24, 32))
        assert cut.scaled(Image.new("RGB", (width, height))).size == size
        assert RandomCut(0, 0, Bounds(), (24, 32)).scaled(Image.new("RGB", (width, height))).size == (32, 24)


# ---- what a run records -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files much larger than what is trained on."""
    root = tmp_path_factory.mktemp("large")
    for number in range(40):
        path = root / f"c{number % 2}" / f"{number:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(photograph(160, 120, seed=number)))
    settle(root)
    return root


def planned(folder: Path, mode: str = "stream", *settings: str) -> Plan:
    request = Request(
        model="hybrid-alt-1",
        dataset=f"folder:{folder}",
        data_mode=mode,  # type: ignore[arg-type]
        workers=0,
        image_size=32,
        settings=settings,
        device="cpu",
    )
    return resolve(request)


def first_images(plan: Plan, folder: Path) -> torch.Tensor:
    """The training images of one batch, as a run of the plan reads them."""
    source = Trainer(plan, folder).data
    assert isinstance(source, Streamed)
    return next(source.steps(torch.arange(16).view(1, -1)))[1]


CROP = 'augment=[{op="random-resized-crop",scale=[0.8,1.0]}]'


def test_a_run_records_how_it_decodes_and_one_that_does_not_say_decodes_at_full_size(
    large: Path, tmp_path: Path
) -> None:
    plan = planned(large, "stream", CROP)
    assert plan.record.data.decoding == "reduced-torch"
    write_record(tmp_path, plan.record)
    record = read_record(tmp_path)
    assert record == plan.record
    earlier = msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, decoding=msgspec.UNSET))
    now, again, then = (
        first_images(made, tmp_path / str(place))
        for place, made in enumerate((plan, replan(record, workers=0), replan(earlier, workers=0)))
    )
    assert torch.equal(now, again)
    assert not torch.equal(now, then)
    rows = torch.arange(16).view(1, -1)
    whole = Streamed(plan.train, bounds=Bounds((0.8, 1.0)), seed=record.seed)
    assert torch.equal(then, next(whole.steps(rows))[1])


def test_a_run_of_an_earlier_version_that_reduced_goes_on_with_pils_filter(large: Path, tmp_path: Path) -> None:
    record = planned(large, "stream", CROP).record
    earlier = msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, decoding="reduced"))
    plan = replan(earlier, workers=0)
    assert plan.record.data.decoding == "reduced"
    by_pil = Streamed(plan.train, bounds=Bounds((0.8, 1.0), reduced=True), seed=record.seed)
    expected = next(by_pil.steps(torch.arange(16).view(1, -1)))[1]
    assert torch.equal(first_images(plan, tmp_path), expected)


def test_only_crops_that_are_cut_from_files_are_recorded(large: Path) -> None:
    assert planned(large).record.data.decoding is msgspec.UNSET
    assert planned(large, "resident", CROP).record.data.decoding is msgspec.UNSET


def test_evaluation_decodes_at_full_size(large: Path) -> None:
    data = streamed(large, image_size=32)
    source = Streamed(data.test, bounds=Bounds(reduced=True))
    path = data.test.images.path(0)  # type: ignore[union-attr]
    expected = image_array(path, Rule((32, 32)), "")
    assert np.array_equal(source.take(torch.tensor([0]))[0][0].numpy(), expected)
