"""RUN on the command line: a folder, a name below runs/, `last`, or what the answer is to anything else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import zoo
from zoo.cli import cli
from zoo.errors import InputError
from zoo.hub.copy import Pulled
from zoo.hub.verify import verify
from zoo.runs.which import folder_of_run, known
from zoo.train.pretrained import find_weights


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run of digits, with its package in it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    sizes = ["--epochs", "1", "--limit-train", "60", "--limit-test", "30", "-q"]
    done = run("train", "cnn-res5", "--dataset", "digits", *sizes, "--output", folder)
    assert done.exception is None
    assert run("package", folder, "--no-predictions").exception is None
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs below runs/ as the working folder; `old` was written to before `deep/new`."""
    for name, time in (("old", 1e9), ("deep/new", 2e9)):
        shutil.copytree(trained, tmp_path / "runs" / name)
        for path in (tmp_path / "runs" / name).iterdir():
            os.utime(path, (time, time))
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TAKE_A_RUN = (
    ["eval", "RUN"],
    ["eval", "runs/old", "--compare", "RUN"],
    ["predict", "RUN", "photo.jpg"],
    ["export", "RUN", "--format", "torch", "--no-check"],
    ["package", "RUN", "--no-predictions"],
    ["publish", "RUN", "me/mine", "--dry-run"],
    ["verify", "RUN"],
    ["runs", "RUN"],
    ["plot", "RUN"],
    ["train", "--resume", "RUN"],
    ["train", "--from", "RUN", "--dataset", "digits", "--epochs", "1", "--limit-train", "40"],
)


@pytest.mark.parametrize("words", TAKE_A_RUN, ids=" ".join)
def test_every_command_takes_a_name_and_says_which_run_is_the_last(words: list[str], here: Path) -> None:
    named = run(*(word.replace("RUN", "old") for word in words))
    assert named.exception is None, named.exception
    assert "last:" not in named.stderr
    newest = run(*(word.replace("RUN", "last") for word in words))
    assert newest.exception is None, newest.exception
    assert newest.stderr.count("last: ") == 1
    assert "last: runs/deep/new\n" in newest.stderr


@pytest.mark.parametrize("words", [*TAKE_A_RUN, ["serve", "RUN"], ["report", "RUN"]], ids=" ".join)
def test_the_same_unknown_run_gets_the_same_answer_everywhere(words: list[str], here: Path) -> None:
    answer = run(*(word.replace("RUN", "oldd") for word in words)).exception
    assert isinstance(answer, InputError)
    assert answer.exit_code == 2
    assert str(answer) == (
        "no run folder 'oldd', and no run of this name below runs/; did you mean old?; `zoo runs` lists all"
    )


def test_the_rule_stands_in_the_library(here: Path) -> None:
    assert zoo.load("last").name == zoo.load(Path("runs/old")).name == "cnn-res5"
    assert all(check.holds for check in verify("old"))
    assert find_weights("last").origin.startswith("sha256:")
    with pytest.raises(InputError, match="no run folder 'nothing'"):
        zoo.load("nothing")


def test_a_run_that_lies_here_comes_before_a_name_and_a_name_before_the_word_last(here: Path) -> None:
    assert folder_of_run("old") == Path("runs/old")
    shutil.copytree("runs/old", "old")
    assert folder_of_run("old") == Path("old")
    assert folder_of_run("last") == Path("runs/deep/new")
    shutil.copytree("runs/old", "runs/last")
    assert folder_of_run("last") == Path("runs/last")
    assert known("") is None


def test_other_folders_and_damaged_runs_do_not_become_the_last(here: Path) -> None:
    (here / "runs/empty").mkdir()
    (here / "runs/note.txt").touch()
    assert folder_of_run("last") == Path("runs/deep/new")


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("photo.jpg", "'photo.jpg' is an image, not a run; RUN comes first: zoo predict RUN photo.jpg"),
        ("other.PNG", "is an image, not a run"),
        ("resnet18", "'resnet18' is a model, not a run; `zoo train resnet18` makes a run of it"),
        ("cnn-res5", "'cnn-res5' is a model, not a run; runs of it: deep/new, old"),
        ("timm/resnet50", "is a model, not a run"),
        ("notes.txt", "'notes.txt' is a file, not a run: a run is a folder; known: deep/new, old"),
        ("runs", "'runs' is a folder of runs; give one of them: runs/deep/new, runs/old"),
        ("empty", "'empty' is no run folder: it has no run.toml"),
        ("ne", "did you mean deep/new?"),
        ("", "no run folder ''"),
    ],
)
def test_what_is_no_run_is_called_what_it_is(word: str, answer: str, here: Path) -> None:
    (here / "notes.txt").touch()
    (here / "empty").mkdir()
    with pytest.raises(InputError) as refused:
        folder_of_run(word)
    assert answer in str(refused.value)


def test_without_any_run_the_answer_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there are no runs below runs/: `zoo train MODEL` makes one"):
        folder_of_run("last")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["package", "hf://me/mine"], "is a package already"),
        (["train", "--resume", "hf://me/mine"], "only a run on this machine can be resumed"),
        (["runs", "--remove", "hf://me/mine"], "only runs on this machine can be removed"),
    ],
)
def test_a_package_of_the_hub_is_refused_where_only_a_folder_will_do(words: list[str], answer: str) -> None:
    refused = run(*words)
    assert isinstance(refused.exception, InputError)
    assert answer in str(refused.exception)


def test_an_address_in_the_place_of_an_image_is_answered_with_what_to_do(here: Path) -> None:
    done = run("predict", "old", "https://example.org/a.png")
    assert "is an address, not a file; fetch it first: curl -L https://example.org/a.png" in done.stderr
    done = run("predict", "old", "https://example.org/a.png?w=8&h=8")
    assert "curl -L 'https://example.org/a.png?w=8&h=8' | zoo predict RUN -" in done.stderr
    done = run("predict", "my photo.jpg", "old")
    assert "RUN comes first: zoo predict RUN 'my photo.jpg'" in str(done.exception)


def test_quiet_does_not_say_which_run_is_the_last(here: Path) -> None:
    assert run("-q", "runs", "last").stderr == ""


def test_runs_given_as_objects_and_as_words_are_there_once_and_have_names_of_their_own(here: Path) -> None:
    shutil.copytree("runs/old", "elsewhere/old")
    (old,), (other,) = zoo.runs("old"), zoo.runs("elsewhere/old")
    assert [one.folder for one in zoo.runs(old, "old", "*", "last")] == [Path("runs/deep/new"), old.folder]
    assert old.name == other.name == "old"
    both = zoo.runs(old, other)
    assert [one.name for one in both] == ["elsewhere/old", "runs/old"]
    assert both.compare(everything=True).columns == ("group", "key", "elsewhere/old", "runs/old")


@pytest.mark.parametrize("words", [("last", "old"), ("deep", "old"), ("d*", "o*"), ("./runs/deep/new", "o*")])
def test_runs_come_in_the_order_of_their_words_whatever_kind_these_are(words: tuple[str, ...], here: Path) -> None:
    assert [one.name for one in zoo.runs(*words, sort="given")] == ["deep/new", "old"]
    assert [one.name for one in zoo.runs(*words[::-1], sort="given")] == ["old", "deep/new"]


@pytest.mark.parametrize("what", [None, 3, ["old"]])
def test_what_cannot_stand_for_a_run_is_refused_by_its_type(what: Any, here: Path) -> None:
    for call in (zoo.load, zoo.runs, zoo.evaluate, zoo.resume, zoo.verify, zoo.plot):
        with pytest.raises(InputError, match=rf"\({type(what).__name__}\)|{type(what).__name__} is no run"):
            call(what)
    with pytest.raises(InputError, match=r"\(Runs\); allowed: a run's folder"):
        zoo.runs(zoo.runs())  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["x" * 300, "~nobody-of-this-name/run", "a\0b"])
def test_a_word_that_no_file_can_have_means_no_run(word: str, here: Path) -> None:
    for call in (zoo.load, zoo.runs, zoo.evaluate):
        with pytest.raises(InputError, match="no run folder"):
            call(word)
    with pytest.raises(InputError, match="no folder of this name is here"):
        zoo.from_pretrained(word)


def test_what_was_pulled_stands_for_its_folder(here: Path) -> None:
    pulled = Pulled(Path("runs/old"), "hf://me/x@0")
    (prediction,) = zoo.predict(pulled, "photo.jpg")
    assert prediction.as_dict() == zoo.predict("old", "photo.jpg")[0].as_dict()
    assert zoo.load(pulled).record == zoo.load("old").record
    assert zoo.export(pulled, format="torch", check=False).path == Path("runs/old/model.pt2")


def test_a_folder_with_an_unfinished_run_is_answered_with_the_command_that_goes_on_with_it(here: Path) -> None:
    (here / "runs" / "deep" / "new").rename(here / "my run")
    words = ("train", "cnn-res5", "--dataset", "digits", "--output", "my run")
    finished = str(run(*words).exception)
    assert finished.endswith("is there already and not empty; choose another folder")
    (here / "my run" / "result.json").unlink()
    unfinished = str(run(*words).exception)
    assert unfinished.endswith("choose another folder, or go on with its run: zoo train --resume 'my run'")
