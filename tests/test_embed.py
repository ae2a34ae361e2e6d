"""`zoo.embed`: features before the classes or at a layer, in a file that is whole or not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hub_server.runs import own_caches, untrained_run
from PIL import Image
from pyarrow import parquet

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import BusyError, DataError, InputError, RunError, UnknownNameError, ZooWarning
from zoo.predict import feature_file
from zoo.runs.images import split_of
from zoo.runs.lock import RunLock
from zoo.runs.record import read_record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("embed")
    with own_caches(base):
        yield untrained_run(base / "run", "cnn-baseline", limit_train=300, limit_test=100)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for name in (f"{pet}/{number}.png" for pet in ("cat", "dog") for number in range(10)):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(folder / name)
    return folder


class Watch(zoo.Reporter):
    """Remembers how much was done, and may do something then."""

    def __init__(self, then: Any = None) -> None:
        self.done: list[int] = []
        self.then = then

    def progress(self, what: str, done: int, total: int, /) -> None:
        if what == "features":
            self.done.append(done)
            if self.then is not None:
                self.then(done)


def test_the_features_of_a_run_are_what_its_last_layer_takes_with_split_and_label(run: Path, tmp_path: Path) -> None:
    found = zoo.embed(run, output=tmp_path / "f.parquet")
    model, record, seen = zoo.load(run), read_record(run), []
    last = [layer for layer in model.module.modules() if isinstance(layer, torch.nn.Linear)][-1]
    handle = last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    splits = np.array(found.splits)
    assert [(name, int((splits == name).sum())) for name in ("train", "validation", "test")] == [
        ("train", 270),
        ("validation", 30),
        ("test", 100),
    ]
    for name, asked in (("train", "train"), ("validation", "val"), ("test", "test")):
        split = split_of(record, asked, load_registry())  # type: ignore[arg-type]
        seen.clear()
        logits = model.logits(np.asarray(split.images))
        ours = found.features[splits == name]
        np.testing.assert_allclose(ours, seen[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(last(torch.tensor(ours)).detach().numpy(), logits.numpy(), atol=1e-5)
        assert found.labels is not None
        assert found.labels[splits == name].tolist() == split.labels.tolist()
        assert [one for one, of in zip(found.images, splits, strict=True) if of == name] == split.origins()
    handle.remove()
    assert len(set(found.images)) == len(found) == 400
    assert (found.feature, found.width, found.computed) == ("pre_logits", last.in_features, 400)
    assert repr(found).endswith("pre_logits of width 84, 400 images)")


def test_a_layers_map_is_averaged_and_nothing_after_the_layer_computes(run: Path, tmp_path: Path) -> None:
    model, later = zoo.load(run), []
    model.module[1].register_forward_hook(lambda *_: later.append(1))
    found = zoo.embed(model, on="digits", layer="0.1", output=tmp_path / "f.parquet")
    assert not later
    assert (found.feature, found.width, len(found)) == ("0.1", 12, 1797)
    split = split_of(read_record(run), "test", load_registry())
    with torch.inference_mode():
        maps = model.module[0][:2](model.prepare(np.asarray(split.images)))
    rows = [found.images.index(name) for name in split.origins()]
    np.testing.assert_allclose(found.features[rows], maps.mean((2, 3)).numpy(), atol=1e-6)


def test_an_unknown_layer_is_answered_with_the_nearest_names_and_one_without_vectors_with_its_kind(run: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no layer named '0\.11'; did you mean .*0\.1"):
        zoo.embed(run, layer="0.11")
    model = zoo.load(run)
    model.module[1][0].forward = lambda x: (x.flatten(1), None)
    with pytest.raises(InputError, match=r"the layer 1\.0 gives tuple, not floats"):
        zoo.embed(model, layer="1.0")


def test_an_npy_file_holds_the_same_and_names_its_feature(run: Path, tmp_path: Path) -> None:
    one, other = (zoo.embed(run, output=tmp_path / f"f{suffix}") for suffix in (".parquet", ".npy"))
    assert np.array_equal(one.features, other.features)
    assert one.labels is not None
    assert other.labels is not None
    assert (one.images, one.splits, one.labels.tolist()) == (other.images, other.splits, other.labels.tolist())
    array = np.load(tmp_path / "f.npy", mmap_mode="r")
    assert np.array_equal(array["pre_logits"], one.features)
    assert array.dtype["features"].shape == (84,)
    assert set(array["class"]) == set("0123456789")


def test_the_header_of_a_parquet_file_says_of_what_the_features_are(run: Path, tmp_path: Path) -> None:
    zoo.embed(run, output=tmp_path / "f.parquet")
    header = json.loads(parquet.read_schema(tmp_path / "f.parquet").metadata[b"zoo.features"])
    record = read_record(run)
    assert header["model"] == "cnn-baseline"
    assert (header["feature"], header["width"]) == ("pre_logits", 84)
    assert (header["dataset"], header["fingerprint"]) == ("sklearn:digits", record.data.fingerprint)
    assert header["counts"] == {"train": 270, "validation": 30, "test": 100}
    assert header["transform"] == repr(zoo.load(run).transform)
    assert header["classes"] == list("0123456789")
    assert header["versions"]["torch"] == torch.__version__


def test_images_of_no_dataset_have_their_paths_and_a_corrupt_one_is_named_by_its_path(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    words = [str(photos), str(tmp_path / "bad.png")]
    with pytest.raises(DataError, match=r"bad\.png"):
        zoo.embed(run, words, output=tmp_path / "f.parquet")
    assert not (tmp_path / "f.parquet").exists()
    with pytest.warns(ZooWarning, match=r"bad\.png.*left out"):
        found = zoo.embed(run, words, output=tmp_path / "f.parquet", skip_bad=True)
    paths = [str(path) for path in sorted(photos.rglob("*.png"))]
    assert (found.images, found.columns, found.splits, found.labels) == (paths, ("image", "features"), None, None)
    model = zoo.load(run)
    with torch.inference_mode():
        reference = model.module[1][:-1](model.module[0](model.read(paths)))
    np.testing.assert_allclose(found.features, reference.numpy(), atol=1e-5)


def test_a_dataset_of_other_classes_is_divided_as_a_training_divides_it(run: Path, photos: Path) -> None:
    found = zoo.embed(run, on=f"folder:{photos}")
    splits = np.array(found.splits)
    assert [(splits == name).sum() for name in ("train", "validation", "test")] == [14, 2, 4]
    classes = parquet.read_table(found.path, columns=["class"])["class"].to_pylist()
    assert [Path(path).parent.name for path in found.images] == classes
    again = zoo.embed(run, on=f"folder:{photos}")
    assert (again.path, again.computed) == (found.path, 0)


def embed_until(run: Path, output: Path, most: int) -> None:
    """A process that is killed once that many images are done."""

    def kill(done: int) -> None:
        if done >= most:
            os.kill(os.getpid(), signal.SIGKILL)

    feature_file.PART_ROWS = 64  # type: ignore[misc]
    zoo.embed(run, output=output, reporter=Watch(kill))


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_a_killed_embedding_goes_on_where_it_stopped_and_gives_the_same_bytes(
    suffix: str, run: Path, tmp_path: Path
) -> None:
    output = tmp_path / f"f{suffix}"
    zoo.embed(run, output=tmp_path / f"whole{suffix}")
    for most in (128, 256):
        child = multiprocessing.get_context("fork").Process(target=embed_until, args=(run, output, most))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert not output.exists()
    with pytest.raises(InputError, match=r"\.parts holds the beginning of other features"):
        zoo.embed(run, output=output, layer="0")
    watch = Watch()
    found = zoo.embed(run, output=output, reporter=watch)
    assert watch.done[0] == 400 - found.computed >= 256
    assert output.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"f{suffix}", f"whole{suffix}"])


def test_a_file_that_holds_something_else_stays_and_the_same_features_are_not_computed_again(
    run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "f.parquet"
    first = zoo.embed(run, output=output)
    before = output.read_bytes()
    again = zoo.embed(run, output=output)
    assert (first.computed, again.computed, again.header) == (400, 0, first.header)
    for other in ({"layer": "0"}, {"on": "digits"}):
        with pytest.raises(InputError, match=r"f\.parquet exists, and holds something else; delete it"):
            zoo.embed(run, output=output, **other)
    assert output.read_bytes() == before


def test_other_weights_have_another_place_in_the_cache(run: Path) -> None:
    model = zoo.load(run)
    first = zoo.embed(model)
    with torch.no_grad():
        model.module[1][-1].bias += 1  # no feature changes by it; it might have
    second = zoo.embed(model)
    assert first.path != second.path
    assert np.array_equal(first.features, second.features)


def test_images_that_changed_within_their_size_or_lie_elsewhere_are_computed_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    for name in ("first", "second"):
        for number in range(12):
            path = tmp_path / name / "photos" / f"{number % 2}" / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path / "first")
    before = zoo.embed(run, on="folder:photos")
    assert zoo.embed(run, on="folder:photos").computed == 0
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("photos/0/0.bmp")  # of as many bytes
    os.utime("photos/0/0.bmp", (1, 1))
    after = zoo.embed(run, on="folder:photos")
    assert after.computed == 12
    moved = (after.features != before.features).any(axis=1)
    assert [Path(name).name for name, row in zip(after.images, moved, strict=True) if row] == ["0.bmp"]
    for path in Path("photos").glob("*/*.bmp"):
        os.utime(tmp_path / "second" / path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    monkeypatch.chdir(tmp_path / "second")
    other = zoo.embed(run, on="folder:photos")  # the same word, paths, sizes and times
    assert other.computed == 12
    assert all("second" in name for name in other.images)


def test_two_processes_do_not_write_one_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "f.parquet.parts").mkdir()
    with RunLock(tmp_path / "f.parquet.parts"), pytest.raises(BusyError, match=r"is being written by process \d+"):
        zoo.embed(run, output=tmp_path / "f.parquet")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"images": ["a.png"]}, "need a file for their features: --output"),
        ({"images": ["a.png"], "on": "digits", "output": "f.npy"}, "not both"),
        ({"on": "digits", "dataset": "digits"}, "give one of them"),
        ({"output": "f.csv"}, r"must end with \.parquet or \.npy"),
        ({"images": ["a.png"], "output": "f.npy", "batch_size": 0}, "batch_size 0: allowed: 1 to 4,096"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_line(asked: dict[str, Any], message: str, run: Path) -> None:
    with pytest.raises(InputError, match=message):
        zoo.embed(run, **asked)


def test_the_command_prints_the_path_and_says_of_how_many_images(run: Path, tmp_path: Path) -> None:
    words = ["embed", str(run), "--output", str(tmp_path / "f.parquet")]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'f.parquet'}\n")
    assert "400 images: pre_logits, 84 numbers each\n" in done.stderr
    assert "84 numbers each, which were there already\n" in CliRunner().invoke(cli, words).stderr


def test_features_that_are_no_numbers_are_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    model = zoo.load(run)
    torch.nn.init.constant_(next(model.module.parameters()), float("nan"))
    for call in (lambda: zoo.embed(model, on="digits", output=tmp_path / "f.npy"), lambda: zoo.probe(model)):
        with pytest.raises(RunError, match=r"cnn-baseline: its features \(pre_logits\) are not finite numbers; its we"):
            call()
    assert not (tmp_path / "f.npy").exists()
