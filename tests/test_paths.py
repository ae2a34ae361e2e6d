"""Where things are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from click.testing import CliRunner
from hub_server.runs import own_caches, untrained_run
from PIL import Image

import zoo
from zoo.base.paths import cache_dir, config_dir, data_dir, local_path
from zoo.cli import cli
from zoo.errors import DataError, InputError


@pytest.mark.parametrize("xdg", [None, "", "xdg"])
def test_without_variables_the_folders_are_the_platforms(
    xdg: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.delenv(f"ZOO_{kind}_DIR")
        monkeypatch.delenv(f"XDG_{kind}_HOME", raising=False)
        if xdg is not None:
            monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / xdg) if xdg else "")
    assert cache_dir() == Path(platformdirs.user_cache_dir("hybrid-zoo", appauthor=False))
    assert config_dir() == Path(platformdirs.user_config_dir("hybrid-zoo", appauthor=False))
    assert data_dir() == cache_dir() / "data"


def test_variables_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, find in (("CACHE", cache_dir), ("DATA", data_dir), ("CONFIG", config_dir)):
        monkeypatch.setenv(f"ZOO_{kind}_DIR", str(tmp_path / kind))
        assert find() == tmp_path / kind


@pytest.mark.skipif(os.name == "nt", reason="Windows finds a home folder in other ways")
def test_without_a_home_folder_nothing_is_kept_in_one_that_is_called_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZOO_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no HOME, and no entry for the user id
    with pytest.raises(InputError, match="set HOME or ZOO_CACHE_DIR"):
        cache_dir()
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path


@pytest.mark.skipif(os.name == "nt", reason="Windows finds a home folder in other ways")
def test_what_is_written_to_tilde_lies_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    few = ["--limit-train", "20", "--limit-test", "20", "--epochs", "1", "--device", "cpu", "-q"]
    with own_caches(tmp_path):
        done = CliRunner().invoke(cli, ["train", "cnn-baseline", "--dataset", "digits", "--output=~/run", *few])
        assert done.exit_code == 0, done.output
        run = untrained_run(home / "one", "cnn-baseline", limit_train=20, limit_test=20)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(home / "dot.png")
        assert zoo.load("~/run").record == zoo.load(home / "run").record
        assert len(zoo.predict(run, ["~/dot.png", Path("~/dot.png"), "~/*.png"])) == 3
        assert zoo.load(run).predict("~/dot.png")
        assert zoo.predict(run, "~/dot.png", explain="~/explained")
        if find_spec("onnxruntime") and find_spec("onnxscript"):
            zoo.export("~/run", format="onnx", output="~/run.onnx")
            assert zoo.predict("~/run.onnx", "~/dot.png")
            assert zoo.evaluate("~/run.onnx", on="digits").count
        zoo.evaluate(run, output="~/evaluated")
        zoo.package(run, "~/package")
        zoo.plot("~/run", output="~/curves.svg")
        zoo.plot("~/run").save("~/again.svg")
        zoo.soup("~/run", zoo.train(from_run="~/run", seed=1, output="~/two"), output="~/soup", method="uniform")
        zoo.new_plugin("waves", output="~/waves")
        zoo.info("cnn-baseline").picture("~/tree.svg")
        zoo.check_dataset("digits", html="~/digits.html")
    names = "run two explained evaluated package curves.svg again.svg soup waves tree.svg digits.html"
    assert set(names.split()) <= {path.name for path in home.iterdir()}
    assert not list(here.iterdir())


def test_a_name_that_only_begins_with_a_tilde_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("~$nobody/x") == Path("~$nobody/x")
    for words in (["eval", "~$nobody"], ["datasets", "check", "csv:~$nobody.csv"], ["train", "./~$n.py:Net"]):
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, InputError | DataError), done.exception


def test_git_variables_of_another_repository_do_not_name_our_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.train.environment import CHECKOUT, commit_of

    ours = commit_of(CHECKOUT)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "-C", str(tmp_path), "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert commit_of(CHECKOUT) == ours


@pytest.mark.skipif(os.name == "nt", reason="the current folder cannot be deleted there")
def test_a_current_folder_that_was_deleted_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os; os.rmdir({str(gone)!r}); from zoo.cli import main; main(['list'])"
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=gone, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "error: the current folder was deleted; change into one that exists (cd)\n",
    )
