"""`zoo reproduce`: a table trained once, whoever interrupts it, and printed as it is recorded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from zoo.base.files import WriteError
from zoo.catalogue.describe import native_sizes
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import decode
from zoo.catalogue.vary import vary
from zoo.cli import cli
from zoo.errors import InputError, UnknownNameError
from zoo.models.compose import check
from zoo.studies.reproduce.rows import Ask, jobs_of, rows_of, targets

STUDY = """
[models.little]
summary = "a ViT of almost nothing"
family = "test"
recipe = "little"
dataset = "digits"
build = { use = "vit.classifier", patch = 4, embed = 16, depth = 1, heads = 1, head_width = 8, mlp = 16 }

[recipes.little]
epochs = 3
lr = 0.01
batch_size = 32

[studies.sides]
summary = "sides of a patch; 3 does not divide 8"
model = "little"
each = { "build.patch" = [2, 3] }
published = [{ at = {}, top1 = 0.5, minutes_per_epoch = 2, epochs = 3, published_as = "Little" }]
"""
WORDS = ("reproduce", "cnn-to-others/cifar10", "--only", "cnn-baseline-bn*", "--budget", "small")
SMALL = ("--dataset", "digits", "--limit-train", "300", "--limit-test", "100", "--epochs", "2", "--quiet")
TIMES = ("seconds", "minutes", "images_per_second", "warm_up_seconds", "energy")


def zoo(*words: str) -> None:
    cli.main(list(words), standalone_mode=False)


def rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["rows"]


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished table of two models and two seeds, and its figures."""
    base = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        patch.setenv("ZOO_CACHE_DIR", str(base / "cache"))
        zoo(*WORDS, *SMALL, "--seeds", "2", "--figures")
    return base


def test_the_table_says_what_the_runs_recorded(table: Path) -> None:
    found = rows(table / "results" / "cnn-to-others-cifar10.json")
    assert [row["model"] for row in found] == ["cnn-baseline-bn", "cnn-baseline-bn-dropout"]
    for row in found:
        results = [json.loads((table / run["folder"] / "result.json").read_text()) for run in row["runs"]]
        scores = [result["test"]["top1"] for result in results]
        assert [run["result"] for run in row["runs"]] == results
        assert row["top1"] == pytest.approx(sum(scores) / 2)
        assert row["spread"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
        assert row["difference"] == pytest.approx(row["top1"] - row["published_top1"])
        assert row["parameters"] == results[0]["parameters"]
        assert row["minutes"] == pytest.approx(sum(r["train"]["seconds"] for r in results) / 120)
        assert (row["dataset"], row["protocol"], row["seeds"]) == ("cifar10", "paper", [0, 1])
    assert found[1]["published_top1"] == 0.7406


def test_a_small_budget_and_a_stand_in_are_labelled_everywhere(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(table)
    zoo(*WORDS, *SMALL, "--seeds", "2")
    heading, titles, *lines = capsys.readouterr().out.splitlines()
    assert "SMALL BUDGET" in heading
    assert "images of digits" in heading
    assert "BUDGET" in titles
    assert len(lines) == 2
    assert all(" small " in line and "small" not in line.split()[0] for line in lines)
    for row in rows(table / "results" / "cnn-to-others-cifar10.json"):
        assert (row["budget"], row["stand_in"], row["images"]) == ("small", True, "digits")
        assert (row["runs"][0]["train_images"], row["runs"][0]["epochs"]) == (300, 2)


def test_what_is_recorded_is_not_trained_again(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(table)
    results = list((table / "runs").rglob("result.json"))
    before = [p.stat().st_mtime_ns for p in results]
    assert len(before) == 4
    zoo(*WORDS, *SMALL[:-1], "--seeds", "2", "--json")
    assert [p.stat().st_mtime_ns for p in results] == before
    said = capsys.readouterr()
    assert "started" not in said.err
    assert [row["seeds"] for row in json.loads(said.out)] == [[0, 1], [0, 1]]


def test_another_budget_adds_rows_and_keeps_the_others(table: Path, tmp_path: Path) -> None:
    copy = tmp_path / "results" / "cnn-to-others-cifar10.json"
    copy.parent.mkdir()
    first = rows(table / "results" / copy.name)
    copy.write_text(json.dumps({"format": 1, "table": "", "title": "", "rows": [{**first[0], "budget": "full"}]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(table)
        zoo(*WORDS, *SMALL, "--seeds", "2", "--results", str(copy.parent))
    assert [(row["model"], row["budget"]) for row in rows(copy)] == [
        ("cnn-baseline-bn", "full"),
        ("cnn-baseline-bn", "small"),
        ("cnn-baseline-bn-dropout", "small"),
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--seeds", "2", "--device", "cuda:77", "--runs", "none"], 1),  # every run fails
        (["--seeds", "1"], 0),  # less of the same
    ],
)
def test_what_a_file_holds_stays_until_more_is_measured(
    words: list[str], code: int, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(table, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    file = Path("results/cnn-to-others-cifar10.json")
    before = rows(file)
    with pytest.raises(SystemExit) if code else contextlib.nullcontext() as end:
        zoo(*WORDS, *SMALL, *words)
    assert end is None or end.value.code == code
    assert rows(file) == before


def test_a_row_that_a_commit_with_changes_measured_needs_a_note(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(table, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    file = Path("results/cnn-to-others-cifar10.json")
    for run in (run for row in rows(file) for run in row["runs"]):
        path = Path(run["folder"]) / "result.json"
        result = json.loads(path.read_text())
        result["environment"]["commit"] = "0123456789ab-dirty"
        path.write_text(json.dumps(result))
    said = "on cifar10 was measured at 0123456789ab-dirty, a commit with changes"
    zoo(*WORDS, *SMALL, "--seeds", "2")
    assert capsys.readouterr().err.count(said) == 2
    document = json.loads(file.read_text())
    document["rows"][0]["note"] = "a comment was not committed"
    file.write_text(json.dumps(document))
    zoo(*WORDS, *SMALL, "--seeds", "2")
    assert capsys.readouterr().err.count(said) == 1
    assert [row.get("note") for row in rows(file)] == ["a comment was not committed", None]


def test_a_run_that_was_trained_anew_replaces_what_the_file_holds(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(table, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    file = Path("results/cnn-to-others-cifar10.json")
    old = rows(file)
    path = Path(old[0]["runs"][0]["folder"]) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "another"}))
    zoo(*WORDS, *SMALL, "--seeds", "1")
    assert [row["seeds"] for row in rows(file)] == [[0], [0, 1]]
    assert rows(file)[0]["runs"][0]["result"]["device"] == "another"
    assert rows(file)[1] == old[1]


def test_figures_are_drawn_whole_and_the_same_each_time(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    folder = table / "results" / "figures"
    stem = "cnn-to-others-cifar10-paper-small"
    with Image.open(folder / f"{stem}.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50
    drawing = ElementTree.parse(folder / f"{stem}.svg").getroot()
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}path"))) > 50
    before = digests(folder)
    monkeypatch.chdir(table)
    zoo(*WORDS, *SMALL, "--seeds", "2", "--figures")
    assert digests(folder) == before
    zoo(*LONG[:6], *SMALL, "--seeds", "2", "--figures")
    assert digests(folder) == before  # the table's figure, whatever was asked for


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "ZOO_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", "zoo", *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


LONG = (*WORDS[:3], "cnn-baseline-bn", *WORDS[4:], *SMALL[:6], "--epochs", "40", "--checkpoint-seconds", "0.2")


def wait_for(path: Path, glob: str, step: int = 0) -> None:
    """Wait for a file, or for the checkpoint of a step or a later one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(not step or int(found.name[:8]) >= step for found in path.rglob(glob)):
            return
        time.sleep(0.005)
    raise AssertionError(f"no {glob} in {path}")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
def test_a_killed_table_goes_on_and_comes_out_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    cut.mkdir()
    whole.mkdir()
    with start(cut, *LONG) as process:
        wait_for(cut / "runs", "0*.safetensors", step=7)  # of an epoch that is not the first
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not list((cut / "runs").rglob("result.json"))
    said = []
    for folder in (cut, whole):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("OMP_NUM_THREADS", "1")
            zoo(*LONG)
        said.append(capsys.readouterr().err)
    assert ["resumed in runs" in text for text in said] == [True, False]
    assert ["epoch  1/40" in text for text in said] == [False, True]
    tables = [rows(folder / "results" / "cnn-to-others-cifar10.json") for folder in (cut, whole)]
    assert timeless(tables[0]) == timeless(tables[1])
    weights = [next((folder / "runs").rglob("model.safetensors")).read_bytes() for folder in (cut, whole)]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with start(tmp_path, *LONG, "--jobs", "2") as process:
        wait_for(tmp_path / "runs", "0*.safetensors")
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (left := inside(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert not list((tmp_path / "runs").rglob("result.json"))


def inside(folder: Path) -> list[str]:
    """The processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            found += [str(entry)] if entry.readlink() == folder else []
    return found


@pytest.mark.slow
def test_two_at_once_share_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*WORDS, "--dataset", "digits", "--epochs", "6", "--seeds", "2")
    with start(tmp_path, *words) as other:
        wait_for(tmp_path / "runs", "run.toml")
        monkeypatch.chdir(tmp_path)
        zoo(*words)
        said = [capsys.readouterr().err, other.communicate(timeout=240)[1]]
    assert other.returncode == 0, said[1]
    starts = [[line for line in text.splitlines() if " started in " in line] for text in said]
    assert all(starts)
    assert len({*starts[0], *starts[1]}) == len(starts[0]) + len(starts[1]) == 4
    found = rows(tmp_path / "results" / "cnn-to-others-cifar10.json")
    assert [row["seeds"] for row in found] == [[0, 1], [0, 1]]


def test_a_variant_that_cannot_be_built_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry.toml").write_text(STUDY)
    with pytest.raises(SystemExit) as end:
        zoo("reproduce", "sides", "--budget", "small", "--limit-train", "64", "--limit-test", "32")
    assert end.value.code == 1
    said = capsys.readouterr()
    failed = [line for line in said.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1
    assert "patch=3" in failed[0]
    assert "8x8" in failed[0]
    found = rows(tmp_path / "results" / "sides.json")
    assert [(row["variant"], row["published_top1"]) for row in found] == [("", 0.5), ("patch=2", None)]
    assert found[0]["published_minutes"] == 6
    zoo("reproduce", "little", "--budget", "small", "--limit-train", "64", "--limit-test", "32")
    assert "started" not in capsys.readouterr().err  # the study's base is the model itself


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(WriteError, match="--runs file/runs: cannot be created: Not a directory"):
        zoo(*WORDS, *SMALL, "--runs", "file/runs")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cnn-to-other"], "did you mean cnn-to-others"),
        (["cnn-to-others/cifar11"], "did you mean cnn-to-others/cifar10"),
        (["cnn-to-others", "--only", "nothing"], "rows: mixer-b16"),
        (["cnn-to-others", "--train", "--epochs", "3"], "add --budget small"),
        (["cnn-to-others", "--train", "--recipe", "bset"], "no recipe named 'bset'"),
        (["cnn-to-others-augmentation", "--recipe", "best"], "compares recipes, so --recipe best would"),
        (["cnn-to-others", "--train", "--dataset", "cifar10="], "'cifar10=' names no dataset"),
        (["cnn-to-others", "--train", "--dataset", ""], "names no dataset"),
        ([], "zoo reproduce --list"),
        (["mixture-model"], "no source, table, study or model named 'mixture-model'; did you mean mixture-models"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        zoo("reproduce", *words)


def test_every_published_result_is_a_row_of_its_sources_table() -> None:
    registry = load_registry()
    for key in registry.sources:
        wanted = {
            (name, row.dataset, row.top1)
            for name, model in registry.models.items()
            for row in model.published
            if (row.source or model.source) == key
        }
        found = rows_of(Ask(target=key), registry)
        assert {(row.model, row.dataset, row.published.top1) for row in found if row.published} == wanted
        assert len(found) == len(wanted)
        assert all(not row.why_not and row.weights == row.published.weights for row in found if row.published)
        assert all(bool(row.weights) == bool(row.published.pretrained) for row in found if row.published)


def test_every_study_has_variants_that_differ_and_can_be_built() -> None:
    registry = load_registry()
    assert len(registry.studies) >= 12
    for name, study in registry.studies.items():
        ask = Ask(target=name)
        jobs = jobs_of(ask, registry, rows_of(ask, registry))
        assert len({job.folder for job in jobs}) == len(study.variants()) > 1
        assert name in targets(registry)
        for job in jobs:
            decode(Recipe, job.row.settings, name)
            if any(key.startswith("build.") for key in job.row.changes):
                assert check(job.row.entry.build, registry, **native_sizes(job.row.entry, registry))
        for result in study.published:
            assert any(result.fits(changes) for changes in study.variants()), (name, result)


def test_a_run_that_two_tables_need_has_one_folder() -> None:
    registry = load_registry()

    def folders(target: str) -> set[Path]:
        ask = Ask(target=target)
        return {job.folder for job in jobs_of(ask, registry, rows_of(ask, registry))}

    assert folders("hybrid-joint-1") <= folders("mixture-models")
    assert len(folders("mixture-models-norm") & folders("mixture-models/cifar10")) == 1
    assert folders("cnn-to-others-altered") <= folders("cnn-to-others")


def test_a_row_has_a_best_recipe_of_its_own_before_its_models() -> None:
    registry = load_registry()
    entry = registry.model("cnn-baseline")
    rows = rows_of(Ask(target="cnn-to-others", only=("cnn-baseline/*",), recipe="best"), registry)
    own = {row.dataset: row.best for row in entry.published}
    assert own["cifar10"] is None
    assert own["cifar10-flips"] not in (None, entry.best)
    assert {row.dataset: row.recipe for row in rows} == {name: own[name] or entry.best for name in own}


def test_a_stand_in_is_altered_as_the_dataset_that_it_replaces() -> None:
    registry = load_registry()

    def images(row: int, dataset: str) -> Any:
        return rows_of(Ask(target="cnn-to-others", only=("cnn-baseline/*", "vgg16/*"), dataset=dataset), registry)[
            row
        ].images

    here = "cifar10=parquet:data/plain_text"
    plain, gray = images(0, here), images(2, here)
    assert (plain.spec, plain.mean) == ("parquet:data/plain_text", registry.dataset("cifar10").mean)
    five = "grayscale,brightness:0.75,flip,vertical-flip,transpose"  # the alterations that the source names
    assert gray.spec == f"parquet:data/plain_text?alter_train={five}&alter_test=grayscale"
    assert images(-1, here).spec == "cifar100"  # of other images: not replaced
    digits = images(2, "digits")
    assert digits.spec.startswith("sklearn:digits?alter_train=")
    assert digits.mean == registry.dataset("digits").mean
    assert digits.adapt["epochs"] == 20


def test_a_change_of_what_is_not_there_names_what_is() -> None:
    registry = load_registry()
    for key, said in [
        ("recipe.lrr", "did you mean lr"),
        ("build.body.of.2.norm", "it has: 0, 1"),
        ("build.bdy.norm", "it has: use, body"),
    ]:
        with pytest.raises(InputError, match=said):
            vary(registry, "hybrid-joint-1", {key: 1}, "studies.mine")
    with pytest.raises(UnknownNameError):
        vary(registry, "hybrid-joint-1", {"model": "hybrid-joint-9"}, "studies.mine")


@pytest.mark.slow
def test_a_local_ray_cluster_of_two_workers_trains_the_same_table(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
    with start(tmp_path, *WORDS, *SMALL, "--seeds", "2", "--jobs", "2", "--engine", "ray") as process:
        said = process.communicate(timeout=280)[1]
    assert process.returncode == 0, said
    name = "results/cnn-to-others-cifar10.json"
    assert [row["seeds"] for row in rows(tmp_path / name)] == [[0, 1], [0, 1]]
    assert [row["top1"] for row in rows(tmp_path / name)] == [row["top1"] for row in rows(table / name)]
