"""Where things are kept."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from zoo.base.paths import cache_dir, config_dir, data_dir


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
