"""`zoo predict` as a user runs it: files, folders, patterns, lists, stdin; damaged images among good ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server.runs import own_caches, untrained_run
from PIL import Image

from zoo.base.install import install_line
from zoo.catalogue.registry import load_registry
from zoo.errors import DataError
from zoo.evaluate.classifier import open_classifier
from zoo.predict.inputs import Given, given_images, listed_paths
from zoo.predict.stream import predict as classify

NO_CAPTUM = "import sys; sys.modules['captum'] = None; from zoo.cli import main; main()"


def zoo(*words: str | Path, cwd: Path, stdin: bytes = b"", code: str = "") -> subprocess.CompletedProcess[bytes]:
    start = ["-c", code] if code else ["-m", "zoo"]
    command = [sys.executable, *start, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, input=stdin, timeout=240)


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained run: what it answers is known by asking its module."""
    base = tmp_path_factory.mktemp("predict")
    with own_caches(base):
        return untrained_run(base / "run", "cnn-baseline", limit_train=64, limit_test=32)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "sub/b.PNG", "sub/deep/c.jpg", ".hidden/d.png", ".e.png")):
        picture(tmp_path / "images" / name, number)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / "sub" / "round").symlink_to(tmp_path / "images")
    return tmp_path / "images"


def names(words: list[str], stdin: bytes = b"") -> list[str]:
    found = given_images(words, io.BytesIO(stdin))
    return [str(one) if isinstance(one, DataError) else one.name for one in found]


def test_a_folder_gives_its_visible_images_sorted_and_follows_no_links(images: Path) -> None:
    root = str(images)
    assert names([root]) == [f"{root}/{name}" for name in ("a.png", "sub/b.PNG", "sub/deep/c.jpg")]


def test_a_pattern_matches_images_and_folders(images: Path) -> None:
    root = str(images)
    assert names([f"{root}/*.png"]) == [f"{root}/a.png"]
    assert f"{root}/sub/deep/c.jpg" in names([f"{root}/**/*.jpg"])
    assert names([f"{root}/sub/d*"]) == [f"{root}/sub/deep/c.jpg"]
    strange = picture(images / "odd[1].png", 9)
    assert names([str(strange)]) == [str(strange)]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nowhere.png", "No such file"),
        ("/dev/zero", "is no file"),
        ("*.webp", "matches no image"),
        ("empty", "holds no images"),
        ("-", "stdin holds no image"),
        ("a\0b", "null"),
    ],
)
def test_what_is_no_image_is_said_in_its_place(
    word: str, said: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "empty").mkdir()
    monkeypatch.chdir(images)
    found = names([word, "a.png"])
    assert said in found[0]
    assert found[1:] == ["a.png"]


def test_a_list_of_paths_is_read_as_it_comes() -> None:
    assert list(listed_paths(io.BytesIO(b"a b.png\r\n\nc.png"))) == ["a b.png", "c.png"]
    assert list(listed_paths(io.BytesIO(b"new\nline.png\0c.png\0"), null=True)) == ["new\nline.png", "c.png"]
    endless = io.BufferedReader(Endless())
    paths = listed_paths(endless)
    assert [next(paths) for _ in range(3)] == ["x.png"] * 3


class Endless(io.RawIOBase):
    """Paths without an end."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        buffer[:6] = b"x.png\n"
        return 6


def test_batches_keep_the_order_and_the_errors_their_places(run: Path, tmp_path: Path) -> None:
    classifier = open_classifier(run, load_registry(), device="cpu")
    given: list[Given | DataError] = [Given(str(n), picture(tmp_path / f"{n}.png", n)) for n in range(7)]
    given[2] = Given("2", b"not an image")
    given.append(DataError("missing"))
    found = list(classify(classifier, given, batch_size=3, threads=2))
    assert [isinstance(one, DataError) for one in found] == [n in (2, 7) for n in range(8)]
    for number, one in enumerate(found):
        if isinstance(one, DataError):
            continue
        with torch.inference_mode():
            alone = classifier.module(classifier.prepare(one.pixels[None])).softmax(1)[0]
        assert one.name == str(number)
        torch.testing.assert_close(one.probabilities, alone)


def test_thousands_of_images_are_decoded_only_a_little_ahead(run: Path) -> None:
    classifier, asked = open_classifier(run, load_registry(), device="cpu"), [0]
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")

    def many() -> object:
        for number in range(100_000):
            asked[0] = number
            yield Given(str(number), data.getvalue())

    found = classify(classifier, many(), batch_size=16, threads=2)
    for _ in range(40):
        next(found)
    assert asked[0] < 40 + 4 * 16
    found.close()


def test_images_are_scaled_and_cropped_as_the_dataset_of_the_run_says(tmp_path: Path) -> None:
    from zoo.catalogue.registry import load_registry
    from zoo.data.dataset_spec import evaluation_rule

    rule = evaluation_rule("cifar10-224", load_registry(), (224, 224))
    assert (rule.resize, rule.crop) == (256, 224)
    assert evaluation_rule("digits", load_registry(), (8, 8)).out_size() == (8, 8)


def test_everything_at_once_from_the_shell(run: Path, images: Path, tmp_path: Path) -> None:
    (images / "bad.png").write_bytes((images / "a.png").read_bytes()[:60])
    stdin = b"images/a.png\0images/none.png\0"
    words = ["images", "images/sub/deep/*.jpg", "--files-from", "-", "-0", "--json", "-k", "99"]
    done = zoo("predict", run, *words, "--explain", "pictures", "--batch-size", "2", cwd=tmp_path, stdin=stdin)
    assert done.returncode == 1
    said = done.stderr.decode().splitlines()
    assert [line.split(":")[1].strip() for line in said[:2]] == ["images/bad.png", "images/none.png"]
    assert said[2:] == ["error: 2 of 7 images could not be read"]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b.PNG", "c.jpg", "c.jpg", "a.png"]
    assert all(len(row["classes"]) == 10 for row in rows)
    assert sum(row["probability"] for row in rows[0]["classes"]) == pytest.approx(1, abs=1e-5)
    drawn = [row["explained"] for row in rows]
    assert {one["method"] for one in drawn} == {"hires-cam"}
    assert len({one["picture"] for one in drawn}) == len(drawn)
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {Path(one["picture"]).name for one in drawn}


def test_the_bytes_of_an_image_on_stdin_are_predicted_as_its_file(run: Path, images: Path) -> None:
    classifier, path = open_classifier(run, load_registry(), device="cpu"), images / "a.png"
    there, here = classify(classifier, given_images(["-", str(path)], io.BytesIO(path.read_bytes())))
    assert not isinstance(there, DataError)
    assert not isinstance(here, DataError)
    assert (there.name, here.name) == ("-", str(path))
    torch.testing.assert_close(there.probabilities, here.probabilities)


def test_without_captum_one_line_says_what_to_install(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = zoo("predict", run, "images", "--explain", "pictures", cwd=tmp_path, code=NO_CAPTUM)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [f"error: --explain needs captum: {install_line('explain')}"]
    assert not (tmp_path / "pictures").exists()


def test_no_images_is_wrong_input(run: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from zoo.cli.predict import predict as command
    from zoo.errors import InputError

    for words, said in (([], "no images given"), (["-", "--files-from", "-"], "not both")):
        error = CliRunner().invoke(command, [str(run), *words]).exception
        assert isinstance(error, InputError)
        assert said in str(error)
