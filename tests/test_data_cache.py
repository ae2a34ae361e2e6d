"""The decoded cache, the splits drawn from it, altered copies, and the checks."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import ExifTags, Image, ImageOps

from zoo.base.paths import cache_dir
from zoo.catalogue.registry import Origin
from zoo.catalogue.spec import Dataset
from zoo.cli.datasets import datasets
from zoo.data.cache import cached
from zoo.data.checks import check
from zoo.data.files.decode import Rule, image_array, make_rule
from zoo.data.load import load
from zoo.data.sources.altered_images import alteration
from zoo.data.sources.plugin import PluginSource
from zoo.data.split import Split, limit, validation_split
from zoo.errors import DataError, InputError
from zoo.plugin import ImageSplits

RNG = np.random.default_rng(11)


def write(root: Path, counts: dict[str, int], side: int = 8) -> Path:
    for name, n in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            array = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(array).save(root / name / f"{i:03d}.png")
    return root


class Shown(list):
    def __call__(self, description: str, done: int, total: int) -> None:
        self.append((description, done, total))


def registry(**named: Dataset) -> SimpleNamespace:
    return SimpleNamespace(datasets=named, dataset=named.__getitem__)


def test_the_second_start_maps_the_cache_and_decodes_nothing(tmp_path):
    write(tmp_path, {"a": 10, "b": 10})
    shown = Shown()
    first = load(f"folder:{tmp_path}", show=shown)
    assert shown[-1][1:] == (4, 4)
    assert "decoding" in shown[0][0]
    again = Shown()
    second = load(f"folder:{tmp_path}", show=again)
    assert not again
    assert isinstance(second.train.images, np.memmap)
    assert not second.train.images.flags.writeable
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.train.images, first.train.images)


def test_a_changed_file_is_decoded_again(tmp_path):
    write(tmp_path, {"a": 10, "b": 10})
    before = load(f"folder:{tmp_path}").fingerprint
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a" / "003.png")
    assert load(f"folder:{tmp_path}").fingerprint != before


def test_changed_files_of_a_plugin_are_decoded_again(tmp_path):
    path = tmp_path / "one.png"
    Image.new("RGB", (4, 4), (1, 2, 3)).save(path)

    def splits(data_dir):
        return ImageSplits(([path], [0]), ([path], [0]), ("only",))

    source = PluginSource("mine.paths", splits, Origin("mine", "zoo-mine", "1", ""), {}, tmp_path)
    before, again = (cached(source, Rule(), lambda *_: None, name="x") for _ in range(2))
    assert again.fingerprint == before.fingerprint
    Image.new("RGB", (4, 4), (200, 2, 3)).save(path)
    after = cached(source, Rule(), lambda *_: None, name="x")
    assert after.train.images[0, 0, 0, 0] == 200
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("damage", ["flip", "cut", "index", "gone"])
def test_a_damaged_cache_is_made_again(damage):
    good = load("sklearn:digits")
    kept, fingerprint = np.array(good.train.images), good.fingerprint
    entry = next((cache_dir() / "images").iterdir())
    victim = entry / ("index.json" if damage == "index" else "train-images.npy")
    data = bytearray(victim.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    victim.unlink()
    if damage != "gone":
        victim.write_bytes(data[: len(data) // 2] if damage in ("cut", "index") else data)
    shown = Shown()
    again = load("sklearn:digits", show=shown)
    assert shown
    assert again.fingerprint == fingerprint
    assert np.array_equal(again.train.images, kept)


def test_a_failed_decoding_leaves_no_entry_and_no_temporary_file(tmp_path):
    write(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "003.png").write_bytes(b"junk")
    with pytest.raises(DataError):
        load(f"folder:{tmp_path}")
    assert [p for p in (cache_dir() / "images").rglob("*") if p.is_file()] == []


def test_size_is_part_of_the_key_but_the_native_size_is_not():
    known = registry(digits=Dataset(source="sklearn:digits", size=(8, 8)))
    load("digits", known)
    load("digits", known, image_size=8)
    assert len(list((cache_dir() / "images").iterdir())) == 1
    assert load("digits", known, image_size=(12, 16)).dataset.size == (12, 16)
    assert len(list((cache_dir() / "images").iterdir())) == 2


def test_resize_then_crop_is_what_pil_gives():
    image = Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    got = image_array(lambda: image.copy(), Rule(resize=24, crop=20), "x")
    scaled = image.resize((32, 24), Image.Resampling.BILINEAR).crop((6, 2, 26, 22))
    assert np.array_equal(got, np.asarray(scaled).transpose(2, 0, 1))
    assert make_rule(None, (112, 112), 256, 224) == Rule(None, 128, 112)
    with pytest.raises(InputError, match="cannot crop 300"):
        make_rule(None, None, 256, 300)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_photograph_is_turned_upright(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"photo.{kind}"
    Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path, exif=exif)
    shown = ImageOps.exif_transpose(Image.open(path))
    assert shown.size == ((30, 40) if orientation in (5, 6, 7, 8) else (40, 30))
    assert np.array_equal(image_array(path, Rule(), "x"), np.asarray(shown).transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_turn_nothing():
    image = Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    cut = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02"
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", cut):
        file = io.BytesIO()
        image.save(file, "JPEG", exif=exif)
        with Image.open(file) as opened:
            expected = np.asarray(opened).transpose(2, 0, 1)
        assert np.array_equal(image_array(file.getvalue(), Rule(), "x"), expected)


def test_a_dataset_option_resizes_and_crops():
    options = {"resize": 16, "crop": 12}
    data = load("big", registry(big=Dataset(source="sklearn:digits", size=(12, 12), options=options)))
    assert data.train.images.shape == (1437, 3, 12, 12)


def test_validation_is_stratified_disjoint_and_the_same_every_time():
    labels = np.repeat(np.arange(5), [100, 50, 30, 20, 10])
    train, validation = validation_split(labels, 0.1, 3)
    assert np.bincount(labels[validation]).tolist() == [10, 5, 3, 2, 1]
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(210))
    assert (np.diff(train) > 0).all()
    assert np.array_equal(validation, validation_split(labels, 0.1, 3)[1])
    assert not np.array_equal(validation, validation_split(labels, 0.1, 4)[1])
    with pytest.raises(InputError, match="leaves one side empty"):
        validation_split(labels, 0.0001, 3)


def test_limit_keeps_the_class_shares():
    data = load("sklearn:digits")
    few = limit(data.train, 100, 0)
    assert len(few) == 100
    assert np.ptp(np.bincount(few.labels)) <= 1
    assert np.array_equal(few.images, limit(data.train, 100, 0).images)
    assert limit(data.train, 5000) is data.train
    with pytest.raises(InputError):
        limit(data.train, 0)


def test_altered_copies_follow_one_another_and_never_leak_into_validation():
    options = {"alter_train": ["original", "flip", "brightness:0.5"], "alter_test": ["grayscale"]}
    plain = load("sklearn:digits")
    data = load("altered", registry(altered=Dataset(source="sklearn:digits", options=options)))
    n = len(plain.train)
    assert (len(data.train), data.train.copies, len(data.test)) == (3 * n, 3, 360)
    assert np.array_equal(data.train.images[n : 2 * n], plain.train.images[..., ::-1])
    assert np.array_equal(data.test.images, plain.test.images)
    assert data.fingerprint != plain.fingerprint
    train, validation = validation_split(data.train.labels, 0.1, 0, copies=3)
    assert not set(train % n) & set(validation % n)
    assert set(np.bincount(validation % n)) == {0, 3}  # every copy validates: not the first kind alone
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(3 * n))
    few = limit(data.train, 30, 0)
    assert (few.copies, len(few)) == (3, 30)
    assert np.array_equal(few.images[10:20], few.images[:10, ..., ::-1])


def test_alterations_are_what_they_are_called():
    images = RNG.integers(0, 256, (4, 3, 6, 6), dtype=np.uint8)
    gray = np.asarray(Image.fromarray(images[0].transpose(1, 2, 0)).convert("L")).astype(int)
    assert np.abs(alteration("grayscale")(images)[0] - gray).max() <= 1
    assert np.array_equal(alteration("transpose+flip")(images), images.swapaxes(2, 3)[..., ::-1])
    assert np.abs(alteration("brightness:0.75")(images) - images * 0.75).max() <= 0.5
    with pytest.raises(InputError, match="allowed: original"):
        alteration("sepia")


def test_check_finds_duplicates_empty_classes_and_conflicting_labels(tmp_path):
    write(tmp_path / "train", {"a": 3, "b": 3})
    write(tmp_path / "test", {"a": 2, "b": 2})
    same = (tmp_path / "train" / "a" / "000.png").read_bytes()
    (tmp_path / "test" / "a" / "000.png").write_bytes(same)
    (tmp_path / "train" / "b" / "002.png").write_bytes(same)
    data = load(f"folder:{tmp_path}")
    kinds = {f.kind: f for f in check(data)}
    assert set(kinds) == {"train-test-duplicate", "train-duplicate", "label-conflict"}
    assert kinds["train-test-duplicate"].examples == ("test 0 = train 0",)
    hollow = Split(data.train.images[:3], data.train.labels[:3])
    found = check(replace(data, train=hollow, findings=()))
    assert (found[0].level, found[0].examples) == ("error", ("b",))
    assert check(load("sklearn:digits")) == []


def test_the_check_command_prints_a_report_and_json(tmp_path):
    write(tmp_path, {"a": 10, "b": 10})
    done = CliRunner().invoke(datasets, ["check", f"folder:{tmp_path}", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["train"], report["findings"]) == ([8, 8], [])
    text = CliRunner().invoke(datasets, ["check", f"folder:{tmp_path}"])
    assert "no problems found" in text.stdout


def test_listing_datasets_imports_neither_torch_nor_numpy():
    script = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'PIL'): sys.modules[name] = None\n"
        "from zoo.cli.datasets import datasets\n"
        "datasets.main(['--json'], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list)


def test_importing_zoo_data_does_not_import_torch():
    script = "import sys, zoo.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_alterations_of_a_spec_are_chained_as_in_a_catalogue():
    named = registry(gray=Dataset(source="sklearn:digits", options={"alter_test": ["grayscale+flip"]}))
    assert load("sklearn:digits?alter_test=grayscale+flip").fingerprint == load("gray", named).fingerprint


def test_what_was_left_out_is_counted_as_it_is_now_and_of_altered_copies_too(tmp_path: Path) -> None:
    write(tmp_path / "set", {"a": 6, "b": 6})
    (tmp_path / "set/a/000.png").write_bytes(b"damaged")
    (tmp_path / "set/a/one.txt").touch()
    for more, ignored in (("", 1), ("&alter_test=flip", 1), ("", 2), ("&alter_test=flip", 2)):
        if ignored == 2:
            (tmp_path / "set/a/two.txt").touch()
        data = load(f"folder:{tmp_path / 'set'}?skip_bad{more}")
        assert (data.skipped, data.ignored) == (1, ignored)
    rows = [f"set/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(tmp_path.rglob("*.png"))]
    for count in (1, 2):  # rows without a label, and without a file
        rows += [f"{rows[1].partition(',')[0]},", f"none{count}.png,a"]
        (tmp_path / "set.csv").write_text("\n".join(["path,label", *rows]))
        data = load(f"csv:{tmp_path / 'set.csv'}?skip_bad")
        assert (data.skipped, data.ignored) == (1 + count, count)
