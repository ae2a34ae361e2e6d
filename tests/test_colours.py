"""One white for the images of a set, and what lies behind transparent pixels."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo.catalogue.registry import load_registry
from zoo.data.augment.crop import Bounds
from zoo.data.batches.mode import Delivery
from zoo.data.checks import check
from zoo.data.files.colours import Colours
from zoo.data.files.decode import Rule, image_array
from zoo.data.files.image_files import Stamp
from zoo.data.files.worker import Cuts, Part, decode_part, slot_bytes, slots
from zoo.data.load import load
from zoo.data.split import ImageData
from zoo.errors import DataError, InputError
from zoo.evaluate.preparing import as_item
from zoo.serve.body import decode
from zoo.serve.limits import Limits

RNG = np.random.default_rng(9)
MODES = pytest.mark.parametrize("mode", ["resident", "stream"])
PICTURES = RNG.integers(0, 256, (12, 8, 8)) * np.linspace(0.2, 1, 12)[:, None, None]
PICTURES[-1, 0, 0] = 255


def folder(root: Path, arrays: Any, ending: str = "png") -> Path:
    for row, array in enumerate(arrays):
        place = root / ("train" if row % 3 else "test") / "ab"[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(place / f"{row:02d}.{ending}")
    return root


def read(root: Path | str, mode: str = "resident") -> ImageData:
    return load(f"folder:{root}", delivery=Delivery(mode, 0))  # type: ignore[arg-type]  # a parametrized word


def pixels(data: ImageData) -> np.ndarray:
    return np.concatenate([data.train.images[:], data.test.images[:]])


def kinds(data: ImageData) -> dict[str, str]:
    return {finding.kind: finding.message for finding in check(data)}


@MODES
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_files_of_16_are_as_bright_as_in_8(tmp_path: Path, mode: str, bits: int) -> None:
    top = 2**bits - 1
    eight = read(folder(tmp_path / "eight", PICTURES.astype(np.uint8)), mode)
    deep = read(folder(tmp_path / "deep", np.round(PICTURES * top / 255).astype(np.uint16)), mode)
    assert np.abs(pixels(eight).astype(int) - pixels(deep)).max() <= 1
    assert deep.white == top
    assert f"12 images have more than 8 bits, or fractions, up to {top:,}: {top:,} is read" in kinds(deep)["white"]
    assert (eight.white, kinds(eight)) == (None, {})


def png(path: Path, values: np.ndarray) -> Path:
    """A PNG of 16 bits a channel: two channels are grey and transparency, three colour, four both."""
    kind = {2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    whole = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    return path


def tiff(path: Path, values: np.ndarray, order: str = "<", planes: int = 1) -> Path:
    """An uncompressed TIFF of 16 bits a channel in colour."""
    height, width, channels = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    tags = [(256, width), (257, height), (259, 1), (262, 2), (277, channels), (278, height), (284, planes)]
    entries = [(tag, 4, 1, struct.pack(f"{order}I", value)) for tag, value in tags]
    entries.append((258, 3, 3, struct.pack(f"{order}I", 8)))  # 16, 16, 16 stand after the head
    entries.append((273, 4, 1, struct.pack(f"{order}I", 16)))
    entries.append((279, 4, 1, struct.pack(f"{order}I", len(pixels))))
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 16 + len(pixels))
    table = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    bits = struct.pack(f"{order}4H", 16, 16, 16, 0)
    end = struct.pack(f"{order}H", len(entries)) + table + struct.pack(f"{order}I", 0)
    path.write_bytes(head + bits + pixels + end)
    return path


COLOURED = RNG.integers(0, 256, (12, 8, 9, 3)) * np.linspace(0.2, 1, 12)[:, None, None, None]
COLOURED[-1, 0, 0] = 255


@MODES
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("write", [png, tiff, partial(tiff, order=">")])
def test_fewer_bits_in_colour_of_16_are_as_bright_as_in_8(
    tmp_path: Path, mode: str, bits: int, write: Callable[[Path, np.ndarray], Path]
) -> None:
    top = 2**bits - 1
    for row, values in enumerate(COLOURED):
        place = tmp_path / "deep" / ("train" if row % 3 else "test") / "ab"[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        write(place / f"{row:02d}.{'png' if write is png else 'tif'}", np.round(values * top / 255))
    eight = read(folder(tmp_path / "eight", COLOURED.astype(np.uint8)), mode)
    deep = read(tmp_path / "deep", mode)
    assert np.abs(pixels(eight).astype(int) - pixels(deep)).max() <= 1
    assert (deep.white, set(kinds(deep))) == (top, {"white"})
    assert pixels(read(f"{tmp_path / 'deep'}?white=65535", mode)).max() == top >> 8


def test_colour_of_16_whole_bits_is_what_pillow_makes_of_it(tmp_path: Path) -> None:
    values = RNG.integers(0, 65_536, (8, 9, 3))
    values[0, 0] = 65_535
    for path in (png(tmp_path / "x.png", values), tiff(tmp_path / "x.tif", values)):
        assert (image_array(path, Rule(), "") == np.asarray(Image.open(path)).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("opaque", [4_095, 65_535])
def test_transparency_of_16_bits_has_a_white_of_its_own(tmp_path: Path, channels: int, opaque: int) -> None:
    values = np.full((4, 6, channels), 2_047)
    values[0, 0], values[..., -1], values[:, :3, -1] = 4_095, opaque, 0
    shown = image_array(png(tmp_path / "x.png", values), Rule(), "")
    assert set(np.unique(shown[:, :, :3])) == {255}  # white shines through
    assert set(np.unique(shown[:, :, 3:])) == {127}


def test_a_turned_image_in_colour_of_16_bits_is_upright(tmp_path: Path) -> None:
    values = np.round(COLOURED[-1] * 4_095 / 255)
    path = png(tmp_path / "x.png", values)
    tags = Image.Exif()
    tags[0x112] = 6
    data = tags.tobytes()[6:]
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    path.write_bytes(path.read_bytes()[:33] + chunk + path.read_bytes()[33:])
    turned = image_array(path, Rule(), "").transpose(1, 2, 0)
    assert np.abs(turned.astype(int) - np.rot90(COLOURED[-1], -1)).max() <= 1


def test_16_bit_channels_in_planes_are_refused_as_pillow_reads_them_wrongly(tmp_path: Path) -> None:
    path = tiff(tmp_path / "x.tif", COLOURED[0], planes=2)
    with pytest.raises(DataError, match="a TIFF of separate 16-bit channels; write it with the channels of a pixel"):
        image_array(path, Rule(), "x.tif")


def test_an_open_image_of_16_bits_in_colour_is_predicted_as_its_file(tmp_path: Path) -> None:
    path = png(tmp_path / "x.png", np.round(COLOURED[-1] * 4_095 / 255))
    with Image.open(path) as image:
        item, _ = as_item(image)
        assert (image_array(item, Rule(), "") == image_array(path, Rule(), "")).all()
        image.load()


def test_an_upload_of_16_bits_in_colour_is_read_as_its_file(tmp_path: Path) -> None:
    path = png(tmp_path / "x.png", np.round(COLOURED[-1] * 4_095 / 255))

    class Reader:
        def decode(self, item: Any, where: str) -> np.ndarray:
            return image_array(item, Rule(), where)

    images, size = decode(Reader(), path.read_bytes(), Limits())  # type: ignore[arg-type]  # stands in for one
    assert size == (9, 8)
    assert (images == image_array(path, Rule(), "")).all()


@MODES
def test_a_darker_image_of_a_set_stays_darker(tmp_path: Path, mode: str) -> None:
    values = range(250, 262)
    data = read(folder(tmp_path, [np.full((8, 8), value, np.uint16) for value in values]), mode)
    assert {int(x) for x in np.unique(pixels(data))} <= set(range(62, 67))
    full = [np.full((8, 8), value, np.uint16) for value in (*range(100, 111), 65_535)]
    assert pixels(read(folder(tmp_path / "full", full), mode)).reshape(12, -1)[:, 0].tolist().count(0) == 11


@pytest.mark.parametrize(("top", "white"), [(1.0, 1.0), (1.5, 1.5), (255.0, 255.0), (1_000.0, 1_023.0)])
def test_images_of_fractions_share_a_white_and_bear_what_is_no_number(tmp_path: Path, top: float, white: float) -> None:
    arrays = (PICTURES / 255 * top).astype(np.float32)
    arrays[3, 0, :3] = (np.nan, np.inf, -np.inf)
    arrays[4, 0, 0] = -1
    data = read(folder(tmp_path, arrays, "tif"))
    assert data.white == white
    assert pixels(data).max(axis=(1, 2, 3)).min() > 5
    assert "1 image with values below 0" in kinds(data)["white"]
    odd = next(image for image in pixels(data)[:, 0] if image[0, 0] == 0 and image[0, 1] == 255)
    assert odd[0, 2] == 0


@MODES
def test_fractions_beside_whole_numbers_of_many_bits_are_said_to_be_black(tmp_path: Path, mode: str) -> None:
    fractions = [Image.fromarray((array / 255).astype(np.float32)) for array in PICTURES[:4]]
    deep = [Image.fromarray(np.round(array * 257.0).astype(np.uint16)) for array in PICTURES[4:]]
    data = read(folder(tmp_path / "mixed", [*fractions, *deep], "tif"), mode)
    assert "4 images have fractions up to 1, which is black where 65,280 is white" in kinds(data)["black"]
    alone = folder(tmp_path / "alone", fractions, "tif")
    assert "black" not in kinds(read(alone, mode))
    assert "which is black where 4,095 is white" in kinds(read(f"{alone}?white=4095", mode))["black"]


def test_white_can_be_set_and_nothing_else_is_accepted(tmp_path: Path) -> None:
    folder(tmp_path, np.round(PICTURES * 4).astype(np.uint16))
    data = read(f"{tmp_path}?white=4095")
    assert (data.white, pixels(data).max()) == (4095, 63)
    assert "white" not in kinds(data)
    for wrong in ("0", "bright", "-3", "inf", "nan"):
        with pytest.raises(InputError, match="white must be the value that is white"):
            read(f"{tmp_path}?white={wrong}")
    with pytest.raises(InputError, match="background must be a colour"):
        read(f"{tmp_path}?background=bright")


def test_images_in_parquet_share_a_white_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, arrays in (("train", PICTURES[:6]), ("test", PICTURES[6:])):
        cells = []
        for array in arrays:
            buffer = io.BytesIO()
            Image.fromarray(np.round(array * 4095 / 255).astype(np.uint16)).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        pq.write_table(pa.table({"image": pa.array(cells), "label": [0, 1, 0, 1, 0, 1]}), tmp_path / f"{split}.parquet")
    data = load(f"parquet:{tmp_path}")
    assert data.white == 4095
    assert np.abs(pixels(data)[:, 0].astype(int) - PICTURES.astype(int)).max() <= 1


def test_a_run_records_its_white_and_reads_new_images_by_it(tmp_path: Path) -> None:
    from zoo.evaluate.new_images import other_images, taken_by
    from zoo.runs.images import rule_of
    from zoo.train.plan import resolve
    from zoo.train.run_options import Request

    folder(tmp_path / "run", np.round(PICTURES * 4095 / 255).astype(np.uint16))
    folder(tmp_path / "dark", np.round(PICTURES * 400 / 255).astype(np.uint16))
    asked = {"protocol": "paper", "image_size": 32, "device": "cpu", "data_mode": "resident"}
    plan = resolve(Request(model="cnn-baseline", dataset=f"folder:{tmp_path / 'run'}", **asked))  # type: ignore[arg-type]  # of mixed types
    assert plan.record.data.white == 4095
    assert [finding.kind for finding in plan.findings] == ["white"]
    registry = load_registry()
    rule = rule_of(plan.record, registry)
    image = image_array(tmp_path / "dark" / "train" / "b" / "11.png", rule, "x")
    assert image.max() <= 400 / 4095 * 255
    other = other_images(taken_by(plan.record, registry), registry, f"folder:{tmp_path / 'dark'}", "train")
    assert other.images[:].max() <= 400 / 4095 * 255


def test_a_worker_that_cuts_at_random_reads_by_the_white_of_the_set(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(np.full((8, 8), 200, np.uint16)).save(path)
    status = path.stat()
    out = slots(bytearray(slot_bytes((4, 4))), 1, (4, 4))
    cuts = Cuts(1, [0], Bounds((0.5, 1.0), (1.0, 1.0)))
    part = Part([str(path).encode()], [Stamp(status.st_size, status.st_mtime_ns)], cuts)
    decode_part(part, Rule(size=(4, 4), colours=Colours(white=2_000.0)), (4, 4), out)
    assert set(out[0, : 4 * 4 * 3].tolist()) == {25}


def test_images_that_are_nearly_black_are_a_finding(tmp_path: Path) -> None:
    root = folder(tmp_path, PICTURES.astype(np.uint8) // 4 + 100)
    dark = RNG.integers(0, 4096, (8, 8, 3)).astype(np.uint16)
    png(root / "train" / "a" / "02.png", dark)
    assert "nearly-black" not in kinds(read(root))
    found = kinds(read(f"{root}?white=65535"))
    assert found["nearly-black"].startswith("1 image is nearly black: no value above 31 of 255")


# ---- transparency -----------------------------------------------------------------------------


def clear(mode: str) -> Image.Image:
    """8x8 with an opaque square in the middle and hidden pink around it."""
    array = np.zeros((8, 8, 4), np.uint8)
    array[..., :3] = (240, 30, 250)
    array[2:6, 2:6] = (10, 20, 30, 255)
    image = Image.fromarray(array)
    if mode == "P":
        image = Image.new("P", (8, 8), 0)
        image.putpalette([240, 30, 250, 10, 20, 30])
        image.paste(1, (2, 2, 6, 6))
        image.info["transparency"] = 0
    return image if mode in ("RGBA", "P") else image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("background", "corner"), [(None, [255] * 3), ("#010203", [1, 2, 3])])
def test_what_is_transparent_shows_the_background(mode: str, background: str | None, corner: list[int]) -> None:
    rule = Rule(colours=Colours(background=background))
    image = image_array(lambda: clear(mode), rule, "x")
    assert image[:, 0, 0].tolist() == corner
    assert image[:, 4, 4].tolist() == ([10, 20, 30] if mode != "LA" else [18] * 3)


@MODES
def test_a_set_with_transparent_images_says_so_and_can_be_given_a_background(tmp_path: Path, mode: str) -> None:
    arrays: list[Any] = [clear("RGBA"), *PICTURES[1:].astype(np.uint8)]
    folder(tmp_path, arrays)
    data = read(tmp_path, mode)
    assert "1 image is transparent in places, and shown on white" in kinds(data)["transparent"]
    assert pixels(data)[8, :, 0, 0].tolist() == [255] * 3  # the first test image
    black = read(f"{tmp_path}?background=black", mode)
    assert "transparent" not in kinds(black)
    assert pixels(black)[8, :, 0, 0].tolist() == [0] * 3


def test_what_was_decoded_before_transparency_was_seen_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.base.paths import cache_dir

    def rules(root: Path) -> list[dict[str, Any]]:
        read(root)
        entries = sorted((cache_dir() / "images").glob("*/index.json"))
        found = [json.loads(path.read_text()) for path in entries]
        return [entry["rule"] for entry in found if entry["name"] == root.name]

    plain = {"size": None, "resize": None, "crop": None}
    opaque = np.dstack([RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.full((8, 8), 255, np.uint8)])
    assert rules(folder(tmp_path / "opaque", [opaque] * 12)) == [plain]
    assert rules(folder(tmp_path / "clear", [clear("RGBA")] * 12)) == [{**plain, "background": "white"}]
    assert rules(folder(tmp_path / "deep", PICTURES.astype(np.uint16))) == [{**plain, "white": 255.0}]


def test_a_set_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, PICTURES.astype(np.uint16))
    first = read(tmp_path)
    monkeypatch.setattr("zoo.data.files.depth.opened_image", lambda _: pytest.fail("looked at again"))
    assert read(tmp_path).findings == first.findings
