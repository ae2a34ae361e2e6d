"""One file of every kind of image: the same pixels by every way that an image comes in."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image
from torch import nn

from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.data.batches.mode import Delivery
from zoo.data.checks import check
from zoo.data.files.colours import Colours
from zoo.data.files.decode import Rule, image_array, opened_image
from zoo.data.files.image_files import FileImages
from zoo.data.files.worker import Part
from zoo.data.given_data import given_data
from zoo.data.load import load
from zoo.data.split import ImageData
from zoo.errors import BadImagesError, DataError, InputError
from zoo.evaluate.classifier import Classifier
from zoo.evaluate.new_images import other_images, taken_by
from zoo.evaluate.preparing import Preprocessing, as_item
from zoo.runs.images import rule_of
from zoo.runs.record import Sizes
from zoo.serve.body import decode
from zoo.serve.limits import Limits, Refused
from zoo.train.plan import resolve
from zoo.train.run_options import Request

HEIGHT, WIDTH = 16, 24
LOSSY = 12
"""Levels of 255 by which a file that loses something may differ from what was written."""

WHITE = np.array([255, 255, 255], np.uint8)
RISE, FALL = np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT)[:, None]
RGB = np.stack([RISE + 0 * FALL, 0 * RISE + FALL, (RISE + FALL) / 2], 2).round().astype(np.uint8)
GREY = RGB[..., 2]
"""The brightest value is 255, so that the white of a set is that of 8 bits."""


class Kind(NamedTuple):
    """One kind of file: its bytes, what it shows (H, W, 3), and by how much what is read may differ."""

    name: str
    ending: str
    data: bytes
    shows: np.ndarray
    near: int = 0


def written(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, 2)


def deep_png(values: np.ndarray, clear: np.ndarray | None = None) -> bytes:
    """A PNG of 16 bits a channel, in colour or with a transparent value, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    mark = [] if clear is None else [(b"tRNS", clear.astype(">u2").tobytes())]
    chunks = ((b"IHDR", head), *mark, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def white_at(shown: np.ndarray) -> np.ndarray:
    """White in the place of the colour of the first pixel."""
    return np.where((shown == shown[0, 0]).all(axis=2, keepdims=True), WHITE, shown)


def heic(image: Image.Image, **options: Any) -> bytes:
    """A file of HEIF, written as pillow-heif teaches Pillow to; Pillow forgets it again."""
    heif = pytest.importorskip("pillow_heif")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OPEN", "ID", "SAVE", "SAVE_ALL", "EXTENSION", "MIME"):
            patch.setattr(Image, name, type(getattr(Image, name))(getattr(Image, name)))
        heif.register_heif_opener()
        return written(image, "HEIF", quality=95, chroma=444, **options)


def turned(form: str, **options: Any) -> bytes:
    """An image that lies on its side, with the tag that says so."""
    tags = Image.Exif()
    tags[0x112] = 6
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(RGB)))
    return written(lying, form, exif=tags, **options)


def kinds() -> list[Kind]:
    colour, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    clear = np.dstack([RGB, np.where(np.arange(WIDTH) < 8, 0, 255) * np.ones((HEIGHT, 1), int)]).astype(np.uint8)
    on_white = RGB.copy()
    on_white[:, :8] = WHITE
    see_through = Image.fromarray(clear)
    half = np.dstack([RGB, np.full((HEIGHT, WIDTH), 128, np.uint8)])
    palette = colour.quantize(32)
    seen = np.asarray(palette.convert("RGB"))
    used = palette.getpixel((0, 0))
    holes = np.where((np.asarray(palette) == used)[..., None], WHITE, seen)
    two = Image.fromarray(GREY > 127)
    others = [Image.fromarray(np.full_like(RGB, value)) for value in (0, 90)]
    film = {"save_all": True, "append_images": others}
    ink = colour.convert("CMYK")
    values, deep = GREY.astype(np.uint16), RGB.astype(np.uint16) * 257
    return [
        Kind("jpeg", "jpg", written(colour, "JPEG", quality=95, subsampling=0), RGB, LOSSY),
        Kind("jpeg-progressive", "jpeg", written(colour, "JPEG", quality=95, progressive=True), RGB, LOSSY),
        Kind("jpeg-grey", "jpg", written(grey, "JPEG", quality=95), three(GREY), LOSSY),
        Kind("jpeg-cmyk", "jpg", written(ink, "JPEG", quality=95), RGB, LOSSY),
        Kind("jpeg-exif", "jpg", turned("JPEG", quality=95, subsampling=0), RGB, LOSSY),
        Kind("png", "png", written(colour, "PNG"), RGB),
        Kind("png-grey", "png", written(grey, "PNG"), three(GREY)),
        Kind("png-1-bit", "png", written(two, "PNG"), three(np.where(GREY > 127, 255, 0))),
        Kind("png-palette", "png", written(palette, "PNG"), seen),
        Kind("png-palette-clear", "png", written(palette, "PNG", transparency=used), holes),
        Kind("png-clear", "png", written(see_through, "PNG"), on_white),
        Kind("png-half", "png", written(Image.fromarray(half), "PNG"), (RGB * (128 / 255) + 127), 1),
        Kind("png-grey-clear", "png", written(see_through.convert("LA"), "PNG"), on_white, 255),
        Kind("png-16", "png", written(Image.fromarray(values * 257), "PNG"), three(GREY), 1),
        Kind("png-12-in-16", "png", written(Image.fromarray(values * 16 + 15), "PNG"), three(GREY), 1),
        Kind("png-16-colour", "png", deep_png(deep), RGB, 1),
        Kind("png-12-in-16-colour", "png", deep_png(RGB.astype(np.uint16) * 16 + 15), RGB, 1),
        Kind(
            "png-16-colour-clear",
            "png",
            deep_png(RGB.astype(np.uint16) * 257, RGB[0, 0].astype(int) * 257),
            white_at(RGB),
            1,
        ),
        Kind("png-16-clear", "png", deep_png(values * 257, values[0, 0] * 257), white_at(three(GREY)), 1),
        Kind("png-animated", "png", written(colour, "PNG", **film), RGB),
        Kind("png-exif", "png", turned("PNG"), RGB),
        Kind("gif", "gif", written(palette, "GIF"), seen),
        Kind("gif-animated", "gif", written(palette, "GIF", save_all=True, append_images=others), seen),
        Kind("gif-clear", "gif", written(palette, "GIF", transparency=used), holes),
        Kind("webp", "webp", written(colour, "WEBP", quality=95), RGB, LOSSY),
        Kind("webp-clear", "webp", written(see_through, "WEBP", lossless=True), on_white),
        Kind("webp-animated", "webp", written(colour, "WEBP", lossless=True, **film), RGB),
        Kind("webp-exif", "webp", turned("WEBP", lossless=True), RGB),
        Kind("tiff", "tif", written(colour, "TIFF"), RGB),
        Kind("tiff-cmyk", "tif", written(ink, "TIFF"), RGB),
        Kind("tiff-fax", "tif", written(two, "TIFF", compression="group4"), three(np.where(GREY > 127, 255, 0))),
        Kind("tiff-16", "tif", written(Image.fromarray(values * 257), "TIFF"), three(GREY), 1),
        Kind("tiff-32", "tif", written(Image.fromarray(values.astype(np.int32) * 257), "TIFF"), three(GREY), 1),
        Kind("tiff-float", "tif", written(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), three(GREY), 1),
        Kind("tiff-pages", "tiff", written(colour, "TIFF", **film), RGB),
        Kind("tiff-exif", "tif", turned("TIFF"), RGB),
        Kind("bmp", "bmp", written(colour, "BMP"), RGB),
        Kind("ppm", "ppm", written(colour, "PPM"), RGB),
        Kind("jpeg-2000", "jp2", written(colour, "JPEG2000"), RGB),
        Kind("avif", "avif", written(colour, "AVIF", quality=95, subsampling="4:4:4"), RGB, LOSSY),
        Kind("avif-clear", "avif", written(see_through, "AVIF", quality=100, subsampling="4:4:4"), on_white, 40),
        Kind("avif-animated", "avif", written(colour, "AVIF", quality=95, subsampling="4:4:4", **film), RGB, LOSSY),
        Kind("avif-exif", "avif", turned("AVIF", quality=95, subsampling="4:4:4"), RGB, LOSSY),
    ]


def phones() -> list[Kind]:
    """Kinds that need pillow-heif."""
    colour, tags = Image.fromarray(RGB), Image.Exif()
    tags[0x112] = 6
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(RGB)))
    clear = np.dstack([RGB, np.where(np.arange(WIDTH) < 8, 0, 255) * np.ones((HEIGHT, 1), int)]).astype(np.uint8)
    on_white = RGB.copy()
    on_white[:, :8] = WHITE
    return [
        Kind("heic", "heic", heic(colour), RGB, LOSSY),
        Kind("heic-clear", "HEIC", heic(Image.fromarray(clear)), on_white, 40),
        Kind("heic-exif", "heif", heic(lying, exif=tags.tobytes()), RGB, LOSSY),
        Kind("heic-named-jpg", "jpg", heic(colour), RGB, LOSSY),
    ]


KINDS = {kind.name: kind for kind in kinds()}
HEIC = ("heic", "heic-clear", "heic-exif", "heic-named-jpg")


def kind_of(name: str) -> Kind:
    return KINDS[name] if name in KINDS else {kind.name: kind for kind in phones()}[name]


def folder(root: Path, ending: str, data: bytes) -> Path:
    """A set of one image, four times."""
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (root / place).mkdir(parents=True)
        (root / place / f"x.{ending}").write_bytes(data)
    return root


def parquet(root: Path, data: bytes, beside: Path | None = None) -> Path:
    root.mkdir()
    cell = {"bytes": None if beside else data, "path": str(beside) if beside else None}
    cells = pa.array([cell, cell], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": cells, "label": [0, 1]}), root / f"{split}.parquet")
    return root


def read(spec: str, mode: str = "resident", workers: int = 0) -> ImageData:
    return load(spec, delivery=Delivery(mode, workers))  # type: ignore[arg-type]  # a word


def in_python(images: object) -> ImageData:
    given = given_data(images)
    return load(given.spec, given=given)


def by_a_worker(data: ImageData) -> np.ndarray:
    """The first test image as a process decodes it that knows nothing but the path and the rule."""
    images, pool = data.test.images, data.test.pool
    assert isinstance(images, FileImages)
    assert pool is not None
    out = np.empty((1, *images.size, 3), np.uint8)
    try:
        pool.submit(Part([str(images.path(0)).encode()], [images.stamp(0)]), out).result()
    finally:
        pool.close()
    return out[0]


def model_for(rule: Rule) -> Classifier:
    sizes = Sizes(in_channels=3, height=HEIGHT, width=WIDTH, num_classes=2)
    return Classifier(
        name="x", module=nn.Identity(), sizes=sizes, preprocessing=Preprocessing(rule), classes=("a", "b")
    )


def first(images: Any) -> np.ndarray:
    return np.asarray(images[0]).transpose(1, 2, 0)


@pytest.mark.parametrize("name", [*KINDS, *HEIC])
def test_a_kind_is_read_alike_by_every_way(name: str, tmp_path: Path) -> None:
    kind = kind_of(name)
    root = folder(tmp_path / "set", kind.ending, kind.data)
    path = next((root / "test" / "a").iterdir())
    data = read(f"folder:{root}")
    images = first(data.test.images)
    assert images.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(images.astype(float) - kind.shows).max() <= kind.near
    model = model_for(Rule(colours=data.colours))
    streamed = read(f"folder:{root}", "stream")
    ways = {
        "streamed": first(streamed.test.images),
        "parquet": first(read(f"parquet:{parquet(tmp_path / 'inside', kind.data)}").test.images),
        "parquet, beside": first(read(f"parquet:{parquet(tmp_path / 'beside', b'', path)}").test.images),
        "paths": first(in_python([(path, 0), (path, 1)] * 4).test.images),
        "bytes": first(in_python(([kind.data] * 8, [0, 1] * 4)).test.images),
        "PIL images": first(in_python(([opened_image(path) for _ in range(8)], [0, 1] * 4)).test.images),
        "predict, path": model.decode(*as_item(path)).transpose(1, 2, 0),
        "predict, PIL image": model.decode(*as_item(opened_image(path))).transpose(1, 2, 0),
        "predict, bytes": model.decode(*as_item(kind.data)).transpose(1, 2, 0),
        "serve": decode(model, kind.data, Limits())[0].transpose(1, 2, 0),
    }
    assert {way: np.array_equal(pixels, images) for way, pixels in ways.items()} == dict.fromkeys(ways, True)


def test_processes_that_decode_read_every_kind_alike(tmp_path: Path) -> None:
    names = ["jpeg-cmyk", "png-clear", "png-16", "avif-exif", *(HEIC[:1] if find_spec("pillow_heif") else ())]
    for name in names:
        kind = kind_of(name)
        data = read(f"folder:{folder(tmp_path / name, kind.ending, kind.data)}", "stream", 1)
        assert np.array_equal(by_a_worker(data), first(data.test.images)), name


def test_what_shows_grey_with_transparency_lies_on_white() -> None:
    kind = KINDS["png-grey-clear"]
    image = image_array(kind.data, Rule(), "x")
    assert (image[:, :, :8] == 255).all()
    assert np.abs(image[0, :, 8:].astype(int) - np.asarray(Image.fromarray(RGB).convert("L"))[:, 8:]).max() == 0


# ---- HEIC without its library -----------------------------------------------------------------------

HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_a_photograph_of_a_phone_says_what_to_install(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    root = folder(tmp_path, "heic", HEAD)
    with pytest.raises(DataError, match=r"is a HEIC photograph, which needs .*pillow-heif: pip install .*heif"):
        read(f"folder:{root}", mode).train.images[:]


def test_one_line_is_said_of_many_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    root = folder(tmp_path, "jpg", HEAD)  # phones and clouds name them so, too
    with pytest.raises(BadImagesError) as told:
        read(f"folder:{root}?resize=8&crop=8")
    assert len(told.value.problems) == 2
    assert "1 more like it" in str(told.value)
    result = CliRunner().invoke(cli, ["datasets", "check", f"folder:{root}"])
    assert result.exit_code != 0
    assert len([line for line in result.output.splitlines() if "pillow-heif" in line]) <= 5


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_what_was_left_out_is_tried_again_with_another_library(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    (tmp_path / "a" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    photograph = Image.new("RGB", (8, 8))
    skipped = []
    for reads in (False, True):
        monkeypatch.setattr("zoo.data.files.heif.reads_heif", lambda reads=reads: reads)
        if reads:  # as pillow-heif would, which the tests do not need
            monkeypatch.setattr("zoo.data.files.decode.heif_image", lambda item: photograph.copy())
        delivery = Delivery("stream", 0, "cpu") if mode == "stream" else Delivery()
        skipped.append(load(f"folder:{tmp_path}", skip_bad=True, delivery=delivery).skipped)
    assert skipped == [1, 0]


def test_the_white_of_a_list_of_files_is_looked_for_again_when_one_changes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tif" for number in range(12)]
    white = []
    for most in (4000, 60000):  # of the same size in bytes
        for number, path in enumerate(paths):
            Image.fromarray(np.full((8, 8), most * (number + 1) // 12, np.uint16)).save(path)
        given = given_data([(str(path), number % 2) for number, path in enumerate(paths)])
        white.append(load(given.spec, given=given).white)
    assert white == [4095, 65280]


def test_a_server_without_the_library_names_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(Refused, match=r"no image in a known format; known are JPEG, .*JPEG2000$") as refused:
        decode(model_for(Rule()), HEAD, Limits())
    assert refused.value.status == 415


def test_a_damaged_photograph_is_named() -> None:
    pytest.importorskip("pillow_heif")
    with pytest.raises(DataError, match=r"^x\.heic: cannot be read as an image"):
        image_array(HEAD, Rule(), "x.heic")


def test_pillows_own_formats_stay_as_they_are() -> None:
    pytest.importorskip("pillow_heif")
    before = set(Image.OPEN)
    image_array(kind_of("heic").data, Rule(), "x")
    assert set(Image.OPEN) - before <= {"AVIF", "JPEG2000", "TIFF"} | set(Image.MIME)
    assert "HEIF" not in Image.OPEN


# ---- range ------------------------------------------------------------------------------------------


def deep_set(root: Path, low: float, high: float, kind: type = np.float32) -> Path:
    """Values of low to high across, a little otherwise in each image."""
    for row in range(12):
        values = np.linspace(low, high, 8 * 9).reshape(8, 9)
        values[0, 0] += row * (high - low) / 50
        place = root / ("train" if row % 3 else "test") / "ab"[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(kind)).save(place / f"{row:02d}.tif")
    return root


@pytest.mark.parametrize("mode", ["resident", "stream"])
@pytest.mark.parametrize(
    ("low", "high", "kind"), [(-1000, 400, np.float32), (-1000, 400, np.int32), (500, 1500, np.uint16)]
)
def test_a_range_becomes_black_to_white(low: int, high: int, kind: type, mode: str, tmp_path: Path) -> None:
    data = read(f"folder:{deep_set(tmp_path, low, high, kind)}?range={low}..{high}", mode)
    image = data.train.images[0][0].ravel().astype(int)
    assert image[0] < 20
    assert np.abs(image[1:] - np.linspace(0, 255, 72)[1:]).max() <= 2
    assert (data.white, data.colours.black) == (high, low)
    assert "white" not in {finding.kind for finding in check(data)}
    narrow = read(f"folder:{tmp_path}?range={low + 100}..{high - 100}", mode).train.images[0][0].ravel()
    assert (narrow[1], narrow[-1]) == (0, 255)


def test_values_that_are_no_numbers_are_black_in_a_range_too() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.0, 50.0, -50.0]], np.float32)
    rule = Rule(colours=Colours(white=50, black=-50))
    assert image_array(lambda: Image.fromarray(values), rule, "x")[0, 0].tolist() == [0, 255, 0, 127, 255, 0]


def test_a_range_holds_for_colour_of_16_bits() -> None:
    data = deep_png(RGB.astype(np.uint16) * 4 + 1000)
    image = image_array(data, Rule(colours=Colours(white=2020, black=1000)), "x").transpose(1, 2, 0)
    assert np.abs(image.astype(int) - RGB).max() <= 1


@pytest.mark.parametrize("wrong", ["0", "4095..0", "5..5", "a..b", "0..inf", "..", "1..2..3"])
def test_a_range_is_two_numbers(wrong: str, tmp_path: Path) -> None:
    deep_set(tmp_path, 0, 1)
    with pytest.raises(InputError, match=r"range must be the values that are black and white, LOW\.\.HIGH"):
        read(f"folder:{tmp_path}?range={wrong}")
    with pytest.raises(InputError, match="white and range both say which value is white; give one of them"):
        read(f"folder:{tmp_path}?range=0..1&white=1")


def test_a_range_from_0_is_the_white_that_it_names(tmp_path: Path) -> None:
    deep_set(tmp_path, 0, 1)
    one, other = (read(f"folder:{tmp_path}?{option}") for option in ("range=0..2", "white=2"))
    assert one.fingerprint == other.fingerprint
    assert one.colours == other.colours


def test_a_range_that_changes_nothing_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path, "png", KINDS["png"].data)
    found = {finding.kind for finding in check(read(f"folder:{root}?range=0..4095"))}
    assert "unused-range" in found
    assert "unused-range" not in {finding.kind for finding in check(read(f"folder:{root}"))}


def test_a_run_records_range_and_background_and_reads_new_images_by_them(tmp_path: Path) -> None:
    root = deep_set(tmp_path / "run", -1000, 400)
    asked = {"protocol": "paper", "image_size": 32, "device": "cpu", "data_mode": "resident"}
    spec = f"folder:{root}?range=-1000..400&background=black"
    plan = resolve(Request(model="cnn-baseline", dataset=spec, **asked))  # type: ignore[arg-type]  # of mixed types
    record, registry = plan.record, load_registry()
    assert (record.data.white, record.data.black, record.data.background) == (400, -1000, "black")
    # Where the dataset is not known, as in a package of somebody else's, the record alone says it.
    far = msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, spec="theirs"))
    assert rule_of(far, registry).colours == Colours(400, "black", -1000)
    other = deep_set(tmp_path / "other", -300, -300)
    Image.fromarray(np.dstack([RGB, np.zeros_like(GREY)])).save(other / "test" / "a" / "clear.png")
    images = other_images(taken_by(record, registry), registry, f"folder:{other}", "test").images
    assert [int(image.max()) for image in images] == [127, 127, 0, 127, 127]
