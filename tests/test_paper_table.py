"""`zoo reproduce SOURCE`: every published result beside ours as they are recorded, without training."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

import pytest
from click.testing import CliRunner

import zoo
from docs.paper_tables import PAGE, with_tables
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import InputError, RunError
from zoo.studies.reproduce.paper_table import images_name
from zoo.studies.reproduce.standing import T95, standing

RESULTS = Path(__file__).resolve().parent.parent / "results"
SOURCES = sorted(load_registry().sources)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("source", SOURCES)
def test_each_published_result_of_a_source_has_ours_beside_it_or_says_why_not(source: str) -> None:
    table = zoo.reproduce(source, results=RESULTS)
    registry = load_registry()
    wanted = {
        (name, row.dataset, row.top1)
        for name, model in registry.models.items()
        for row in model.published
        if (row.source or model.source) == source
    }
    assert {(row["model"], row["dataset"], row["published_top1"]) for row in table.rows} == wanted
    for row in table.rows:
        if row["top1"] is None:
            assert 1 <= len(row["note"].split()) <= 3, row
        else:
            assert all(row[key] for key in ("device", "commit", "images", "seeds")), row
            assert row["difference"] == pytest.approx(row["top1"] - row["published_top1"])


def test_no_row_says_why_it_is_not_measured_and_is_measured() -> None:
    for source in SOURCES:
        measured = {
            (row["model"], row["dataset"]) for row in zoo.reproduce(source, results=RESULTS).rows if row["top1"]
        }
        for name, model in load_registry().models.items():
            for row in model.published:
                if (row.source or model.source) == source and row.not_measured:
                    assert (name, row.dataset) not in measured


def test_the_records_results_are_shown_with_what_they_were_measured_by(nowhere: Path) -> None:
    rows = json.loads((RESULTS / "hybrid-vit-cifar10.json").read_text())["rows"]
    (recorded,) = [row for row in rows if row["budget"] == "full" and row["model"] == "cnn-vit"]
    (shown,) = [row for row in zoo.reproduce("hybrid-vit", results=RESULTS).rows if row["model"] == "cnn-vit"]
    assert (shown["top1"], shown["by"], shown["seeds"]) == (recorded["top1"], "source", len(recorded["seeds"]))
    assert shown["commit"] == recorded["runs"][0]["result"]["environment"]["commit"]
    assert shown["images"] == images_name(recorded["images"])
    assert not list(nowhere.iterdir())


def test_without_records_the_catalogues_results_and_weights_are_shown(nowhere: Path) -> None:
    del nowhere
    rows = [row for row in zoo.reproduce("cnn-to-others").rows if row["model"] == "cnn-baseline"]
    weights = load_registry().models["cnn-baseline"].weights[0]
    (best,) = [row for row in rows if row["record"] == weights.where]
    assert (best["top1"], best["by"], best["dataset"]) == (weights.top1, "best", weights.dataset)
    assert best["commit"]
    assert any(row["by"] == "source" and row["top1"] for row in rows)


@pytest.mark.parametrize(
    ("scores", "published", "expected"),
    [
        ([0.70, 0.71, 0.72], 0.68, "above"),
        ([0.70, 0.71, 0.72], 0.69, "at"),  # 0.71 - 0.69 = 0.02, and 4.303 * 0.01 / 3 ** 0.5 = 0.0248
        ([0.70, 0.71, 0.72], 0.74, "below"),
        ([0.70, 0.72], 0.60, "at"),  # 12.706 * 0.01414 / 2 ** 0.5 = 0.127
        ([0.70, 0.72], 0.58, "above"),
        ([0.75], 0.60, ""),
        ([0.70] * 12, 0.69, "above"),
    ],
)
def test_above_and_below_are_said_only_where_the_seeds_say_so(
    scores: list[float], published: float, expected: str
) -> None:
    spread = stdev(scores) if len(scores) > 1 else None
    assert standing(mean(scores) - published, spread, len(scores)) == expected
    assert standing(None, spread, len(scores)) == ""


def test_the_interval_is_that_of_students_t() -> None:
    t = pytest.importorskip("scipy.stats").t
    assert [round(t.ppf(0.975, degrees), 3) for degrees in range(1, 10)] == list(T95)


def test_every_row_says_how_it_stands() -> None:
    rows = zoo.reproduce("cnn-to-others", results=RESULTS).rows
    several = [row for row in rows if row["seeds"] > 1]
    assert several
    for row in rows:
        assert row["standing"] == standing(row["difference"], row["spread"], row["seeds"])
    assert all(row["standing"] for row in several)


def test_a_package_and_its_record_are_one_measurement(nowhere: Path) -> None:
    rows = zoo.reproduce("cnn-to-others", results=RESULTS).rows
    facts = [(row["model"], row["dataset"], row["by"], row["top1"]) for row in rows if row["top1"]]
    assert len(facts) == len(set(facts))


def test_the_command_prints_the_same_and_trains_nothing(nowhere: Path) -> None:
    printed = CliRunner().invoke(cli, ["reproduce", "mixer-report", "--results", str(RESULTS)])
    assert printed.exit_code == 0, printed.output
    heading, titles, *lines = printed.stdout.splitlines()
    assert "nothing is trained" in heading
    assert titles.split()[:6] == ["MODEL", "DATASET", "PUBL.", "OURS", "DIFF.", "BY"]
    assert len(lines) == 4
    assert all("needs a GPU" in line for line in lines)
    assert not list(nowhere.iterdir())


OF_A_TRAINING = (
    *(["--seeds", "3"], ["--budget", "small"], ["--recipe", "best"], ["--figures"]),
    *(["--device", "cpu"], ["--jobs", "2"], ["--engine", "ray"]),
    *(["--runs", "mine"], ["--data-dir", "."], ["--checkpoint-seconds", "5"]),
)


@pytest.mark.parametrize("words", OF_A_TRAINING)
def test_options_of_a_training_are_refused_where_nothing_is_trained(words: list[str], nowhere: Path) -> None:
    with pytest.raises(InputError, match=f"{words[0]} has no meaning; add --train"):
        cli.main(["reproduce", "mixer-report", *words], standalone_mode=False)
    assert not list(nowhere.iterdir())


def test_a_whole_source_is_trained_when_that_is_asked_for(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(nowhere / "cache"))
    small = ["--budget", "small", "--limit-train", "32", "--limit-test", "16", "--epochs", "1", "--dataset", "digits"]
    cli.main(["reproduce", "cnn-to-others", "--train", "--only", "cnn-baseline/cifar10", *small], standalone_mode=False)
    (row,) = json.loads((nowhere / "results" / "cnn-to-others.json").read_text())["rows"]
    assert (row["model"], row["budget"]) == ("cnn-baseline", "small")


def test_a_damaged_record_is_named(nowhere: Path) -> None:
    (nowhere / "results").mkdir()
    (nowhere / "results" / "a.json").write_text('{"table": "x", ')
    with pytest.raises(RunError, match=r"results/a\.json: not a table of `zoo reproduce`"):
        zoo.reproduce("mixer-report")


def test_the_page_of_the_papers_has_these_tables() -> None:
    text = PAGE.read_text("utf-8")
    assert all(f"<!-- source: {source} -->" in text for source in SOURCES)
    assert with_tables(text) == text, "run `python docs/paper_tables.py`"
