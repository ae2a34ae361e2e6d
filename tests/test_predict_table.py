"""Tables of predictions: `zoo predict --output` and `zoo.predict(output=)`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image
from pyarrow import csv, parquet

import zoo
from zoo.cli import cli
from zoo.errors import DataError, InputError
from zoo.predict.prediction import Prediction
from zoo.predict.prediction_table import checked_table, written


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a folder of five images."""
    place = tmp_path_factory.mktemp("table")
    options = {"epochs": 1, "limit_train": 100, "limit_test": 20, "progress": False}
    zoo.train("cnn-baseline", dataset="digits", output=place / "run", **options)
    (place / "images").mkdir()
    for n in range(5):
        pixels = np.random.default_rng(n).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"images/{n}.png")
    return place


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_has_what_is_returned(kind: str, place: Path, tmp_path: Path) -> None:
    path = tmp_path / f"found.{kind}"
    found = zoo.predict(place / "run", place / "images", top=1, batch_size=2, output=path)
    table = csv.read_csv(path) if kind == "csv" else parquet.read_table(path)
    assert table.column_names == ["image", "prediction", "confidence", *(f"p_{n}" for n in range(10))]
    assert [str(value) for value in table["image"].to_pylist()] == [one.image for one in found]
    assert [str(value) for value in table["prediction"].to_pylist()] == [one.top1 for one in found]
    each = np.stack([table[f"p_{n}"].to_numpy() for n in range(10)], axis=1)
    assert np.allclose(each, np.stack([one.probabilities for one in found]), atol=1e-7)
    assert np.allclose(table["confidence"].to_numpy(), [one.probability for one in found], atol=1e-7)


def test_the_command_writes_what_can_be_read_and_names_the_rest(place: Path, tmp_path: Path) -> None:
    bad, path = tmp_path / "bad.png", tmp_path / "found.csv"
    bad.write_text("no image")
    ask = ["predict", str(place / "run"), str(bad), str(place / "images"), "--output", str(path)]
    for _ in range(2):  # an earlier table is replaced
        done = CliRunner().invoke(cli, ask)
        assert done.stdout == f"{path}\n"
        assert csv.read_csv(path).num_rows == 5
        assert isinstance(done.exception, DataError)
    assert "bad.png" in done.stderr
    assert str(done.exception) == "1 of 6 images could not be read"
    lines = CliRunner().invoke(cli, [*ask, "--json"]).stdout.splitlines()
    assert len(lines) == 5


def test_another_file_is_kept(place: Path, tmp_path: Path) -> None:
    for name, said in (("labels.csv", "is no table of predictions"), ("found.txt", "must end with .csv or .parquet")):
        (tmp_path / name).write_text("image,label\na.png,cat\n")
        with pytest.raises(InputError, match=said):
            zoo.predict(place / "run", place / "images", output=tmp_path / name)
        assert (tmp_path / name).read_text() == "image,label\na.png,cat\n"


def test_a_table_is_there_only_when_all_was_taken(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    stream = zoo.predict(place / "run", place / "images", output=path, stream=True)
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined] - a generator has it
    assert not list(tmp_path.iterdir())


def test_no_image_that_can_be_read_costs_no_earlier_table(place: Path, tmp_path: Path) -> None:
    ask = ["predict", str(place / "run"), "--output", str(tmp_path / "found.csv")]
    assert CliRunner().invoke(cli, [*ask, str(place / "images")]).exit_code == 0
    kept = (tmp_path / "found.csv").read_bytes()
    done = CliRunner().invoke(cli, [*ask, str(place / "image")])
    assert (str(done.exception), done.stdout) == ("1 of 1 image could not be read", "")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("found.csv", kept)]
    done = CliRunner().invoke(cli, [*ask, "--files-from", "-"], input="")  # none was asked for
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/found.csv\n")
    assert csv.read_csv(tmp_path / "found.csv").num_rows == 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_classes_without_names_have_numbers(kind: str, place: Path, tmp_path: Path) -> None:
    model = zoo.load(place / "run")
    model.classes = ()
    zoo.predict(model, place / "images", output=tmp_path / f"found.{kind}")
    table = csv.read_csv(tmp_path / "found.csv") if kind == "csv" else parquet.read_table(tmp_path / "found.parquet")
    assert table.column_names[3:] == [f"p_{n}" for n in range(10)]


def test_a_command_that_is_ended_leaves_nothing(place: Path, tmp_path: Path) -> None:
    """It waits for the path of a further image meanwhile."""
    ask = ["predict", str(place / "run"), "--files-from", "-", "--batch-size", "1", "--output", str(tmp_path / "f.csv")]
    with subprocess.Popen(
        [sys.executable, "-m", "zoo", *ask], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        assert command.stdin is not None
        command.stdin.write(f"{place}/images/0.png\n".encode() * 100)
        command.stdin.flush()
        while command.poll() is None and not list(tmp_path.iterdir()):
            time.sleep(0.05)
        command.terminate()
        command.communicate()
    assert command.returncode == 143
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("classes", "joined"), [(("cat", "dog", "owl"), ("cat;owl", "")), (("a;b", "dog", "c"), ("a;b|c", ""))]
)
def test_labels_of_an_image_are_a_list_or_joined(
    classes: tuple[str, ...], joined: tuple[str, ...], tmp_path: Path
) -> None:
    def found() -> Generator[Prediction | DataError]:
        high = np.array([0.9, 0.1, 0.8], np.float32)
        both = ((classes[0], 0.9), (classes[2], 0.8))
        yield Prediction("a.png", both, high, labels=both)  # type: ignore[arg-type] - pairs of a name and a number
        yield Prediction("b.png", both, high / 10, labels=())  # type: ignore[arg-type] - the same

    for name in ("found.csv", "found.parquet"):
        assert len(list(written(found(), checked_table(tmp_path / name), classes, several=True))) == 2
    read = csv.ConvertOptions(column_types={"prediction": pa.string()}, strings_can_be_null=False)
    assert tuple(csv.read_csv(tmp_path / "found.csv", convert_options=read)["prediction"].to_pylist()) == joined
    lists = parquet.read_table(tmp_path / "found.parquet")["prediction"].to_pylist()
    assert lists == [[classes[0], classes[2]], []]
