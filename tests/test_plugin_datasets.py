"""Datasets that a plugin brings: `plugin:PLUGIN.COMPONENT`, by name in a catalogue or as it stands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plugin_site import REGISTRY_HOOK, Site, components, site_in

from zoo.base.paths import cache_dir, data_dir

PARTS = """
import io
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.plugin import ImageSplits

def arrays(*, data_dir, count: int = 20, side: int = 6):
    images = np.arange(count * side * side * 3, dtype=np.int64).reshape(count, side, side, 3) % 251
    images = images.astype(np.uint8)
    return ImageSplits((images, np.arange(count) % 2), (images[:4] + 1, [0, 1, 0, 1]), ("a", "b"))

def encoded(*, data_dir):
    def png(value):
        out = io.BytesIO()
        Image.new("RGB", (4, 4), (value, 0, 0)).save(out, "png")
        return out.getvalue()
    return ImageSplits(([png(v) for v in range(10)], [v % 2 for v in range(10)]), ([png(99), png(98)], [0, 1]))

def paths(*, data_dir):
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    path = Path(data_dir) / "one.png"
    Image.new("RGB", (4, 4)).save(path)
    return ImageSplits(([path], [0]), ([path], [0]), ("only",))

def table(*, data_dir):
    return {"train": 1}

def uneven(*, data_dir):
    return ImageSplits((np.zeros((3, 4, 4), np.uint8), [0, 1]), (np.zeros((1, 4, 4), np.uint8), [0]))

def floats(*, data_dir):
    return ImageSplits((np.zeros((2, 4, 4)), [0, 1]), (np.zeros((2, 4, 4)), [0, 1]))

def absent(*, data_dir):
    raise ConnectionError("the server does not answer")

def exits(*, data_dir):
    raise SystemExit("no licence")

def kept(*, data_dir):
    images = np.load(Path(data_dir) / "images.npy")
    return ImageSplits((images, np.arange(len(images)) % 2), (images[:2], [0, 1]), ("a", "b"))

def deep(*, data_dir):
    files = sorted(Path(data_dir).glob("*.png"))
    return ImageSplits((files, [0, 1] * 4), (files[:2], [0, 1]), ("a", "b"))

def texts(*, data_dir):
    split = [str(path) for path in paths(data_dir=data_dir).train[0]], [0]
    return ImageSplits(split, split, ("only",))

def part(*, channels, height, width):
    pass
"""
NAMES = ("arrays", "encoded", "paths", "table", "uneven", "floats", "absent", "exits", "kept", "deep", "texts")
TOML = """
[datasets.theirs]
source = "plugin:mine.arrays"
options = { count = 12 }
num_classes = 2
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = site_in(tmp_path)
    source = components(*NAMES, kind="dataset").replace(
        "factory='{module}_parts:same'", "factory=f'zoo_mine_parts:{n}'"
    )
    found.add("mine", source + REGISTRY_HOOK, parts=PARTS, toml=TOML)
    return found


def checked(site: Site, spec: str) -> dict[str, object]:
    done = site.run("datasets", "check", spec, "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_a_plugin_s_dataset_loads_by_name_with_its_options(site: Site) -> None:
    found = checked(site, "theirs")
    assert found["train"] == [6, 6]
    assert (found["classes"], found["size"]) == (["a", "b"], [6, 6])
    assert checked(site, "plugin:mine.arrays?count=14")["train"] == [7, 7]


def test_an_edited_factory_makes_other_images_at_once(site: Site) -> None:
    before = checked(site, "theirs")
    path = site.folder / "zoo_mine_parts.py"
    path.write_text(path.read_text().replace("% 251", "% 250"))
    os.utime(path, ns=(later := path.stat().st_mtime_ns + 2 * 10**9, later))  # Python's bytecode knows seconds
    assert checked(site, "theirs")["fingerprint"] != before["fingerprint"]


PICTURES = """
from pathlib import Path

import numpy as np

from zoo.plugin import ImageSplits
from zoo_pictures.helper import VALUE

def value(folder):
    print("this was read from a file")
    return int((folder / "value.txt").read_text())

def uniform(*, data_dir):
    folder = Path(data_dir) / "pictures"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        (folder / "value.txt").write_text("1")
    images = np.full((8, 4, 4), VALUE + value(folder) + value(Path(__file__).parent), np.uint8)
    return ImageSplits((images, [0, 1] * 4), (images, [0, 1] * 4))
"""


@pytest.mark.parametrize(
    "changed", ["zoo_pictures/helper.py", "zoo_pictures/value.txt", "data/pictures/value.txt", "data/linked/value.txt"]
)
def test_what_the_images_are_made_of_is_looked_at(changed: str, tmp_path: Path) -> None:
    """The factory's own file is none of these: a helper, a file of the package, one in the folder of downloads, and one
    in a folder that is linked there, beside a link that leads in a circle."""
    site = site_in(tmp_path)
    names = components("uniform", kind="dataset", factory="zoo_pictures.sets:uniform")
    (site.add("pictures", names)).unlink()
    package = site.folder / "zoo_pictures"
    package.mkdir()
    for name, text in {"__init__": names, "sets": PICTURES, "helper": "VALUE = 1"}.items():
        (package / f"{name}.py").write_text(text)
    (package / "value.txt").write_text("1")
    if "linked" in changed:
        (tmp_path / "room").mkdir()
        (tmp_path / "room" / "value.txt").write_text("1")
        (site.folder / "data").mkdir()
        (site.folder / "data" / "pictures").symlink_to(tmp_path / "room")
        (site.folder / "data" / "circle").symlink_to(site.folder / "data")
        changed = "data/pictures/value.txt"

    def fingerprint(data: str = "data") -> object:
        done = site.run("datasets", "check", "plugin:pictures.uniform", "--json", "--data-dir", str(site.folder / data))
        return json.loads(done.stdout)["fingerprint"]  # what the factory prints is no part of it

    before = fingerprint()
    assert fingerprint() == before  # decoded again, since there were no downloads the first time
    entries = set((cache_dir() / "images").iterdir())
    assert fingerprint() == before
    assert set((cache_dir() / "images").iterdir()) == entries
    file = site.folder / changed
    file.write_text(file.read_text().replace("1", "3"))
    os.utime(file, ns=(later := file.stat().st_mtime_ns + 2 * 10**9, later))
    assert fingerprint() != before
    assert fingerprint("other") == (before if changed.startswith("data") else fingerprint())


@pytest.mark.parametrize(("name", "train"), [("encoded", [5, 5]), ("paths", [1]), ("texts", [1])])
def test_encoded_images_and_paths_are_decoded(name: str, train: list[int], site: Site) -> None:
    found = checked(site, f"plugin:mine.{name}")
    assert found["train"] == train
    assert found["size"] == [4, 4]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("plugin:mine.array", "no component named 'mine.array'; did you mean mine.arrays"),
        ("plugin:cnn.residual", "cnn.residual is a part; a dataset is needed here"),
        ("plugin:mine.arrays?colour=red", "unknown option colour; allowed: count, side"),
        ("plugin:mine.arrays?count=many", "count: expected `int`"),
        ("plugin:mine.table", "its factory must return zoo.plugin.ImageSplits, got dict"),
        ("plugin:mine.uneven", "3 images for 2 labels"),
        ("plugin:mine.floats", "uint8 with 1 or 3 channels is needed"),
        ("plugin:mine.absent", "(zoo-mine 1.0): ConnectionError: the server does not answer"),
        ("plugin:mine.exits", "(zoo-mine 1.0): SystemExit: no licence"),
        ("plugin:", "nothing after the colon"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_non_zero_exit(spec: str, said: str, site: Site) -> None:
    done = site.run("datasets", "check", spec)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_folder_of_data_has_images_of_its_own(site: Site, tmp_path: Path) -> None:
    found = []
    for value in (0, 200):
        folder = tmp_path / str(value)
        folder.mkdir()
        np.save(folder / "images.npy", np.full((8, 6, 6, 3), value, np.uint8))
        done = site.run("datasets", "check", "plugin:mine.kept", "--data-dir", str(folder), "--json")
        found.append(json.loads(done.stdout)["fingerprint"])
    assert found[0] != found[1]


def test_files_of_a_plugin_that_got_brighter_are_looked_at_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    white = []
    for most in (900, 4000):
        for number in range(8):
            values = np.full((6, 6), most - number, np.uint16)
            Image.fromarray(values).save(tmp_path / "deep" / f"{number}.png")
        done = site.run("datasets", "check", "plugin:mine.deep", "--data-dir", str(tmp_path / "deep"), "--json")
        found = {finding["kind"]: finding["message"] for finding in json.loads(done.stdout)["findings"]}
        white.append("1,023 is read as white" in found["white"])
    assert white == [True, False]


def test_downloads_of_others_into_the_usual_folder_make_no_other_data(site: Site) -> None:
    checked(site, "plugin:mine.arrays")
    entries = set((cache_dir() / "images").iterdir())
    (data_dir() / "others").mkdir(parents=True)
    (data_dir() / "others" / "downloaded.bin").touch()
    checked(site, "plugin:mine.arrays")
    assert set((cache_dir() / "images").iterdir()) == entries


def test_a_training_below_the_folder_of_data_makes_no_other_data(site: Site, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.full((20, 8, 8, 3), 7, np.uint8))
    how = ("--data-dir", str(tmp_path), "--epochs", "1", "--device", "cpu", "-q")
    kept = []
    for run in ("runs/one", "runs/two"):
        output = ("--output", str(tmp_path / run))
        done = site.run("train", "cnn-baseline", "--dataset", "plugin:mine.kept", *how, *output)
        assert done.returncode == 0, done.stderr
        kept.append(len(list((cache_dir() / "images").iterdir())))
    assert kept[0] == kept[1]
