"""Several labels an image: from the table to the package."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hub_server.runs import own_caches
from page_commands import steps
from PIL import Image
from sklearn import metrics as sk
from square_images import COLOURS, png, squares, write_folders, write_parquet
from torch.nn import functional as F

import zoo
from zoo.catalogue.recipe import Recipe
from zoo.data.given_data import given_data
from zoo.data.load import load
from zoo.data.split import validation_split
from zoo.errors import DataError, InputError
from zoo.evaluate.multi_label import LabelPredictions, average_precision, best_thresholds, metrics_of, predicted
from zoo.export.facts import origin_of, reading_of
from zoo.runs.folder import read_result
from zoo.runs.record import CHECKPOINTS, configuration, read_record, write_record
from zoo.train import checkpoint
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.plan import replan, resolve
from zoo.train.run_options import Request
from zoo.train.set_loss import SetLoss
from zoo.train.task import for_task

RECIPE = {"select": "map", "epochs": 4, "batch_size": 32, "lr": 3e-3, "precision": "fp32", "compile": "off"}


class Trained(NamedTuple):
    """A finished run on parquet files with lists of names, in `folder`, and the line that it said of its recipe."""

    run: zoo.Run
    data: str
    folder: Path
    said: list[str]


class Listening(zoo.Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("several")
    with own_caches(folder):
        torch.set_num_threads(1)
        data = f"parquet:{write_parquet(folder / 'data')}?label=names"
        told = Listening()
        run = zoo.train(
            "cnn-baseline", dataset=data, output=folder / "run", device="cpu", settings=RECIPE, reporter=told
        )
        yield Trained(run, data, folder, told.lines)


# ---- metrics -----------------------------------------------------------------------------------------


def some_predictions(seed: int, images: int = 70, classes: int = 6, ties: bool = False) -> tuple[Any, Any]:
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(images, classes, generator=draw) < 0.3).to(torch.uint8)
    scores = torch.rand(images, classes, generator=draw) * 0.7 + labels * 0.3
    return labels, (scores * 8).round() / 8 if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_scikit_learn(seed: int, ties: bool) -> None:
    labels, scores = some_predictions(seed, ties=ties)
    thresholds = torch.linspace(0.2, 0.8, 6, dtype=torch.float64)
    found = metrics_of(LabelPredictions(labels, scores, thresholds), 0.0)
    said = predicted(scores, thresholds).numpy()
    assert average_precision(labels, scores).tolist() == pytest.approx(
        sk.average_precision_score(labels, scores, average=None), abs=1e-12
    )
    assert found.map == pytest.approx(sk.average_precision_score(labels, scores, average="macro"), abs=1e-12)
    assert found.micro_f1 == pytest.approx(sk.f1_score(labels, said, average="micro"), abs=1e-12)
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, said, average="macro", zero_division=0), abs=1e-12)
    assert found.subset_accuracy == sk.accuracy_score(labels, said) == found.correct / found.count


def test_a_class_without_images_does_not_count_in_map() -> None:
    labels, scores = some_predictions(3)
    labels[:, 2] = 0
    rest = [0, 1, 3, 4, 5]
    found = metrics_of(LabelPredictions(labels, scores, torch.full((6,), 0.5, dtype=torch.float64)), 0.0)
    assert found.map == pytest.approx(sk.average_precision_score(labels[:, rest], scores[:, rest]), abs=1e-12)
    assert average_precision(labels, scores)[2].isnan()


@pytest.mark.parametrize("ties", [False, True])
def test_no_other_threshold_has_a_larger_f1(ties: bool) -> None:
    labels, scores = some_predictions(5, ties=ties)
    labels[:, 4] = 0
    thresholds = best_thresholds(labels, scores)
    assert thresholds[4] == 0.5
    for k in (0, 1, 2, 3, 5):
        chosen = sk.f1_score(labels[:, k], predicted(scores[:, k], thresholds[k]))
        tried = [sk.f1_score(labels[:, k], scores[:, k] >= t) for t in (*scores[:, k].unique(), 0.0)]
        assert chosen == pytest.approx(max(tried), abs=1e-12)


# ---- the loss ----------------------------------------------------------------------------------------


def test_the_loss_is_that_of_torch_and_torchvision() -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, labels = torch.randn(9, 5, generator=torch.Generator().manual_seed(1)), some_predictions(1, 9, 5)[0]
    truth = labels.float()
    assert SetLoss("bce")(logits, labels, 9).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, truth).item(), rel=1e-6
    )
    focal = sigmoid_focal_loss(logits, truth, alpha=-1, gamma=1.5, reduction="mean")
    assert SetLoss("focal", 1.5)(logits, labels, 9).item() == pytest.approx(focal.item(), rel=1e-5)
    smooth = F.binary_cross_entropy_with_logits(logits, truth * 0.8 + 0.1)
    assert SetLoss("bce", smoothing=0.2)(logits, labels, 9).item() == pytest.approx(smooth.item(), rel=1e-6)


# ---- a run, to its package ---------------------------------------------------------------------------


def test_a_run_records_its_task_and_says_what_its_recipe_became(trained: Trained) -> None:
    record = read_record(trained.run.folder)
    assert record.data.task == "multi-label"
    assert (record.settings.loss, record.settings.select) == ("bce", "map")
    said = [line for line in trained.said if "several labels" in line]
    assert said == ["images with several labels: loss bce in place of cross-entropy"]
    asked = Request(model="cnn-baseline")
    recipe, lines = for_task(Recipe(), "multi-label", asked)
    assert lines == (f"{said[0]}, select map in place of top1",)
    assert for_task(recipe, "multi-label", asked) == (recipe, ())
    assert for_task(recipe, "single-label", asked)[0].select == "top1"


def test_a_result_has_the_metrics_and_the_thresholds_of_validation(trained: Trained) -> None:
    result, record = read_result(trained.run.folder), read_record(trained.run.folder)
    assert "top1" not in result["test"]
    assert len(result["thresholds"]["values"]) == 4
    model = zoo.load(trained.run)
    assert model.thresholds == tuple(result["thresholds"]["values"])
    data = load(trained.data)
    rows, held_out = validation_split(data.train.labels, 0.1, 0)
    labels = torch.from_numpy(data.train.labels[held_out])
    scores = model.probabilities(np.array(data.train.images[held_out]))
    assert best_thresholds(labels, scores).tolist() == pytest.approx(model.thresholds, abs=1e-6)
    assert (record.data.train, record.data.validation) == (len(rows), len(held_out))
    test = model.probabilities(np.array(data.test.images)).numpy()
    assert result["test"]["map"] == pytest.approx(sk.average_precision_score(data.test.labels, test), abs=1e-6)
    epochs = trained.run.metrics
    assert {"val_map", "val_micro_f1", "train_subset_accuracy"} <= epochs[0].keys()
    assert max(epochs.column("val_map")) == epochs[result["selection"]["epoch"] - 1]["val_map"]


def test_an_evaluation_is_the_recorded_one_and_refuses_what_needs_one_class(trained: Trained) -> None:
    found = zoo.evaluate(trained.run, what=["classes"], output=trained.folder / "eval")
    assert found.same_as_recorded
    assert found.map == read_result(trained.run.folder)["test"]["map"]
    assert found.classes is not None
    assert found.classes.column("class") == list(COLOURS)
    assert json.loads((trained.folder / "eval" / "eval.json").read_text())["map"] == found.map
    rows = (trained.folder / "eval" / "predictions.csv").read_text().splitlines()
    assert rows[0].startswith('"row","source","labels","predictions","correct","p_blue"')
    assert len(rows) == 61
    for what in ("confusion", "calibration", "robustness"):
        with pytest.raises(InputError, match="several labels"):
            zoo.evaluate(trained.run, what=[what])
    with pytest.raises(InputError, match="cannot be compared"):
        zoo.compare(trained.run, trained.run)


def test_other_images_are_matched_by_the_names_of_their_classes(trained: Trained, tmp_path: Path) -> None:
    root, labels = write_folders(tmp_path / "new")
    shown = [k for k, name in enumerate(COLOURS) if (root / name).is_dir()]
    found = zoo.evaluate(trained.run, on=f"folder:{root}", what="classes")
    assert found.count == len(labels)
    assert found.classes is not None
    assert found.classes.column("support") == labels.sum(0).tolist()
    assert shown
    with pytest.raises(InputError, match="gives each image one class"):
        zoo.evaluate(one_label_run(tmp_path), on=trained.data)


def one_label_run(folder: Path) -> Path:
    from hub_server.runs import untrained_run

    return untrained_run(folder / "single", "cnn-baseline", size=16)


def test_predictions_say_the_labels_that_reach_their_thresholds(trained: Trained, tmp_path: Path) -> None:
    images, labels = squares(12, 9)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    model = zoo.load(trained.run)
    found = zoo.predict(trained.run, tmp_path)
    by_model = model.predict(sorted(tmp_path.iterdir()))
    assert [list(one.labels or ()) for one in found] == by_model
    for one in found:
        reached = {name for name, p, t in zip(COLOURS, one.probabilities, model.thresholds, strict=True) if p >= t}
        assert {name for name, _ in one.labels or ()} == reached
        assert [score["name"] for score in one.as_dict()["labels"]] == [name for name, _ in one.labels or ()]
    assert any(len(one.labels or ()) > 1 for one in found)
    assert sum(float(one.probabilities.sum()) for one in found) != pytest.approx(len(found), abs=0.05)
    assert labels.shape == (12, 4)


def test_a_package_gives_its_recorded_numbers_again(trained: Trained) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = zoo.package(trained.run, trained.folder / "package")
    verified = zoo.verify(folder, dataset=trained.data)
    assert [check.name for check in verified.checks if not check.holds] == []
    names = [check.name for check in verified.checks]
    assert {"labels", "mAP", "loss", "card"} <= set(names)
    assert zoo.load(folder).thresholds == zoo.load(trained.run).thresholds
    card = (folder / "README.md").read_text()
    assert "mAP" in card
    assert "top-1" not in card
    assert not (folder / "confusion.png").exists()
    result = json.loads((folder / "result.json").read_text())
    assert f"| {result['test']['map']:.2%} |" in card


def test_a_server_answers_with_the_labels(trained: Trained) -> None:
    image = squares(3, 11)[0][2]
    (expected,) = zoo.load(trained.run).predict([image])
    with zoo.serve(trained.run, port=0, block=False) as serving:
        request = urllib.request.Request(f"{serving.url}predict", png(image), {"Content-Type": "image/png"})
        answer = json.load(urllib.request.urlopen(request, timeout=20))
    assert [label["name"] for label in answer["labels"]] == [name for name, _ in expected]
    assert len(answer["classes"]) == 4


def test_an_exported_file_says_how_its_logits_are_read(trained: Trained) -> None:
    said = origin_of(trained.run.folder, trained.run.record) | reading_of(zoo.load(trained.run))
    assert (said["task"], len(json.loads(said["thresholds"]))) == ("multi-label", 4)
    assert said["test_map"] == f"{read_result(trained.run.folder)['test']['map']:.6f}"


def test_an_exported_file_is_measured_as_its_run(trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export: pip install -e '.[export]'")
    zoo.export(trained.run, tmp_path / "labels.onnx")
    run, file = (zoo.evaluate(word, on=trained.data) for word in (trained.run, tmp_path / "labels.onnx"))
    assert (file.map, file.count) == (pytest.approx(run.map, abs=1e-4), run.count)


def test_labels_are_the_classes_that_reach_their_thresholds_the_most_probable_first(trained: Trained) -> None:
    model = zoo.load(trained.run)
    model.thresholds = (0.5, 0.1, 0.6, 0.3)
    found = model.labels(torch.tensor([0.5, 0.7, 0.5, 0.9]))
    assert [name for name, _ in found] == [model.classes[row] for row in (3, 1, 0)]
    assert [p for _, p in found] == pytest.approx([0.9, 0.7, 0.5])
    assert model.labels(torch.zeros(4)) == []
    with pytest.raises(zoo.errors.RunError, match="not finite"):
        model.labels(torch.tensor([0.0, 0.0, float("nan"), 0.0]))


def test_lists_and_reports_show_map(trained: Trained) -> None:
    row = zoo.runs(trained.run).table[0]
    assert row["top1"] is None
    assert zoo.runs(trained.run)[0].row["map"] == read_result(trained.run.folder)["test"]["map"]
    assert f"test mAP {row['map']:.2%}" in repr(trained.run)
    assert len(zoo.runs(trained.run, best=True)) == 1


def test_what_needs_one_class_is_refused_in_one_line(trained: Trained, tmp_path: Path) -> None:
    def refused(words: str, **more: Any) -> None:
        with pytest.raises(InputError, match=words) as caught:
            zoo.train("cnn-baseline", dataset=trained.data, output=tmp_path / "no", device="cpu", **more)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "no").exists()

    refused("recipe.loss cross-entropy: .*allowed: bce, focal", settings={"loss": "cross-entropy"})
    refused("recipe.select top1: .*allowed: map, loss, last", settings={"select": "top1"})
    refused("recipe.sampler balanced: .*allowed: shuffled", settings={"sampler": "balanced"})
    refused("recipe.class_weights balanced: .*allowed: none", settings={"class_weights": "balanced"})
    refused("have several labels, which one class cannot hold", task="single-label")
    with pytest.raises(InputError, match="no mean average precision"):
        zoo.train("cnn-baseline", dataset="digits", settings={"select": "map"}, output=tmp_path / "no")


def test_a_recorded_run_is_not_repeated_with_a_loss_of_one_class(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.loss cross-entropy"):
        zoo.train(from_run=trained.run, settings={"loss": "cross-entropy"}, output=tmp_path / "again")


def test_weights_of_several_labels_learn_one_label_by_its_own_loss(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small: dict[str, Any] = {"epochs": 1, "limit_train": 64, "limit_test": 32, "device": "cpu"}
    assert trained.run.record.settings.loss == "bce"
    with caplog.at_level("INFO", "zoo"):
        found = zoo.train(from_run=trained.run, dataset="digits", output=tmp_path / "one", **small).record
    assert (found.settings.loss, found.data.is_multi_label) == ("cross-entropy", False)
    assert "images with one label: loss cross-entropy in place of bce" in caplog.messages
    asked = {"loss": "bce"}
    kept = zoo.train(from_run=trained.run, dataset="digits", settings=asked, output=tmp_path / "asked", **small).record
    again = zoo.train(from_run=trained.run, dataset=trained.data, output=tmp_path / "several", **small).record
    assert kept.settings.loss == again.settings.loss == "bce"


def test_damaged_thresholds_are_refused(trained: Trained, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(trained.run.folder, folder)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"thresholds": {"values": [0.5]}}))
    with pytest.raises(zoo.errors.RunError, match="`thresholds` needs 4 numbers"):
        zoo.load(folder)


def test_a_run_on_one_label_an_image_records_no_task(tmp_path: Path) -> None:
    plan = resolve(Request(model="cnn-baseline", dataset="digits", image_size=16, device="cpu", max_steps=1))
    write_record(tmp_path, plan.record)
    assert "task" not in (tmp_path / "run.toml").read_text()
    assert configuration(read_record(tmp_path)) == configuration(plan.record)


# ---- resuming ----------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_within_an_epoch_ends_as_one_that_was_not(trained: Trained, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    steps = '[{op="flip"}, {op="mixup", p=0.5}, {op="cutmix", p=0.5}]'
    settings = ("epochs=2", "batch_size=24", "accumulate=2", "ema=0.9", "label_smoothing=0.1", "loss=focal")
    asked = (*settings, f"augment={steps}", "compile=off", "precision=fp32")
    plan = resolve(Request(model="cnn-baseline", dataset=trained.data, device="cpu", settings=asked))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
        write_record(folder, plan.record)
    expected = Trainer(plan, whole).fit()
    signals = iter([0] * 3 + [15] * 9)
    with pytest.raises(Stop):
        Trainer(plan, stopped, stop=lambda: next(signals), saving=Saving(0, 0)).fit()
    again = Trainer(replan(read_record(stopped)), stopped)
    found = checkpoint.newest(stopped / CHECKPOINTS)
    assert found is not None
    assert 0 < found.state["position"]["step"] < again.steps
    again.restore(found.state)
    result = again.fit()
    for key in ("test", "validation", "thresholds"):
        assert result[key] == expected[key]
    assert (whole / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()


# ---- given in Python ---------------------------------------------------------------------------------


def test_labels_that_are_given_in_python_are_rows_of_0_and_1_or_lists(tmp_path: Path) -> None:
    from torch.utils.data import TensorDataset

    images, labels = squares(30, 4)
    names = list(COLOURS)
    listed = [[names[k] for k in np.flatnonzero(row)] for row in labels]
    paths = [tmp_path / f"{i}.png" for i in range(30)]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(png(image))
    tensors = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    forms: list[Any] = [(images, labels), (images, torch.from_numpy(labels).bool()), (images, listed)]
    forms += [[(path, row) for path, row in zip(paths, listed, strict=True)], TensorDataset(*tensors)]
    for form in forms:
        given = given_data({"train": form, "test": form})
        data = load(given.spec, given=given)
        assert data.task == "multi-label"
        assert np.array_equal(data.train.labels, labels)
    by_name = load(given_data(forms[3]).spec)  # the list of files is kept
    assert np.array_equal(np.concatenate([by_name.train.labels, by_name.test.labels]).sum(0), labels.sum(0))
    with pytest.raises(DataError, match=r"image 0: its label is \[.*\]; an array has 1"):
        given_data((images, np.where(labels, 1, 0) + 2 * (np.arange(30) == 0)[:, None]))
    with pytest.raises(DataError, match="image 1: its label is 3, and other images have lists"):
        given_data((images[:2], [[1, 2], 3]))


# ---- the page of the documentation -------------------------------------------------------------------


def run_script_of_the_page(name: str, folder: Path, *arguments: str) -> None:
    """Run a script that the page shows, in a folder."""
    page = Path(__file__).resolve().parent.parent / "docs" / "multi-label.md"
    (text,) = [step.text for step in steps(page.read_text("utf-8")) if step.path == name]
    (folder / name).write_text(text)
    subprocess.run([sys.executable, name, *arguments], cwd=folder, check=True, timeout=100)


def test_the_example_of_the_page_writes_digits_together(tmp_path: Path) -> None:
    run_script_of_the_page("together.py", tmp_path)
    data = load(f"parquet:{tmp_path / 'together'}")
    assert (data.task, len(data.train), len(data.test)) == ("multi-label", 2000, 500)
    assert len(data.classes) == 10
    assert data.train.labels.sum(1).max() <= 4


def test_the_script_of_the_page_reads_the_layout_of_pascal_voc(tmp_path: Path) -> None:
    images, labels = squares(24, 8)
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    (voc / "JPEGImages").mkdir()
    for row, image in enumerate(images):
        Image.fromarray(image).save(voc / "JPEGImages" / f"2008_{row:06}.jpg")
    for split, rows in (("train", range(16)), ("val", range(16, 24))):
        (voc / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"2008_{row:06}\n" for row in rows))
        for k, name in enumerate(COLOURS):
            lines = [f"2008_{row:06} {(0 if row == 3 else 1) if labels[row, k] else -1:2}\n" for row in rows]
            (voc / "ImageSets" / "Main" / f"{name}_{split}.txt").write_text("".join(lines))
    run_script_of_the_page("voc.py", tmp_path, "VOCdevkit/VOC2012")
    data = load(f"parquet:{voc}")
    assert np.array_equal(data.train.labels, labels[:16])
    assert np.array_equal(data.test.labels, labels[16:])
    assert data.classes == tuple(COLOURS)
