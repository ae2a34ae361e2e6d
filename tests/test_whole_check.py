"""The check of a dataset reads everything and reports all kinds of findings at once, as text, JSON and a page."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from shard_files import write_tars

import zoo
from zoo.cli.datasets import datasets
from zoo.data import check_page, duplicates
from zoo.data.batches.mode import Delivery
from zoo.data.findings import DatasetCheck
from zoo.data.load import load
from zoo.data.pixel_findings import similar_findings, splits_of
from zoo.data.pixels import looked_at
from zoo.errors import BadImagesError

SIDE = 48
HOSTILE = "<b>cat</b>"


def texture(seed: int, height: int = SIDE, width: int = SIDE) -> Image.Image:
    """A picture with patches of colour, unlike that of any other seed."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def put(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def troubled(tmp_path: Path) -> Path:
    """A folder with a problem of each kind; images are named after what is wrong with them."""
    root = tmp_path / "pets"
    for place, name in enumerate(("dog", HOSTILE)):
        folder = name.replace("/", "-")
        for row in range(6):
            put(texture(100 * place + row), root / "train" / folder / f"{row}.png")
        for row in range(3):
            put(texture(1000 + 100 * place + row), root / "test" / folder / f"{row}.png")
    train, test = root / "train", root / "test"
    shutil.copy(train / "dog/0.png", test / "dog/copy.png")
    shutil.copy(test / "dog/0.png", test / "dog/again.png")
    shutil.copy(test / "dog/1.png", test / HOSTILE.replace("/", "-") / "torn.png")
    shutil.copy(train / "dog/1.png", train / "dog/twice.png")
    lighter = Image.eval(texture(2), lambda value: min(255, value + 12))
    put(lighter, test / "dog/similar.jpg")
    put(texture(3).resize((SIDE - 2, SIDE - 2)).resize((SIDE, SIDE)), train / HOSTILE.replace("/", "-") / "similar.png")
    put(Image.new("RGB", (SIDE, SIDE), "white"), train / "dog/white.png")
    put(Image.new("RGB", (SIDE, SIDE)), train / "dog/black.png")
    put(texture(50, 2 * SIDE, 10 * SIDE), train / "dog/wide.png")
    put(texture(51, 8, 8), train / "dog/small.png")
    (train / "dog/empty.png").write_bytes(b"")
    (test / "dog/text.png").write_text("no image")
    (train / "dog/photo.raw").write_bytes(b"x")
    put(texture(52), train / "loose.png")
    put(texture(53), train / "dog/@eaDir/0.png/thumb.png")
    return root


def typed(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(datasets, ["check", *map(str, words)])
    return done.exit_code, done.stdout


def kinds(check: DatasetCheck) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.examples for finding in check.findings}


def test_all_kinds_of_problems_are_reported_at_once(troubled: Path) -> None:
    check = zoo.check_dataset(f"folder:{troubled}")
    found, other = kinds(check), HOSTILE.replace("/", "-")
    assert found["train-test-duplicate"] == ("test/dog/copy.png = train/dog/0.png",)
    assert set(found["test-duplicate"]) == {
        "test/dog/again.png = test/dog/0.png",
        f"test/dog/1.png = test/{other}/torn.png",
    }
    assert found["test-label-conflict"] == (f"test/{other}/torn.png ({other}) = test/dog/1.png (dog)",)
    assert found["train-duplicate"] == ("train/dog/twice.png = train/dog/1.png",)
    assert found["near-train-test"] == ("test/dog/similar.jpg = train/dog/2.png",)
    assert found["near-conflict"] == (f"train/{other}/similar.png ({other}) = train/dog/3.png (dog)",)
    assert found["blank"] == ("train/dog/white.png",)
    assert found["nearly-black"] == ("train/dog/black.png",)
    assert found["odd-size"] == ("train/dog/small.png: 8x8", "train/dog/wide.png: 480x96")
    assert found["odd-shape"] == ("train/dog/wide.png: 480x96",)
    assert {"loose-image", "ignored", "differing-sizes", "sizes", "near-train"} <= found.keys()
    unread = [finding for finding in check.findings if finding.kind == "unreadable"]
    assert [(finding.level, finding.count) for finding in unread] == [("error", 1), ("error", 1)]
    assert "empty.png: cannot be read as an image: it is empty" in str(unread)
    assert (len(check.unreadable), check.usable) == (2, False)
    assert "thumb.png" not in repr(check)


def test_what_cannot_be_read_is_a_warning_where_a_run_leaves_it_out(troubled: Path) -> None:
    check = zoo.check_dataset(f"folder:{troubled}", skip_bad=True, image_size=SIDE)
    levels = {finding.level for finding in check.findings if finding.kind == "unreadable"}
    assert (levels, check.usable, check.skipped, len(check.unreadable)) == ({"warning"}, True, 2, 2)
    assert "differing-sizes" not in kinds(check)


def test_a_dataset_without_a_readable_image_names_them_all(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.png").write_bytes(b"")
    with pytest.raises(BadImagesError) as error:
        zoo.check_dataset(f"folder:{tmp_path}")
    assert len(error.value.problems) >= 2


def test_the_text_has_counts_and_the_first_five_of_each_kind(tmp_path: Path) -> None:
    for row in range(9):
        put(texture(row), tmp_path / "train/a" / f"{row}.png")
        put(texture(row), tmp_path / "test/a" / f"{row}.png")
        put(texture(100 + row), tmp_path / "train/b" / f"{row}.png")
        put(texture(200 + row), tmp_path / "test/b" / f"{row}.png")
    code, text = typed(f"folder:{tmp_path}")
    lines = text.splitlines()
    start = lines.index("warning: 9 test images are also in train")
    assert lines[start + 1 : start + 7] == [
        *(f"    test/a/{row}.png = train/a/{row}.png" for row in range(5)),
        "    ... 4 more",
    ]
    assert (code, lines[1]) == (0, "images per class: 9 in train, 9 in test")


def test_the_keys_of_the_json_are_those_that_the_docs_name(troubled: Path) -> None:
    code, text = typed(f"folder:{troubled}", "--json")
    report = json.loads(text)
    docs = (Path(__file__).parent.parent / "docs" / "check-data.md").read_text("utf-8")
    for key in (*report, *report["findings"][0], "split", "row", "source"):
        assert f"`{key}`" in docs, key
    for kind in {finding["kind"] for finding in report["findings"]}:
        assert f"`{kind}`" in docs, kind
    assert code == 1
    shared = next(finding for finding in report["findings"] if finding["kind"] == "train-test-duplicate")
    assert [image["source"] for image in shared["images"][0]] == ["test/dog/copy.png", "train/dog/0.png"]
    assert [image["split"] for image in shared["images"][0]] == ["test", "train"]


class Page(HTMLParser):
    """What a test looks for in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self.images.append(given)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href") and value]


def test_the_page_stands_alone_and_shows_pictures_of_what_was_found(troubled: Path, tmp_path: Path) -> None:
    place = tmp_path / "check.html"
    zoo.check_dataset(f"folder:{troubled}", html=place)
    text = place.read_text("utf-8")
    page = Page(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert all(image["alt"] and image["src"] for image in page.images)
    assert any("test/dog/copy.png" in str(image["alt"]) for image in page.images)
    assert page.headings[:2] == ["h1", "h2"]
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    assert "<b>cat<" not in text
    assert "&lt;b&gt;cat" in text
    assert "default-src &#39;none&#39;" in text


def test_a_page_of_many_images_stays_below_its_limit(
    troubled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "check.html"
    zoo.check_dataset(f"folder:{troubled}", html=place)
    whole = place.stat().st_size
    monkeypatch.setattr(check_page, "MAX_BYTES", whole * 3 // 4)
    zoo.check_dataset(f"folder:{troubled}", html=place)
    assert place.stat().st_size < whole * 3 // 4
    assert 'alt="dog' in place.read_text("utf-8")


def test_streamed_files_are_looked_at_as_decoded_ones_are(troubled: Path) -> None:
    (troubled / "train/dog/empty.png").unlink()
    for name in ("wide", "small"):
        (troubled / f"train/dog/{name}.png").unlink()
    found = []
    for mode in ("resident", "stream"):
        delivery = Delivery(mode, 0)  # type: ignore[arg-type]
        data = load(f"folder:{troubled}", delivery=delivery, image_size=SIDE, skip_bad=mode == "resident")
        looks = {side: looked_at(split, similar=True) for side, split in splits_of(data).items()}
        found.append({finding.kind: finding.count for finding in similar_findings(data, looks)})
        bad = sum(len(part.unreadable) for part in looks.values())
        assert bad == (0 if mode == "resident" else 1)
    assert found[0] == found[1]
    assert found[0]["near-train-test"] == 1


# ---- perceptual hashes ------------------------------------------------------------------------


def test_similar_images_of_a_given_validation_split_are_warned_of(tmp_path: Path) -> None:
    for place, name in enumerate(("cat", "dog")):
        for row in range(4):
            put(texture(100 * place + row), tmp_path / "train" / name / f"{row}.png")
            put(texture(1000 + 100 * place + row), tmp_path / "val" / name / f"{row}.png")
            put(texture(2000 + 100 * place + row), tmp_path / "test" / name / f"{row}.png")
    lighter = [Image.eval(texture(seed), lambda value: min(255, value + 12)) for seed in (0, 1001, 1100)]
    for image, path in zip(lighter, ("val/cat/a.png", "test/cat/b.png", "val/dog/c.png"), strict=True):
        put(image, tmp_path / path)
    found = kinds(zoo.check_dataset(f"folder:{tmp_path}"))
    assert {kind: shown for kind, shown in found.items() if kind.startswith("near")} == {
        "near-train-validation": ("val/cat/a.png = train/cat/0.png",),
        "near-validation-test": ("test/cat/b.png = val/cat/1.png",),
        "near-validation": ("val/dog/0.png = val/dog/c.png",),
    }


def test_pairs_of_hashes_that_differ_in_three_bits_are_all_found() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 3000, dtype=np.uint64)
    twins = hashes[:300].copy()
    for _ in range(3):
        twins ^= np.uint64(1) << generator.integers(0, 64, 300, dtype=np.uint64)
    pairs = duplicates._candidates(np.concatenate([hashes, twins]))
    found = set(map(tuple, pairs.tolist()))
    assert {(row, 3000 + row) for row in range(300)} <= found


def test_the_work_does_not_grow_with_the_square_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    true = duplicates._distances
    monkeypatch.setattr(duplicates, "_distances", lambda a, b: compared.append(len(a)) or true(a, b))
    duplicates._candidates(np.zeros(4_000, np.uint64))
    assert sum(compared) <= 4_000 * (duplicates.BANDS * duplicates.NEIGHBOURS + duplicates.NEIGHBOURS + 1)


@pytest.mark.parametrize("quality", [60, 90])
def test_a_compressed_and_a_scaled_image_have_nearly_the_same_hash(quality: int, tmp_path: Path) -> None:
    arrays = []
    for row in range(20):
        texture(row).save(tmp_path / "a.jpg", quality=quality)
        with Image.open(tmp_path / "a.jpg") as image:
            arrays += [np.asarray(texture(row)), np.asarray(image.convert("RGB"))]
    hashes = duplicates.perceptual_hashes(np.stack(arrays).transpose(0, 3, 1, 2))
    apart = duplicates._distances(hashes[::2], hashes[1::2])
    assert apart.max() <= 4
    strangers = duplicates._distances(hashes[:-2:2], hashes[2::2])
    assert strangers.min() > duplicates.FARTHEST


def test_images_that_are_all_alike_are_not_called_nearly_the_same() -> None:
    generator = np.random.default_rng(0)
    common = np.asarray(texture(0)).astype(np.float32)
    noise = [np.asarray(texture(10 + row)).astype(np.float32) for row in range(60)]
    images = np.stack([0.85 * common + 0.15 * own for own in noise]).astype(np.uint8).transpose(0, 3, 1, 2)
    images[1] = np.clip(images[0].astype(int) + generator.integers(-2, 3, images[0].shape), 0, 255)
    hashes = duplicates.perceptual_hashes(images)
    pairs = duplicates.nearly_equal_pairs(hashes, np.arange(len(images)), lambda rows: images[rows])
    assert pairs.tolist() == [[0, 1]]


def listed(root: Path, *more: str) -> Path:
    """A table of eight good images and a damaged one, with more rows behind them."""
    rows = ["path,label"]
    for row in range(8):
        put(texture(row), root / f"{row}.png")
        rows.append(f"{row}.png,{'cat' if row % 2 else 'dog'}")
    (root / "damaged.png").write_bytes(b"no image")
    table = root / "pets.csv"
    table.write_text("\n".join([*rows, "damaged.png,cat", *more]) + "\n")
    return table


def test_a_row_without_a_file_does_not_hide_the_images_that_cannot_be_read(tmp_path: Path) -> None:
    table = listed(tmp_path, "missing.png,cat")
    check = zoo.check_dataset(f"csv:{table}")
    assert not check.usable
    assert "bad-row" not in kinds(check)
    assert ["damaged.png" in check.unreadable[0], "missing.png" in check.unreadable[1]] == [True, True]
    lenient = zoo.check_dataset(f"csv:{table}", skip_bad=True)
    assert lenient.usable
    assert {"unreadable", "bad-row"} <= kinds(lenient).keys()
    assert kinds(zoo.check_dataset(f"csv:{table}?skip_bad")) == kinds(lenient)


def test_an_image_that_is_too_small_for_the_crop_is_named_where_a_run_leaves_it_out(tmp_path: Path) -> None:
    table = listed(tmp_path)
    put(texture(20, 8, 8), tmp_path / "damaged.png")
    check = zoo.check_dataset(f"csv:{table}?crop=32", skip_bad=True)
    assert check.skipped == 1
    assert ["damaged.png" in example for example in kinds(check)["unreadable"]] == [True]


def test_images_that_stay_in_their_shards_are_counted_as_decoded_ones_are(tmp_path: Path) -> None:
    for side, count in (("train", 4), ("test", 2)):
        for name, images in (("cat", count), ("dog", count), ("fox", 1)):
            for row in range(images):
                put(texture(1000 * count + 100 * len(name) + row), tmp_path / side / name / f"{row}.png")
    (tmp_path / "train/fox/0.png").write_bytes(b"damaged")
    for side in ("train", "test"):
        write_tars(tmp_path / side, tmp_path / "tars", side, 1)
    plain, streamed = (zoo.check_dataset(f"wds:{tmp_path / 'tars'}{how}") for how in ("", "?stream"))
    assert kinds(streamed) == kinds(plain)
    assert kinds(plain)["empty-class"] == ("fox",)
    assert (streamed.train, streamed.skipped) == (plain.train, plain.skipped) == ((4, 4, 0), 1)
