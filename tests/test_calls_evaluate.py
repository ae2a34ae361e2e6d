"""`zoo.evaluate` and `zoo.compare`: they give what `zoo eval` prints, and themselves print nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from small_runs import small_catalogue

import zoo
from zoo.base.reporter import Reporter
from zoo.cli import cli
from zoo.cli import evaluate as command
from zoo.errors import InputError, RunError, ZooWarning
from zoo.evaluate import evaluation
from zoo.evaluate.evaluation_html import MOST_PAIRS, confusion_html
from zoo.evaluate.measurement import Evaluation
from zoo.runs.api import Run, open_run
from zoo.runs.folder import read_result, read_weights, write_result, write_weights
from zoo.runs.record import read_record, write_record
from zoo.train.loop import Trainer
from zoo.train.plan import resolve
from zoo.train.run_options import Request


@pytest.fixture(scope="module")
def run(plugin_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run of the digits."""
    base = tmp_path_factory.mktemp("runs")
    with small_catalogue(base, plugin_index):
        plan = resolve(Request(model="tiny", device="cpu", epochs=1, limit_train=300))
    (base / "run").mkdir()
    write_record(base / "run", plan.record)
    Trainer(plan, base / "run").fit()
    return open_run(base / "run")


@pytest.fixture(scope="module")
def everything(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """All parts but those that take long or are measured by a clock, with files, compared with itself."""
    folder = tmp_path_factory.mktemp("out") / "evaluation"
    return zoo.compare(run, run, what=("classes", "confusion", "calibration"), output=folder, predictions="none")


def printed(*words: Any) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["eval", *map(str, words), "--json"])
    assert done.exception is None, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Said(Reporter):
    """Keeps all that a call says."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def say(self, line: str) -> None:
        self.lines.append(("say", line))

    def note(self, line: str) -> None:
        self.lines.append(("note", line))

    def warn(self, line: str) -> None:
        self.lines.append(("warn", line))

    def progress(self, what: str, done: int, total: int, /) -> None:
        self.lines.append(("progress", f"{what} {done}/{total}"))

    def close(self) -> None:
        self.lines.append(("close", ""))


# ---- the call and the command ------------------------------------------------------------------------


@pytest.mark.parametrize("given", [lambda run: run, lambda run: str(run.folder), lambda run: run.folder])
def test_the_call_gives_what_the_command_prints(given: Callable[[Run], Any], run: Run) -> None:
    found = zoo.evaluate(given(run))
    assert found.as_dict() == printed(run.folder)
    assert (found.top1, found.correct, found.count) == (run.top1, run.result["test"]["correct"], 360)
    assert (found.same_as_recorded, found.verdict, found.num_classes) == (True, "the same as recorded", 10)
    assert (found.interval, found.classes, found.confusion, found.comparison, found.files) == (
        None,
        None,
        None,
        None,
        (),
    )


def test_every_option_of_the_command_is_one_of_the_call(run: Run, tmp_path: Path) -> None:
    words = ["--split", "val", "--what", "classes", "--predictions", "parquet", "--seed", "3"]
    options: dict[str, Any] = {"split": "val", "what": " classes ,", "predictions": "parquet", "seed": 3}
    there = printed(run.folder, *words, "--compare", run.folder, "--output", tmp_path / "out")
    assert zoo.compare(run, run, output=tmp_path / "out", **options).as_dict() == there
    other = {"what": ["classes"], "dataset": None, "on": "sklearn:digits?alter_test=flip", "device": "cpu"}
    flags = ("--on", other["on"], "--device", "cpu", "--what", "classes")
    assert run.evaluate(**other).as_dict() == printed(run.folder, *flags)
    of_call = set(zoo.compare.__annotations__) - {"return", "reporter"}
    of_command = {str(p.name) for p in command.evaluate.params} - {"as_json", "quiet"}
    assert of_call == of_command
    assert of_call - {"other"} == set(zoo.evaluate.__signature__.parameters) - {"reporter"}


def test_the_calls_print_nothing_and_exit_nowhere(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    zoo.evaluate(run, what="confusion")
    zoo.compare(run, run)
    with pytest.raises(InputError, match="no run"):
        zoo.evaluate("no-such-run")
    assert capfd.readouterr() == ("", "")


def test_robustness_is_that_of_the_command_and_tells_each_corruption_once(run: Run) -> None:
    said = Said()
    options: dict[str, Any] = {
        "corruptions": ["pixelate", "contrast"],
        "severities": (5, 1),
        "images": 20,
        "workers": 0,
    }
    found = zoo.evaluate(run, what=["robustness"], reporter=said, **options)
    words = ("--corruptions", "pixelate,contrast", "--severities", "5,1", "--images", "20", "--workers", "0")
    assert found.as_dict() == printed(run.folder, "--what", "robustness", *words)
    assert found.robustness is not None
    assert found.robustness.columns == ("corruption", "group", "severity 1", "severity 5", "mean")
    assert found.robustness.column("corruption") == ["pixelate", "contrast"]
    kinds = [kind for kind, _ in said.lines]
    assert [line for kind, line in said.lines if kind == "progress"] == [f"robustness {n}/4" for n in range(5)]
    assert [line for kind, line in said.lines if kind == "note"] == [
        "robustness: pixelate (0 of 4 passes done)",
        "robustness: contrast (2 of 4 passes done)",
    ]
    assert kinds[-2:] == ["say", "close"]


@pytest.mark.parametrize("is_alone", [True, False])
def test_where_images_are_and_on_what_they_are_measured_reaches_the_run(
    is_alone: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: dict[str, Any] = {"data_dir": "data", "device": "mps", "dataset": "digits", "on": None}

    def opened(folder: Path, **given: Any) -> Any:
        assert {key: given[key] for key in places} == places
        raise RunError("as far as this")

    monkeypatch.setattr(evaluation, "open_run", opened)
    with pytest.raises(RunError, match="as far as this"):
        zoo.evaluate(run, **places) if is_alone else zoo.compare(run, run, **places)


# ---- what a call says of the record ------------------------------------------------------------------


def altered(run: Run, folder: Path) -> Path:
    """A copy of the run whose record says another number."""
    shutil.copytree(run.folder, folder)
    result = read_result(folder)
    result["test"]["correct"] += 1
    write_result(folder, result)
    return folder


def test_another_number_than_the_recorded_one_is_a_warning(run: Run, tmp_path: Path) -> None:
    folder = altered(run, tmp_path / "run")
    with pytest.warns(ZooWarning, match=r"result.json records \d+ of 360 correct, measured \d+ of 360"):
        found = zoo.evaluate(folder)
    assert found.same_as_recorded is False
    assert found.recorded is not None
    assert found.recorded["correct"] == found.correct + 1
    done = CliRunner().invoke(cli, ["eval", str(folder)])
    assert isinstance(done.exception, RunError)
    assert str(done.exception) == found.verdict
    assert done.stdout.startswith("test top-1")
    assert "warning" not in done.stderr


def test_what_was_never_recorded_is_said(run: Run) -> None:
    said = Said()
    found = zoo.evaluate(run, split="train", reporter=said)
    assert (found.same_as_recorded, found.recorded) == (None, None)
    assert said.lines == [("say", "no result of training images is recorded to compare with"), ("close", "")]


def test_a_reporter_is_closed_after_an_error(run: Run) -> None:
    said = Said()
    with pytest.raises(InputError):
        zoo.evaluate(run, on="digits", dataset="digits", reporter=said)
    assert said.lines == [("close", "")]


# ---- options that are wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"what": "speed"}, "nothing named 'speed'"),
        ({"what": ""}, "allowed: classes"),
        ({"what": ["classes", "size"]}, "nothing named 'size'"),
        ({"severities": (0,)}, "--severities '0'"),
        ({"severities": ()}, "give some of 1,2,3,4,5"),
        ({"split": "all"}, "--split 'all'"),
        ({"predictions": "xml"}, "--predictions 'xml'"),
        ({"images": -1}, "--images -1"),
        ({"workers": -1}, "--workers -1"),
        ({"seed": -1}, "--seed -1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"seconds": 0.0}, "--seconds 0.0"),
        ({"seconds": float("nan")}, "--seconds nan"),
        ({"images": 100}, "--images has no meaning without --what robustness"),
        ({"corruptions": "fog", "what": "classes"}, "--corruptions has no meaning without --what robustness"),
        ({"severities": (1, 3)}, "--severities has no meaning without --what robustness"),
        ({"predictions": "parquet"}, "--predictions has no meaning without --output FOLDER"),
    ],
)
def test_a_wrong_option_is_refused_before_the_run_is_opened(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        zoo.evaluate("no-such-run", **options)
    assert says in str(caught.value)


@pytest.mark.parametrize("images", [None, 0, 1000])
def test_all_images_may_be_asked_for_where_all_are_measured_anyway(images: int | None) -> None:
    with pytest.raises(InputError, match="no run"):
        zoo.evaluate("no-such-run", images=images)


def test_a_missing_library_is_said_before_the_run_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(InputError, match="imagecorruptions"):
        zoo.evaluate("no-such-run", what="robustness")


# ---- what the calls give -----------------------------------------------------------------------------


def test_the_parts_agree_with_one_another(everything: Evaluation, run: Run) -> None:
    confusion, classes, mistakes = everything.confusion, everything.classes, everything.mistakes
    assert confusion is not None
    assert classes is not None
    assert mistakes is not None
    assert (confusion.dtype, confusion.shape) == (np.dtype(np.int64), (10, 10))
    assert (confusion.trace(), confusion.sum()) == (everything.correct, everything.count)
    assert classes.column("support") == confusion.sum(1).tolist()
    assert classes.column("predicted") == confusion.sum(0).tolist()
    assert sum(mistakes.column("images")) == everything.count - everything.correct
    assert mistakes.column("images") == sorted(mistakes.column("images"), reverse=True)
    assert everything.averages is not None
    assert everything.averages["weighted"]["recall"] == pytest.approx(everything.top1)
    assert everything.calibration is not None
    assert everything.calibration["accuracy"] == pytest.approx(everything.top1)
    assert everything.interval is not None
    assert everything.interval[0] < everything.top1 < everything.interval[1]
    assert {path.name for path in everything.files} == {"confusion.png", "reliability.png", "eval.json"}
    assert all(path.is_file() for path in everything.files)


def test_a_calibration_takes_from_a_folder_what_tells_probabilities_alone(run: Run, tmp_path: Path) -> None:
    copy, folder = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run.folder, copy)
    zoo.evaluate(copy, what=("latency", "confusion", "calibration"), seconds=0.01, output=folder)
    zoo.calibrate(copy)
    zoo.evaluate(copy, what="classes", output=folder, predictions="none")
    document = json.loads((folder / "eval.json").read_text())
    assert {"latency", "confusion", "classes", "temperature"} <= document.keys()
    assert "calibration" not in document
    assert {Path(path).name for path in document["files"]} == {path.name for path in folder.iterdir()}
    assert {path.name for path in folder.iterdir()} == {"confusion.png", "eval.json"}


def test_a_folder_keeps_what_is_not_measured_again_until_the_weights_are_others(run: Run, tmp_path: Path) -> None:
    copy, folder = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run.folder, copy)
    zoo.evaluate(copy, what="latency", seconds=0.01, output=folder)
    found = zoo.evaluate(copy, what=("classes", "confusion"), output=folder, predictions="none")
    document = json.loads((folder / "eval.json").read_text())
    assert {"latency", "classes", "confusion"} <= document.keys()
    assert found.latency is None
    assert {Path(path).name for path in document["files"]} == {path.name for path in folder.iterdir()}
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "confusion.png", "eval.json"}

    weights = read_weights(copy)  # as of another training in this folder
    write_weights(copy, {key: value.flip(0) for key, value in weights.items()}, read_record(copy))
    other = zoo.evaluate(copy, what="classes", output=folder, predictions="none")
    assert other.loss != pytest.approx(found.loss, rel=1e-4)
    document = json.loads((folder / "eval.json").read_text())
    assert not {"latency", "confusion"} & document.keys()
    assert {path.name for path in folder.iterdir()} == {"eval.json"}


def test_a_run_compared_with_itself_does_not_differ(everything: Evaluation, run: Run) -> None:
    comparison = everything.comparison
    assert comparison is not None
    assert (comparison.run, comparison.top1) == (str(run.folder), everything.top1)
    assert (comparison.difference, comparison.interval, comparison.p) == (0.0, (0.0, 0.0), 1.0)
    assert comparison.counts["both_right"] == everything.correct
    assert sum(comparison.counts.values()) == everything.count


def test_an_evaluation_does_not_change(everything: Evaluation) -> None:
    with pytest.raises(AttributeError):
        everything.top1 = 1.0  # type: ignore[misc]  # wrong on purpose
    before = everything.as_dict()
    everything.as_dict()["classes"]["rows"].clear()
    assert everything.calibration is not None
    everything.calibration["bins"].clear()
    assert everything.as_dict() == before


def test_a_terminal_shows_the_figures_and_the_names_of_the_parts(everything: Evaluation) -> None:
    lines = repr(everything).splitlines()
    assert f"test top-1 {everything.top1:.2%} ({everything.correct} of 360, 95% interval" in lines[0]
    assert lines[1] == "  the same as recorded"
    assert "McNemar's p = 1" in lines[2]
    assert lines[3] == "  with .classes, .confusion, .calibration"


class Cells(HTMLParser):
    """The texts of a page's cells, and whether every element was closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def test_a_notebook_shows_every_part_and_the_shaded_matrix(everything: Evaluation) -> None:
    page = everything._repr_html_()
    cells = Cells(page)
    assert not cells.open
    for title in ("Classes (test)", "Confusion (test)", "Calibration: ECE"):
        assert title in page
    assert "<script" not in page
    assert "with ." not in page
    first = [str(n or "") for n in everything.as_dict()["confusion"]["counts"][0]]
    start = cells.cells.index("true \\ predicted")
    assert cells.cells[start + 11 : start + 22] == ["0", *first]


def test_names_of_classes_are_escaped_and_many_classes_are_shown_by_their_mistakes() -> None:
    page = confusion_html(["<b>", "b"], [[1, 4], [0, 0]])
    assert "<b>" not in page
    assert "rgba(8, 81, 156, 0.80); color: white" in page
    names = [f"c{i}" for i in range(40)]
    counts = [[i * (j == i + 1) for j in range(40)] for i in range(40)]
    cells = Cells(confusion_html(names, counts)).cells
    assert cells[4:8] == ["c38", "c39", "38", "100.0%"]
    assert len(cells) == 4 * (MOST_PAIRS + 1)
