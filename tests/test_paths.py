"""Where things are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from zoo.base.paths import cache_dir, config_dir, data_dir
from zoo.errors import InputError


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
