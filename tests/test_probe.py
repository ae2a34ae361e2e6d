"""`zoo.probe` against scikit-learn itself and against arithmetic; what may choose, and what may not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hub_server.runs import own_caches, untrained_run
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import zoo
from zoo.cli import cli
from zoo.errors import InputError
from zoo.studies.probe.protocol import NEIGHBOURS, STRENGTHS, Part, Parts, few_shot, probe

Arrays = dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    base = tmp_path_factory.mktemp("probe")
    with own_caches(base):
        small = {"limit_train": 200, "limit_test": 100}
        yield tuple(untrained_run(base / name, name, **small) for name in ("cnn-baseline", "vit-cifar"))  # type: ignore[misc]


@pytest.fixture(scope="module")
def found(runs: tuple[Path, Path]) -> zoo.Probe:
    return zoo.probe(*map(str, runs), shots=(1, 3), draws=3)


def arrays(run: Path) -> Arrays:
    embedded = zoo.embed(run)
    assert embedded.labels is not None
    splits = np.array(embedded.splits)
    rows = {name: splits == name for name in ("train", "validation", "test")}
    return {name: (embedded.features[which].astype(float), embedded.labels[which]) for name, which in rows.items()}


def row_of(found: zoo.Probe, run: Path, method: str, shots: int | None = None) -> dict[str, Any]:
    (row,) = (r for r in found.rows if (r["model"], r["method"], r["shots"]) == (str(run), method, shots))
    return row


def test_the_linear_probe_is_scikit_learns_own_search_over_the_validation_images(
    runs: tuple[Path, Path], found: zoo.Probe
) -> None:
    for run in runs:
        data = arrays(run)
        x, y = (np.concatenate([data["train"][k], data["validation"][k]]) for k in (0, 1))
        folds = np.repeat([-1, 0], [len(data["train"][1]), len(data["validation"][1])])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        grid = {"logisticregression__C": sorted(STRENGTHS)}
        search = GridSearchCV(model, grid, cv=PredefinedSplit(folds), refit=False).fit(x, y)
        strength = search.best_params_["logisticregression__C"]
        model.set_params(logisticregression__C=strength).fit(*data["train"])
        predicted, labels = model.predict(data["test"][0]), data["test"][1]
        row = row_of(found, run, "linear")
        assert row["chosen"] == {"C": strength}
        assert row["validation_top1"] == pytest.approx(search.best_score_, abs=1e-5)
        assert row["top1"] == pytest.approx(float((predicted == labels).mean()), abs=1e-5)
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted), abs=1e-5)
        ends = binomtest(int((predicted == labels).sum()), 100).proportion_ci(0.95, method="wilson")
        assert row["interval"]["ends"] == pytest.approx([ends.low, ends.high], abs=1e-5)


def nearest(k: int, train: tuple[Any, Any], images: NDArray[np.float64]) -> NDArray[np.int64]:
    """The majority of the k nearest by the angle between vectors, by hand; of equally many the first class."""
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, train[0]))
    neighbours = np.argsort(-(one @ other.T), axis=1, kind="stable")[:, :k]
    return np.array([np.bincount(train[1][row], minlength=10).argmax() for row in neighbours])


def test_the_nearest_neighbours_are_those_of_the_largest_cosine(runs: tuple[Path, Path], found: zoo.Probe) -> None:
    for run in runs:
        data = arrays(run)
        images, labels = data["validation"]
        right = {k: float((nearest(k, data["train"], images) == labels).mean()) for k in NEIGHBOURS}
        k = max(right, key=lambda k: (right[k], -k))
        row = row_of(found, run, "knn")
        assert (row["chosen"], row["validation_top1"]) == ({"k": k}, pytest.approx(right[k], abs=1e-5))
        test = nearest(k, data["train"], data["test"][0]) == data["test"][1]
        assert row["top1"] == pytest.approx(float(test.mean()), abs=1e-5)
        assert (row["correct"], row["count"], row["train_images"]) == (int(test.sum()), 100, 180)


def random_parts(seed: int = 0) -> Parts:
    draw = np.random.default_rng(seed)
    labels = [draw.integers(0, 3, size) for size in (60, 45, 45)]
    parts = [Part(draw.normal(size=(len(y), 4)) + 0.7 * y[:, None], y) for y in labels]
    return Parts(*parts, ("a", "b", "c"))


@pytest.mark.parametrize("method", ["linear", "knn"])
def test_the_test_images_choose_nothing_and_the_validation_images_do(method: Any) -> None:
    parts, choices = random_parts(), set()
    chosen = probe(parts, method)
    for seed in range(6):
        other = random_parts(seed + 1)
        measured = probe(replace(parts, test=other.test), method)
        assert {k: measured[k] for k in ("chosen", "validation_top1")} == {
            k: chosen[k] for k in ("chosen", "validation_top1")
        }
        choices.add(str(probe(replace(parts, validation=other.validation), method)["chosen"]))
    assert len(choices) > 1


@pytest.mark.parametrize("method", ["linear", "knn"])
def test_the_validation_images_are_not_learnt_from(method: Any) -> None:
    labels = np.repeat([0, 1, 2], 20)
    every = Part(10 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(60, 3)), labels)
    parts = Parts(Part(every.features[:40], labels[:40]), every, every, ("a", "b", "c"))
    found = probe(parts, method)
    assert found["validation_top1"] == found["top1"] == pytest.approx(2 / 3)  # nobody has seen class "c"
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)


def test_a_few_images_are_of_every_class_and_the_same_for_every_model(
    runs: tuple[Path, Path], found: zoo.Probe
) -> None:
    one, other = random_parts(0), random_parts(0)
    for draw in range(3):
        few = one.few(5, 7, draw)
        assert np.bincount(few.train.labels).tolist() == [5, 5, 5]
        assert np.array_equal(few.train.features, other.few(5, 7, draw).train.features)
        assert not np.array_equal(few.train.features, one.few(5, 7, draw + 1).train.features)
        assert not np.array_equal(few.train.features, one.few(5, 8, draw).train.features)
    for run in runs:
        row = row_of(found, run, "knn", 3)
        assert (row["draws"], row["train_images"], row["interval"]) == (3, 30, None)
        assert row["chosen"].keys() == {"k"}


@pytest.mark.parametrize("method", ["linear", "knn"])
def test_the_figure_of_several_draws_is_their_mean_and_the_spread_their_standard_deviation(method: Any) -> None:
    parts = random_parts()
    alone = [probe(parts.few(4, 11, draw), method) for draw in range(4)]
    together = few_shot(parts, method, 4, 4, 11)
    assert together["draws_top1"] == [one["top1"] for one in alone]
    assert together["top1"] == pytest.approx(mean(one["top1"] for one in alone), abs=1e-12)
    assert together["spread"] == pytest.approx(stdev(one["top1"] for one in alone), abs=1e-12)
    assert few_shot(parts, method, 4, 1, 11)["spread"] is None


def test_a_class_with_too_few_images_is_named(runs: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"^--shots 100: the class '.' has only \d+ training images$"):
        zoo.probe(runs[0], shots="100", method="knn")


def test_the_leaderboard_is_sorted_by_the_validation_images_all_before_few(found: zoo.Probe) -> None:
    rows = list(found.rows)
    assert len(rows) == 12
    assert [row["shots"] for row in rows] == [None] * 4 + [1] * 4 + [3] * 4
    for start in (0, 4, 8):
        scores = [row["validation_top1"] for row in rows[start : start + 4]]
        assert scores == sorted(scores, reverse=True)
    document = found.as_dict()
    assert (document["dataset"], document["sorted_by"], document["seed"]) == ("sklearn:digits", "validation top-1", 0)
    assert document["counts"] == {"train": 180, "validation": 20, "test": 100}
    assert {"torch", "scikit-learn", "device", "hybrid-zoo"} <= document["environment"].keys()
    assert repr(found).startswith("Probe on sklearn:digits, by validation top-1\nmodel ")


def test_features_are_computed_once_and_then_read_from_the_cache(runs: tuple[Path, Path]) -> None:
    cache = Path(os.environ["ZOO_CACHE_DIR"]) / "features"
    assert not cache.exists()
    before = zoo.probe(runs[0], method="knn").rows
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    assert zoo.probe(runs[0], method=["knn"]).rows == before
    assert [(path, path.stat().st_mtime_ns) for path in cache.iterdir()] == [(file, written)]


def test_models_of_other_images_are_not_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = untrained_run(tmp_path / "other", "cnn-baseline", limit_train=100, limit_test=100)
    with pytest.raises(InputError, match="has other images than the first model; name one dataset for all: --on SPEC"):
        zoo.probe(runs[0], other, method="knn")


def test_images_with_several_labels_and_datasets_without_a_part_are_refused(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    lines = ["path,label"]
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,a;b" if number % 2 else f"{number}.png,a")
    (tmp_path / "labels.csv").write_text("\n".join(lines), "utf-8")
    with pytest.raises(InputError, match="its images have several labels, and a probe needs one label"):
        zoo.probe(runs[0], on=f"csv:{tmp_path}/labels.csv?multi-label")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "svm"}, "--method 'svm': allowed: linear, knn"),
        ({"shots": "1,0"}, "--shots '1,0': give numbers of images above 0"),
        ({"draws": 0}, "draws 0: allowed: 1 to 1,000"),
        ({"seed": -1}, "seed -1: allowed: at least 0"),
    ],
)
def test_a_wrong_option_is_said_in_a_line(asked: dict[str, Any], message: str, runs: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=message):
        zoo.probe(runs[0], **asked)
    with pytest.raises(InputError, match="no models given"):
        zoo.probe()


def test_the_command_prints_the_table_or_what_the_call_gives(runs: tuple[Path, Path], found: zoo.Probe) -> None:
    words = ["probe", *map(str, runs), "--shots", "1,3", "--draws", "3"]
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert json.loads(done.stdout) == found.as_dict()
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0
    assert len(shown.stdout.splitlines()) == 13
    assert " over 3 draws" in shown.stdout
    assert "sklearn:digits (180 train, 20 validation, 100 test); sorted by validation top-1" in shown.stderr
