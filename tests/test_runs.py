"""`zoo runs` and `zoo plot` over real run folders."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from zoo.cli import cli
from zoo.errors import InputError, RunError, ZooError
from zoo.runs.api import plot
from zoo.runs.compare import differences, told
from zoo.runs.curves import draw_curves
from zoo.runs.find import find, row_of, said
from zoo.runs.lock import RunLock, is_held
from zoo.runs.record import Ingredient, OwnPart, Soup, TeacherRecord, read_record, write_record


def zoo(*words: str | Path, typed: str | None = None) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], input=typed)


def said_by(*words: str | Path) -> str:
    result = zoo(*words)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def table(*words: str | Path) -> Any:
    return json.loads(said_by("runs", *words, "--json"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three runs below runs/, one of them in a folder of its own; the last has no result."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ZOO_CACHE_DIR", str(folder / "cache"))
        for name, model, lr in (
            ("a", "cnn-baseline", 1e-3),
            ("b", "cnn-baseline", 5e-3),
            ("deep/c", "cnn-baseline-bn", 1e-3),
        ):
            words = ["--dataset", "digits", "--epochs", "2", "--limit-train", "200", "--limit-test", "60", "-q"]
            said_by("train", model, *words, "--lr", str(lr), "--output", f"runs/{name}")
    (folder / "runs/deep/c/result.json").unlink()
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that the test may change, as the working folder."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change_result(run: Path, **tables: dict[str, Any]) -> None:
    file = run / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps(result | {key: result.get(key, {}) | table for key, table in tables.items()}))


# ---- listing ---------------------------------------------------------------------------------


def test_every_run_below_runs_is_listed_with_what_its_record_says(here: Path) -> None:
    rows = {row["name"]: row for row in table()}
    assert set(rows) == {"a", "b", "deep/c"}
    result = json.loads((here / "runs/a/result.json").read_text())
    assert rows["a"]["top1"] == result["test"]["top1"]
    assert rows["a"]["parameters"] == result["parameters"]
    assert rows["a"]["state"] == "finished"
    assert rows["deep/c"]["state"] == "stopped"
    assert rows["deep/c"]["top1"] is None
    last = (here / "runs/deep/c/metrics.jsonl").read_text().splitlines()[-1]
    assert 'select = "last"' in (here / "runs/deep/c/run.toml").read_text()
    assert rows["deep/c"]["val_top1"] == json.loads(last)["val_top1"]
    lines = said_by("runs").splitlines()
    assert lines[0].split()[:3] == ["NAME", "MODEL", "DATASET"]
    assert len(lines) == 4


def test_a_run_of_few_classes_has_no_top5(here: Path) -> None:
    run = find(["a"])[0][0]
    assert run.result is not None
    assert row_of(run)["top5"] == run.result["test"]["top5"]
    few = msgspec.structs.replace(run.record, sizes=msgspec.structs.replace(run.record.sizes, num_classes=5))
    assert row_of(dataclasses.replace(run, record=few))["top5"] is None


def test_filters_globs_and_sorts_choose(here: Path) -> None:
    assert [row["name"] for row in table("--model", "baseline-bn")] == ["deep/c"]
    assert [row["name"] for row in table("[ab]", "--dataset", "dig*")] == ["a", "b"]
    assert table("--dataset", "cifar10") == []
    assert [row["name"] for row in table("--state", "stopped")] == ["deep/c"]
    assert [row["name"] for row in table("runs/deep")] == ["deep/c"]
    tops = [row["top1"] for row in table("--sort", "top1")]
    assert tops[:2] == sorted(tops[:2], reverse=True)
    assert tops[2] is None
    best = table("--best")
    assert [row["top1"] for row in best] == [tops[0]]
    change_result(here / "runs/a", test={"count": 6, "correct": 6, "top1": 1.0})  # on a few images
    assert [row["name"] for row in table("--best")] == ["b"]


def test_a_word_that_stands_for_nothing_is_an_error_that_says_so(here: Path) -> None:
    with pytest.raises(InputError, match="no run of the pattern 'resnet\\*'"):
        find(["resnet*"])
    with pytest.raises(InputError, match="zoo runs"):
        find(["nowhere"])


def test_a_package_inside_a_run_is_not_listed_twice(here: Path) -> None:
    shutil.copytree(here / "runs/b", here / "runs/a/package")
    assert [row["name"] for row in table()] == ["a", "b", "deep/c"]


def test_two_folders_of_one_name_are_told_apart(here: Path) -> None:
    shutil.copytree(here / "runs/a", here / "x/a")
    shutil.copytree(here / "runs/b", here / "y/a")
    assert [run.name for run in find(["x/a", "y/a"])[0]] == ["x/a", "y/a"]


def test_a_damaged_run_is_left_out_of_the_list_and_an_error_by_name(here: Path) -> None:
    (here / "runs/b/run.toml").write_text("model = [")
    result = zoo("runs", "--json")
    assert [row["name"] for row in json.loads(result.stdout)] == ["a", "deep/c"]
    assert "runs/b/run.toml: damaged" in result.stderr
    with pytest.raises(RunError, match="damaged"):
        said_by("runs", "runs/b")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not take such names")
@pytest.mark.parametrize("name", [b"w\xff\xfeild", b"a\nb", b"\x1b[31mred", b"<b>&\"'"])
def test_a_wild_name_ends_neither_the_list_nor_the_report(here: Path, name: bytes) -> None:
    wild = os.fsdecode(name)
    shutil.copytree(here / "runs/a", here / "runs" / wild)
    assert wild in [row["name"] for row in json.loads(said_by("runs", "--json"))]
    assert len(said_by("runs").splitlines()) == 5
    result = zoo("report", "--output", "report.html")
    assert result.exit_code == 0, result.exception
    assert (here / "report.html").read_text("utf-8").count("</html>") == 1


def test_a_folder_that_cannot_be_looked_into_is_named_and_the_others_are_listed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "runs/private").mkdir()
    look, stat = os.scandir, Path.is_file

    def scandir(path: Any = ".") -> Any:
        if os.path.basename(os.fspath(path)) == "private":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path)

    def is_file(path: Path) -> bool:
        if path.parent.name == "private":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for blocked in (False, True):
        if blocked:
            monkeypatch.setattr(Path, "is_file", is_file)
        result = zoo("runs", "--json")
        assert [row["name"] for row in json.loads(result.stdout)] == ["a", "b", "deep/c"]
        assert "runs/private: cannot be read: " in result.stderr
        assert "Permission denied" in result.stderr


def test_numbers_that_are_none_do_not_break_the_list(here: Path) -> None:
    (here / "runs/a/result.json").write_text('{"test": {"top1": "high", "loss": NaN}, "train": 3}')
    (here / "runs/a/metrics.jsonl").write_text('{"epoch": 1, "val_top1": null, "seconds": "x"}\n[1]\n')
    row = row_of(find(["a"])[0][0])
    assert (row["top1"], row["loss"], row["seconds"]) == (None, None, None)
    assert "a  " in said_by("runs", "a")


def test_listing_and_plotting_import_no_torch(here: Path) -> None:
    script = (
        "import sys\nfrom zoo.cli import cli\n"
        "for words in (['runs'], ['runs', '--compare', 'a', 'b'], ['plot', 'a']):\n"
        "    cli.main(words, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, stdout=subprocess.DEVNULL)


# ---- comparing -------------------------------------------------------------------------------


def test_a_comparison_names_what_differs_and_only_that(here: Path) -> None:
    rows = table("--compare", "b", "a")
    found = {(row["group"], row["key"]): row["values"] for row in rows}
    assert found["recipe", "lr"] == {"b": 0.005, "a": 0.001}
    assert list(found["recipe", "lr"]) == ["b", "a"]
    assert ("result", "top1") in found
    assert not {("recipe", "epochs"), ("model", "model"), ("data", "spec")} & set(found)
    every = {(row["group"], row["key"]) for row in table("--compare", "a", "b", "--all")}
    assert {("recipe", "epochs"), ("model", "model"), ("data", "fingerprint")} <= every
    assert "recipe.lr" in said_by("runs", "--compare", "a", "b")
    with pytest.raises(InputError, match="at least two runs"):
        said_by("runs", "--compare", "a")


def test_a_run_compared_with_itself_has_no_differences(here: Path) -> None:
    shutil.copytree(here / "runs/a", here / "runs/twin")
    assert differences(find(["a", "twin"])[0]) == []


def test_what_runs_are_made_of_is_compared(here: Path) -> None:
    shutil.copytree(here / "runs/a", here / "runs/made")
    record = read_record(here / "runs/made")
    soup = Soup("greedy", (Ingredient("x", "1" * 64, 0.5), Ingredient("y", "2" * 64, 0.5)))
    teacher = TeacherRecord(model="resnet9", origin="timm/resnet9", sha256="3" * 64)
    own = (OwnPart(use="own.Net", kind="classifier", attribute="Net", sha256="4" * 64, beside={"b.py": "5" * 64}),)
    write_record(here / "runs/made", msgspec.structs.replace(record, soup=soup, teacher=teacher, own=own))
    change_result(here / "runs/made", calibration={"temperature": 1.25})
    rows = {(group, key): values for group, key, values in differences(find(["a", "made"])[0])}
    made = {key: values[1] for (group, key), values in rows.items() if group == "run"}
    assert made == {
        "made of": [f"x {'1' * 12} (0.5)", f"y {'2' * 12} (0.5)"],
        "made by": "greedy",
        "teacher": f"resnet9 {'3' * 12}",
        "own.Net": ["4" * 12, "5" * 12],
        "temperature": 1.25,
    }


def test_measured_values_have_the_digits_that_mean_something() -> None:
    assert told("result", "top1", 0.9055555) == "90.56%"
    assert told("result", "val_loss", 0.405235608) == "0.4052"
    assert told("result", "seconds", 2.967692588) == "3 s"
    assert told("data", "mean", [0.491400, 0.482158]) == "0.4914, 0.4822"
    assert told("recipe", "lr", 0.000123456) == "0.000123456"
    assert told("result", "top1", None) == "-"


def test_values_are_said_as_people_read_them() -> None:
    assert [said(v) for v in (None, True, 1e-3, [0.9, 0.999], [], "x")] == ["-", "yes", "0.001", "0.9, 0.999", "-", "x"]


# ---- removing --------------------------------------------------------------------------------


def test_a_run_is_removed_after_a_yes_and_no_other(here: Path) -> None:
    assert said_by("runs", "--remove", "a", "--yes") == "runs/a\n"
    assert [row["name"] for row in table()] == ["b", "deep/c"]


def test_nothing_is_removed_where_nobody_can_be_asked(here: Path) -> None:
    with pytest.raises(InputError, match="--yes"):
        said_by("runs", "--remove", "a")
    for option in ("--compare", "--json"):
        with pytest.raises(InputError, match="--remove removes runs; leave out --compare and --json"):
            said_by("runs", "--remove", "a", "--yes", option)
    with pytest.raises(InputError, match="--yes has no meaning without --remove"):
        said_by("runs", "a", "--yes")
    with pytest.raises(InputError, match="--all has no meaning without --compare"):
        said_by("runs", "a", "--all")
    with pytest.raises(InputError, match="needs a selection"):
        said_by("runs", "--remove", "--yes")
    assert len(table()) == 3


def test_a_run_that_is_being_trained_is_not_removed(here: Path) -> None:
    with RunLock(here / "runs/b"):
        assert is_held(here / "runs/b")
        assert table("b")[0]["state"] == "training"
        with pytest.raises(RunError, match="is being trained"):
            said_by("runs", "--remove", "a", "b", "--yes")
    assert not is_held(here / "runs/b")
    assert len(table()) == 3  # checked before the first is removed


def test_what_is_no_run_or_more_than_a_run_is_not_removed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos").mkdir()
    (here / "photos/cat.jpg").touch()
    shutil.copytree(here / "runs/a", here / "runs/b/inner")
    (here / "link").symlink_to(here / "runs/a")
    monkeypatch.setenv("HOME", str(here / "runs/a"))
    for folder, why in (
        ("photos", "no run"),
        ("runs/b", "another run lies in it"),
        ("link", "link"),
        ("runs/a", "home"),
    ):
        with pytest.raises(ZooError, match=why):
            said_by("runs", "--remove", folder, "--yes")
    monkeypatch.chdir(here / "runs/deep/c")
    with pytest.raises(RunError, match="working folder"):
        said_by("runs", "--remove", ".", "--yes")
    assert (here / "photos/cat.jpg").is_file()
    assert (here / "runs/b/inner/run.toml").is_file()
    assert (here / "runs/deep/c/run.toml").is_file()


# ---- plotting --------------------------------------------------------------------------------


def test_an_axis_of_epochs_has_whole_numbers_however_few_there_are(here: Path) -> None:
    metrics = here / "runs/a/metrics.jsonl"
    lines = metrics.read_text().splitlines()
    for count in range(1, len(lines) + 1):
        metrics.write_text("\n".join(lines[:count]) + "\n")
        said_by("plot", "a", "--what", "top1", "--out", "a.svg")
        ticks = re.findall(r"<!-- ([\d.]+) -->", (here / "a.svg").read_text("utf-8"))
        assert ticks
        assert all(tick.isdigit() for tick in ticks)


def test_a_plot_of_runs_is_a_picture_and_the_same_twice(here: Path) -> None:
    assert said_by("plot", "a", "b", "deep/c") == "curves.png\n"
    first = (here / "curves.png").read_bytes()
    wide = Image.open(io.BytesIO(first)).size
    said_by("plot", "a", "b", "deep/c")
    assert (here / "curves.png").read_bytes() == first
    said_by("plot", "a", "--what", "top1", "--over", "minutes", "--out", "one.png")
    assert Image.open(here / "one.png").width < wide[0]


def test_the_picture_in_a_run_folder_is_the_one_that_zoo_plot_draws(here: Path) -> None:
    draw_curves(here / "runs/a")
    said_by("plot", "a", "--out", "plotted.png")
    assert (here / "runs/a/curves.png").read_bytes() == (here / "plotted.png").read_bytes()


def test_an_svg_has_a_line_for_each_run_and_split(here: Path) -> None:
    said_by("plot", "a", "b", "--what", "loss", "--log", "--out", "curves.svg")
    text = (here / "curves.svg").read_text()
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    for colour in ("#0072b2", "#d55e00"):
        assert text.count(f"stroke: {colour}") >= 3  # training, validation, and the legend
    said_by("plot", "a", "b", "--what", "loss", "--log", "--out", "again.svg")
    assert (here / "again.svg").read_text() == text


def labels(path: Path) -> list[str]:
    """The texts of an SVG."""
    return re.findall(r"<!-- (.*?) -->", path.read_text("utf-8"))


def test_panels_are_named_one_by_one_or_together(here: Path) -> None:
    for what, panels in (
        ("both", ["loss", "top-1"]),
        ("all", ["loss", "top-1", "learning rate"]),
        ("lr", ["learning rate"]),
    ):
        said_by("plot", "a", "--what", what, "--out", "a.svg")
        shown = labels(here / "a.svg")
        assert [word for word in ("loss", "top-1", "learning rate") if word in shown] == panels


def test_a_run_of_one_epoch_is_drawn_with_marks_that_the_legend_explains(here: Path) -> None:
    metrics = here / "runs/a/metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    said_by("plot", "a", "--out", "a.svg")
    text = (here / "a.svg").read_text("utf-8")
    assert len(re.findall(r'<use [^>]*style="fill: #0072b2', text)) == 2  # validation; training's are hollow
    assert len(re.findall(r'<use [^>]*style="fill: #666666', text)) == 1  # and so in the legend
    ticks = [label for label in labels(here / "a.svg") if label.endswith("%")]
    assert len(ticks) == len(set(ticks)) > 1


def test_time_is_drawn_in_the_unit_that_fits(here: Path) -> None:
    said_by("plot", "a", "--over", "minutes", "--out", "a.svg")
    assert "training time (s)" in labels(here / "a.svg")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["a", "--out", "curves.gif"], "ends in .png, .svg, .pdf"),
        (["a", "--what", "loss,accuracy"], "some of loss, top1, lr"),
        (["a", "--what", "both,loss"], "some of loss, top1, lr"),
        (["a", "--what", ""], "some of loss, top1, lr"),
        (["empty"], "none of these runs has finished an epoch"),
    ],
)
def test_a_plot_that_cannot_be_says_why(here: Path, words: list[str], why: str) -> None:
    (here / "runs/empty").mkdir()
    shutil.copy(here / "runs/a/run.toml", here / "runs/empty")
    with pytest.raises(InputError, match=why):
        said_by("plot", *words)
    assert not list(here.glob("curves*"))


def test_a_run_without_curves_is_not_left_out_in_silence(here: Path) -> None:
    for name, soup in (("empty", msgspec.UNSET), ("soup", Soup("greedy", (Ingredient("a", "1" * 64, 1.0),)))):
        (here / "runs" / name).mkdir()
        write_record(here / "runs" / name, msgspec.structs.replace(read_record(here / "runs/a"), soup=soup))
    printed = zoo("plot", "a", "empty", "soup")
    assert "empty: left out: has finished no epoch" in printed.stderr
    assert "soup: left out: is made of other runs and has no curves" in printed.stderr
    with pytest.raises(InputError, match="plot the runs that it is made of"):
        said_by("plot", "soup")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"over": "steps"}, "over 'steps': allowed: epoch, minutes"),
        ({"kind": "gif"}, "kind 'gif': allowed: png, svg, pdf"),
        ({"dpi": 0}, "dpi 0: allowed: 20 to 1,200"),
        ({"dpi": 1_000_000}, "dpi 1000000: allowed"),
    ],
)
def test_the_call_refuses_what_the_parser_refuses(here: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        plot("a", **options)
