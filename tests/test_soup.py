"""Model soups against means that are made by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file
from small_runs import small_catalogue
from torch import Tensor, nn

import zoo
from zoo.base.reporter import Reporter
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import InputError, RunError
from zoo.evaluate.classifier import open_classifier
from zoo.runs.folder import read_weights, write_weights
from zoo.runs.images import images_of
from zoo.runs.record import read_record, write_record
from zoo.studies.soup import average
from zoo.train.loop import Trainer
from zoo.train.plan import resolve
from zoo.train.run_options import Request


class Told(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.warnings.append(line)


@pytest.fixture(scope="module")
def runs(plugin_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs from the same initial weights: two learning rates, and one that learnt nothing good."""
    base = tmp_path_factory.mktemp("runs")
    with small_catalogue(base, plugin_index):
        for name, lr in (("a", 3e-3), ("b", 4e-3)):
            plan = resolve(Request(model="tiny", device="cpu", epochs=2, lr=lr, limit_test=100))
            (base / name).mkdir()
            write_record(base / name, plan.record)
            Trainer(plan, base / name).fit()
    shutil.copytree(base / "a", base / "bad")
    weights, record = read_weights(base / "a"), read_record(base / "a")
    write_weights(base / "bad", {k: -v if v.ndim > 1 else v for k, v in weights.items()}, record)
    return base


def test_a_mean_of_weights_is_the_one_by_hand_and_counters_are_the_firsts() -> None:
    draw = np.random.default_rng(0)
    states = [{"w": draw.normal(size=(3, 4)).astype("float32"), "n": np.array(k)} for k in range(3)]
    found = average({k: torch.from_numpy(v) for k, v in state.items()} for state in states)
    np.testing.assert_allclose(found["w"].numpy(), np.mean([s["w"] for s in states], axis=0), atol=1e-7)
    assert found["n"].item() == 0
    with pytest.raises(RunError, match="other names or shapes"):
        average([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])


def test_a_uniform_soup_is_the_mean_and_a_run_that_everything_takes(runs: Path, tmp_path: Path) -> None:
    made = zoo.soup(runs / "a", runs / "b", method="uniform", output=tmp_path / "soup", reporter=Told())
    files = [load_file(runs / name / "model.safetensors") for name in ("a", "b")]
    found = load_file(made.folder / "model.safetensors")
    of_norms = ("running_mean", "running_var", "num_batches_tracked")
    for name in found:
        if not name.endswith(of_norms):
            np.testing.assert_allclose(found[name], (files[0][name] + files[1][name]) / 2, atol=1e-6)
    soup = made.record.soup
    assert soup
    assert [(one.name, one.weight) for one in soup.of] == [("a", 0.5), ("b", 0.5)]
    assert zoo.evaluate(made).same_as_recorded
    assert zoo.load(made).classes == zoo.load(runs / "a").classes
    assert made.top1 is not None
    package = zoo.package(made)
    assert zoo.verify(package)
    card = (package / "README.md").read_text("utf-8")
    assert "uniform soup of 2 runs" in card
    assert "curves.png" not in card
    for call in (lambda: zoo.resume(made, epochs=9), lambda: zoo.train(from_run=made)):
        with pytest.raises(InputError, match="is a soup"):
            call()


def test_the_statistics_of_batch_norms_are_computed_again(runs: Path, tmp_path: Path) -> None:
    made = zoo.soup(runs / "a", runs / "b", method="uniform", output=tmp_path / "soup", reporter=Told())
    registry, record = load_registry(), read_record(made.folder)
    classifier = open_classifier(made.folder, registry)
    norm = next(m for m in classifier.module.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        classifier.module(classifier.prepare(images_of(record, registry).train.images[:]))
    by_hand = seen[0].mean((0, 2, 3))
    assert norm.running_mean is not None
    # From whole batches: a fifth of the training images is left out.
    torch.testing.assert_close(norm.running_mean, by_hand, atol=0.02, rtol=0.02)
    means = [load_file(runs / name / "model.safetensors") for name in ("a", "b")]
    key = next(name for name in means[0] if name.endswith("running_mean"))
    plain = torch.from_numpy((means[0][key] + means[1][key]) / 2)
    assert (norm.running_mean - by_hand).abs().max() < (plain - by_hand).abs().max() / 2


def test_a_greedy_soup_leaves_out_what_makes_validation_worse(runs: Path, tmp_path: Path) -> None:
    told = Told()
    done = zoo.soup(runs / "bad", runs / "a", runs / "b", output=tmp_path / "soup", reporter=told)
    assert done.result is not None
    rows = done.result["soup"]["candidates"]
    assert rows[-1] == {**rows[-1], "name": "bad", "taken": False}
    assert len(told.lines) == 3
    assert done.record.soup
    assert "bad" not in [one.name for one in done.record.soup.of]
    best = max(row["alone"] for row in rows)
    assert done.result["validation"]["top1"] >= best
    assert done.result["validation"]["top1"] == max(row["with"] for row in rows if row["taken"])


def test_runs_of_other_initial_weights_are_warned_of(runs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(runs / "b", tmp_path / "b")
    write_record(other, msgspec.structs.replace(read_record(other), seed=5))
    told = Told()
    zoo.soup(runs / "a", other, method="uniform", output=tmp_path / "soup", reporter=told)
    assert "did not begin with the same weights" in told.warnings[0]


def test_runs_that_cannot_be_averaged_are_refused_in_one_line(runs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(runs / "b", tmp_path / "b")
    record = read_record(other)
    for change, words in (
        ({"build": {**record.build, "body": {"use": "cnn.residual", "widths": [8]}}}, "composition"),
        ({"data": msgspec.structs.replace(record.data, classes=record.data.classes[::-1])}, "data.classes"),
        ({"data": msgspec.structs.replace(record.data, mean=(0.5,), std=(0.5,))}, "data.mean"),
        ({"data": msgspec.structs.replace(record.data, limit_train=9)}, "data.limit_train"),
        ({"data": msgspec.structs.replace(record.data, limit_test=9)}, "data.limit_test"),
        ({"settings": msgspec.structs.replace(record.settings, tta="mirror")}, "recipe.tta"),
    ):
        write_record(other, msgspec.structs.replace(record, **change))
        with pytest.raises(InputError, match=words):
            zoo.soup(runs / "a", other)
    for words in ((runs / "a",), (runs / "a", runs / "a")):
        with pytest.raises(InputError):
            zoo.soup(*words)
    paper = [shutil.copytree(runs / name, tmp_path / f"paper-{name}") for name in ("a", "b")]
    for folder in paper:
        write_record(folder, msgspec.structs.replace(read_record(folder), protocol="paper"))
    with pytest.raises(InputError, match="--method uniform"):
        zoo.soup(*paper)


def test_the_command_prints_the_folder(runs: Path, tmp_path: Path) -> None:
    words = ["soup", str(runs / "a"), str(runs / "b"), "--output", str(tmp_path / "soup"), "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exception is None
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "soup")
    assert "soup of" in done.stderr
    again = CliRunner().invoke(cli, [*words[:-1], "--method", "uniform"])
    assert "choose another folder" in str(again.exception)
    assert "--resume" not in str(again.exception)
    assert '"epochs_planned": null' in CliRunner().invoke(cli, ["runs", str(tmp_path / "soup"), "--json"]).stdout
    with pytest.raises(InputError, match=r"is a soup.*--weights"):
        zoo.resume(tmp_path / "soup")
