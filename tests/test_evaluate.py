"""`zoo eval`: the numbers against other computations, and the command on a real run of the digits."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from test_train import SMALL

from zoo.base.install import install_line
from zoo.catalogue import index
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.data.split import Split
from zoo.errors import InputError, RunError
from zoo.evaluate import opened as rerun
from zoo.evaluate.calibration import calibration
from zoo.evaluate.classes import averages, per_class
from zoo.evaluate.classifier import open_classifier
from zoo.evaluate.new_images import other_images, taken_by
from zoo.evaluate.one_pass import Predictions
from zoo.evaluate.paired import bootstrap, compare, interval, mcnemar
from zoo.plugin import Transform
from zoo.runs.folder import read_result, write_result
from zoo.runs.images import split_of
from zoo.runs.record import RunRecord, read_record, write_record
from zoo.train.loop import Trainer
from zoo.train.plan import resolve
from zoo.train.run_options import Request


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small runs of the digits, and the first as if it had been of fewer images, or by the other protocol."""
    base = tmp_path_factory.mktemp("runs")
    (base / "user").mkdir()
    (base / "user" / "registry.toml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CONFIG_DIR", str(base / "user"))
        patch.setenv("ZOO_CACHE_DIR", str(base / "cache"))
        for name, seed in (("first", 0), ("second", 1)):
            plan = resolve(Request(model="tiny", device="cpu", epochs=2 - seed, seed=seed))
            (base / name).mkdir()
            write_record(base / name, plan.record)
            Trainer(plan, base / name).fit()
    record = read_record(base / "first")
    few = msgspec.structs.replace(record.data, limit_test=100)
    for name, other in (("limited", {"data": few}), ("paper", {"protocol": "paper"})):
        shutil.copytree(base / "first", base / name)
        write_record(base / name, msgspec.structs.replace(record, **other))
    return base


def zoo(*words: Any) -> Result:
    return CliRunner().invoke(cli, ["eval", *map(str, words)])


def document(*words: Any) -> dict[str, Any]:
    done = zoo(*words, "--json")
    assert done.exception is None, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refusal(*words: Any) -> str:
    error = zoo(*words).exception
    assert isinstance(error, InputError | RunError), error
    return str(error)


# ---- the numbers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def said() -> Predictions:
    """Labels and softmax outputs of 7 classes; class 6 is never said, class 5 has no image."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 5, (500,), generator=generator)
    labels[labels == 4] = 6
    logits = 2 * torch.randn(500, 7, generator=generator)
    logits[torch.arange(500), labels] += 1.5
    logits[:, 6] = -20
    return Predictions(labels, logits.argmax(1), logits.softmax(1))


def test_scores_of_classes_are_those_of_scikit_learn(said: Predictions) -> None:
    labels, predicted = said.labels.numpy(), said.predicted.numpy()
    everything = list(range(7))
    assert np.array_equal(said.confusion(), confusion_matrix(labels, predicted, labels=everything))
    scores = per_class(said.confusion())
    wanted = precision_recall_fscore_support(labels, predicted, labels=everything, zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        np.testing.assert_allclose(scores[name], column, rtol=1e-12)
    for kind, found in averages(scores).items():
        present = np.unique(labels)  # no average counts a class without images, whatever was taken for it
        means = precision_recall_fscore_support(labels, predicted, labels=present, average=kind, zero_division=0)
        np.testing.assert_allclose(list(found.values()), means[:3], rtol=1e-12)


def test_a_class_that_occurs_nowhere_is_in_no_average() -> None:
    labels, predicted = torch.tensor([0, 0, 2, 2, 2, 4]), torch.tensor([0, 2, 2, 2, 4, 0])
    counts = torch.bincount(labels * 6 + predicted, minlength=36).view(6, 6)
    for kind, found in averages(per_class(counts)).items():
        wanted = precision_recall_fscore_support(labels, predicted, average=kind, zero_division=0)
        np.testing.assert_allclose(list(found.values()), wanted[:3], rtol=1e-12)


def test_the_calibration_error_is_that_of_another_computation(said: Predictions) -> None:
    found = calibration(said.probabilities, said.labels, said.predicted)
    sure, hits = said.confidence.double().numpy(), said.hits.numpy()
    accuracy, confidence = calibration_curve(hits, sure, n_bins=15)
    full = [row for row in found["bins"] if row["count"]]
    np.testing.assert_allclose([row["accuracy"] for row in full], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in full], confidence)
    which = np.ceil(sure * 15).astype(int)  # bin m is ((m-1)/15, m/15]
    gaps = [(np.mean(which == m), abs(hits[which == m].mean() - sure[which == m].mean())) for m in np.unique(which)]
    assert found["ece"] == pytest.approx(sum(share * gap for share, gap in gaps))
    assert found["mce"] == pytest.approx(max(gap for _, gap in gaps))
    one_hot = np.eye(7)[said.labels]
    assert found["brier"] == pytest.approx(((said.probabilities.numpy() - one_hot) ** 2).sum(1).mean())


def test_a_confidence_on_the_edge_of_a_bin_is_in_the_lower_one() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]], dtype=torch.float64)
    found = calibration(probabilities, torch.tensor([0, 0, 0]), probabilities.argmax(1), bins=4)
    assert [row["count"] for row in found["bins"]] == [0, 1, 1, 1]
    assert found["bins"][0]["accuracy"] is None
    assert found["ece"] == pytest.approx((0.5 + 0.75 + 0.0) / 3)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (5, 5), (30, 52), (3, 0), (1, 9)])
def test_mcnemars_p_is_the_sum_of_binomial_terms(a: int, b: int) -> None:
    n, most = a + b, min(a, b)
    tail = sum(math.comb(n, k) for k in range(most + 1)) / 2**n
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail))


def test_the_bootstrap_interval_is_that_of_scipy_over_the_images() -> None:
    first, second = np.zeros(400, bool), np.zeros(400, bool)
    first[:250], second[40:310] = True, True
    found = compare(torch.from_numpy(first), torch.from_numpy(second))
    drawn = stats.bootstrap((first.astype(float) - second,), np.mean, n_resamples=10_000, method="percentile", rng=1)
    wanted = (drawn.confidence_interval.low, drawn.confidence_interval.high)
    assert found["interval"] == pytest.approx(wanted, abs=0.006)
    assert found["interval"] == list(bootstrap(40, 60, 400))
    assert (found["only_first"], found["only_second"]) == (40, 60)
    assert (found["both_right"], found["both_wrong"]) == (210, 90)
    assert found["difference"] == pytest.approx(-20 / 400)


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    k, n, z = 151, 360, stats.norm.ppf(0.975)
    middle, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    assert interval(k, n) == pytest.approx((middle - half, middle + half))


# ---- the command ---------------------------------------------------------------------------------


def test_plain_eval_gives_the_recorded_numbers_and_nothing_else(trained: Path) -> None:
    recorded = read_result(trained / "first")["test"]
    run = trained / "first"
    assert document(run) == {"run": str(run), "split": "test", "on": None, "tta": "none", **recorded}
    done = zoo(run)
    assert done.stdout == (
        f"test top-1 {recorded['top1']:.4%} ({recorded['correct']} of 360), top-5 {recorded['top5']:.4%}, "
        f"loss {recorded['loss']:.4f}\n"
    )
    assert done.stderr == "the same as recorded\n"


def test_a_number_that_is_not_the_recorded_one_fails_after_it_is_shown(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "first", tmp_path / "run")
    result = read_result(tmp_path / "run")
    result["test"]["correct"] += 1
    write_result(tmp_path / "run", result)
    for more in ((), ("--what", "classes")):
        done = zoo(tmp_path / "run", *more)
        assert done.stdout.startswith("test top-1")
        assert "result.json records" in str(done.exception)
    assert zoo(tmp_path / "run", "--split", "val").exception is None


@pytest.mark.parametrize("more", [(), ("--what", "classes,confusion,calibration,latency", "--seconds", "0.01")])
def test_the_test_split_is_read_once(more: tuple[str, ...], trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    plain = rerun.open_source

    def counting(split: Any, *rest: Any, **options: Any) -> Any:
        opened.append(len(split))
        return plain(split, *rest, **options)

    monkeypatch.setattr(rerun, "open_source", counting)
    assert zoo(trained / "first", *more).exception is None
    assert opened == [360]


def test_validation_and_training_images_are_those_of_the_run(trained: Path) -> None:
    run = trained / "first"
    record, recorded = read_record(run), read_result(run)["validation"]
    val, train = document(run, "--split", "val"), document(run, "--split", "train")
    assert val == {"run": str(run), "split": "val", "on": None, "tta": "none", **recorded}
    assert (val["count"], train["count"]) == (record.data.validation, record.data.train)
    assert "no result of training images" in zoo(run, "--split", "train").stderr
    assert zoo(run, "--split", "train").stdout.startswith("train top-1")
    assert "no validation split" in refusal(trained / "paper", "--split", "val")


def test_every_part_names_the_split_and_fits_80_columns(trained: Path) -> None:
    parts = "classes,confusion,calibration,latency"
    done = zoo(
        trained / "first", "--split", "val", "--what", parts, "--seconds", "0.01", "--compare", trained / "second"
    )
    assert done.exception is None
    for part in done.stdout.split("\n\n"):
        assert "val" in part or part.startswith("BATCH")
    assert [line for line in done.stdout.splitlines() if len(line) > 80 and str(trained) not in line] == []


def test_the_document_holds_every_part_and_they_agree(trained: Path) -> None:
    found = document(trained / "first", "--what", "classes,confusion,calibration,latency", "--seconds", "0.01")
    counts = np.array(found["confusion"]["counts"])
    assert (counts.trace(), counts.sum()) == (found["correct"], found["count"])
    assert [row["support"] for row in found["classes"]["rows"]] == counts.sum(1).tolist()
    assert found["classes"]["weighted"]["recall"] == pytest.approx(found["top1"])
    assert found["calibration"]["accuracy"] == pytest.approx(found["top1"])
    low, high = found["top1_interval"]["ends"]
    assert low < found["top1"] < high
    assert [row["batch"] for row in found["latency"]["rows"]] == [1, 64]
    for row in found["latency"]["rows"]:
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["p95_ms"]
        assert row["calls"] >= 20


def test_two_runs_are_compared_on_the_same_images(trained: Path) -> None:
    first, second = document(trained / "first"), document(trained / "second")
    found = document(trained / "first", "--compare", trained / "second")["compare"]
    assert found["correct"] == second["correct"]
    paired = found["paired"]
    assert paired["difference"] == pytest.approx(first["top1"] - second["top1"])
    assert paired["only_first"] - paired["only_second"] == first["correct"] - second["correct"]
    assert paired["both_right"] + paired["only_first"] == first["correct"]
    itself = document(trained / "first", "--compare", trained / "first")["compare"]["paired"]
    assert (itself["p"], itself["interval"]) == (1.0, [0.0, 0.0])
    assert "no test images in common order" in refusal(trained / "first", "--compare", trained / "limited")


def test_the_folder_holds_predictions_pictures_and_the_document(trained: Path, tmp_path: Path) -> None:
    run, folder = trained / "first", tmp_path / "evaluation"
    found = document(run, "--output", folder)
    names = {"predictions.csv", "confusion.png", "reliability.png", "eval.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert {Path(path).name for path in found["files"]} == names
    assert json.loads((folder / "eval.json").read_text())["recorded"]["correct"] == found["correct"]
    for picture in ("confusion.png", "reliability.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(360))
    assert sum(row["correct"] == "true" for row in rows) == found["correct"]
    assert all((row["label"] == row["prediction"]) == (row["correct"] == "true") for row in rows)
    shares = np.array([[float(row[f"p_{digit}"]) for digit in range(10)] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    loss = -np.log(shares[range(360), [int(row["label_index"]) for row in rows]]).mean()
    assert loss == pytest.approx(found["loss"], rel=1e-4)
    document(run, "--output", folder, "--predictions", "parquet", "--what", "classes")
    table = pq.read_table(folder / "predictions.parquet")
    assert table.column_names == list(rows[0])
    assert table["prediction"].to_pylist() == [row["prediction"] for row in rows]
    assert "holds the evaluation of" in refusal(run, "--output", folder, "--split", "val")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--what", "speed"), "'speed'"),
        (("--what", ""), "allowed: classes"),
        (("--severities", "0,1"), "'0,1'"),
        (("--what", "robustness", "--corruptions", "rain"), "'rain'"),
    ],
)
def test_a_wrong_word_is_refused_with_what_is_allowed(words: tuple[str, ...], named: str, trained: Path) -> None:
    assert named in refusal(trained / "first", *words)


@pytest.mark.parametrize("words", [(), ("--what", "classes", "--compare", "second"), ("--on", "digits")])
def test_the_catalogue_is_loaded_once(words: tuple[str, ...], trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, loads = index.read, []
    monkeypatch.setattr(index, "read", lambda chosen: loads.append(chosen) or read(chosen))
    monkeypatch.chdir(trained)
    assert zoo("first", *words).exception is None
    assert len(loads) == 1


# ---- other images ---------------------------------------------------------------------------------


def write_digits(run: Path, folder: Path, classes: set[int], grow: int = 1) -> None:
    """The run's test images of some classes as `folder`/CLASS/*.png, each pixel `grow` times as wide and high."""
    split = split_of(read_record(run), "test", load_registry())
    for row, label in enumerate(split.labels.tolist()):
        if label in classes:
            pixels = np.asarray(split.images[row]).transpose(1, 2, 0).repeat(grow, 0).repeat(grow, 1)
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / str(label) / f"{row:04}.png")


def test_other_images_are_all_those_of_a_folder_and_give_what_the_same_images_gave(
    trained: Path, tmp_path: Path
) -> None:
    run = trained / "first"
    write_digits(run, tmp_path / "new", set(range(10)))
    recorded = read_result(run)["test"]
    done = zoo(run, "--on", f"folder:{tmp_path / 'new'}")
    assert done.exception is None
    assert f"({recorded['correct']} of 360)" in done.stdout
    assert f"measured on folder:{tmp_path / 'new'}, of which the run recorded nothing" in done.stderr
    found = document(run, "--on", f"folder:{tmp_path / 'new'}", "--compare", trained / "second")
    assert found["on"] == f"folder:{tmp_path / 'new'}"
    own = document(run, "--compare", trained / "second")
    assert found["compare"]["paired"]["only_first"] == own["compare"]["paired"]["only_first"]
    assert found["compare"]["paired"]["p"] == own["compare"]["paired"]["p"]


def test_other_images_may_be_of_some_classes_and_are_matched_by_name(trained: Path, tmp_path: Path) -> None:
    run, folder = trained / "first", tmp_path / "new"
    write_digits(run, folder / "train", {3, 7})
    write_digits(run, folder / "test", {3, 7})
    counts = np.array(document(run, "--what", "confusion")["confusion"]["counts"])
    found = document(run, "--on", f"folder:{folder}", "--what", "confusion,classes")
    assert (np.array(found["confusion"]["counts"])[[3, 7]] == counts[[3, 7]]).all()
    assert found["count"] == counts[[3, 7]].sum()
    rows = [row for row in found["classes"]["rows"] if row["support"] or row["predicted"]]
    assert 2 < len(rows) < 10  # images were taken for classes that have none, which no average counts
    mean = sum(row["f1"] for row in rows if row["support"]) / 2
    assert found["classes"]["macro"]["f1"] == found["macro_f1"] == pytest.approx(mean)


def others(record: RunRecord, spec: str) -> Split:
    registry = load_registry()
    return other_images(taken_by(record, registry), registry, spec, "test")


def test_classes_without_names_are_matched_by_number(trained: Path) -> None:
    record = read_record(trained / "first")
    named = msgspec.structs.replace(record.data, classes=tuple("abcdefghij"))
    split = others(msgspec.structs.replace(record, data=named), "digits")
    assert np.array_equal(split.labels, split_of(record, "test", load_registry()).labels)


def test_altered_images_are_other_images(trained: Path) -> None:
    run = trained / "first"
    opened = rerun.open_run(run)
    images = np.ascontiguousarray(np.asarray(opened.images.images)[..., ::-1])
    flipped = opened.measure(dataclasses.replace(opened.images, images=images))
    found = document(run, "--on", "sklearn:digits?alter_test=flip")
    assert (found["correct"], found["count"]) == (flipped.correct, 360)
    assert found["correct"] != read_result(run)["test"]["correct"]


def test_other_images_are_scaled_and_cut_as_the_runs_own(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "first", run)
    record = read_record(run)
    cut = Transform(size=(8, 8), resize=12, interpolation="bicubic")
    write_record(run, msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, transform=cut)))
    write_digits(trained / "first", tmp_path / "new", {0, 1}, grow=3)
    split = others(read_record(run), f"folder:{tmp_path / 'new'}")
    classifier = open_classifier(run, load_registry())
    for row, path in enumerate(sorted((tmp_path / "new").rglob("*.png"))):
        assert np.array_equal(split.images[row], classifier.decode(path, str(path)))
    whole = others(record, f"folder:{tmp_path / 'new'}")
    assert whole.images.shape == split.images.shape
    assert not np.array_equal(whole.images[0], split.images[0])


def test_other_images_that_do_not_suit_are_refused(trained: Path, tmp_path: Path) -> None:
    run, folder = trained / "first", tmp_path / "new"
    write_digits(run, folder, {0, 1, 2})
    (folder / "2").rename(folder / "two")
    on = ("--on", f"folder:{folder}")
    assert "its class 'two' is none of the run's 10: 0, 1, 2, 3" in refusal(run, *on)
    assert "give one of them" in refusal(run, *on, "--dataset", "digits")
    assert "--split test or train" in refusal(run, *on, "--split", "val")
    (folder / "two").rename(folder / "2")
    document(run, *on, "--output", tmp_path / "evaluation")
    document(f"{run}/", *on, "--output", tmp_path / "evaluation")  # the same run
    assert "holds the evaluation of" in refusal(run, "--output", tmp_path / "evaluation")
    assert "holds the evaluation of" in refusal(run, "--on", "digits", "--output", tmp_path / "evaluation")


# ---- corruptions ----------------------------------------------------------------------------------


def test_accuracy_on_corrupted_images_is_given_by_corruption_and_severity(trained: Path, tmp_path: Path) -> None:
    words = ("--what", "robustness", "--corruptions", "noise,fog", "--severities", "5,1", "--images", "80")
    done = zoo(trained / "first", *words, "--workers", "0", "--output", tmp_path / "out", "--json")
    assert done.exception is None
    found = json.loads(done.stdout)["robustness"]
    assert [row["corruption"] for row in found["rows"]] == ["gaussian_noise", "shot_noise", "impulse_noise", "fog"]
    assert (found["images"], found["severities"]) == (80, [1, 5])
    cells = [row["top1"] for row in found["rows"]]
    assert found["mean"] == pytest.approx(np.mean(cells))
    assert found["mean"] < found["clean"]
    assert "robustness: fog" in done.stderr
    assert (tmp_path / "out" / "robustness.png").is_file()
    again = document(trained / "first", *words, "--workers", "0")["robustness"]
    assert again == found


def test_without_the_library_one_line_says_what_to_install(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    said = refusal(trained / "first", "--what", "robustness")
    assert install_line("robustness") in said
    assert "\n" not in said
