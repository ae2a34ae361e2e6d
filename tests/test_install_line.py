"""The command that a message advises works for how the package was installed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from zoo.base.install import install_line, upgrade_line

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that installs the metadata of `zoo-birds`, with an extra, as pip would have from a place."""
    site = tmp_path / "site"
    folder = site / "zoo_birds-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: zoo-birds\nVersion: 1.0\nProvides-Extra: song\n"
        "Requires-Dist: numpy>=1\nRequires-Dist: librosa<1,>=0.10; extra == 'song'\n"
    )
    monkeypatch.syspath_prepend(str(site))

    def install(direct: object) -> None:
        (folder / "direct_url.json").write_text(json.dumps(direct))

    return install


def line(*extras: str) -> str:
    return install_line(*extras, of="zoo-birds")


def test_from_an_index_it_is_the_name(installed: Any) -> None:
    assert line("song", "film") == "pip install 'zoo-birds[song,film]'"
    assert line() == "pip install zoo-birds"
    assert upgrade_line("zoo-birds") == "pip install -U zoo-birds"
    installed("damaged")
    assert line() == "pip install zoo-birds"


def test_from_a_checkout_it_is_the_folder(installed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "my clone"
    (clone / ".git").mkdir(parents=True)
    installed({"url": clone.as_uri(), "dir_info": {"editable": True}})
    assert line("song") == f"pip install -e '{clone}[song]'"
    assert upgrade_line("zoo-birds") == f"git -C '{clone}' pull && pip install -e '{clone}'"
    monkeypatch.chdir(clone)
    assert line("song") == "pip install -e '.[song]'"
    installed({"url": clone.as_uri(), "dir_info": {}})
    assert line("song") == "pip install '.[song]'"


def test_from_a_repository_it_is_the_address_without_a_password(installed: Any) -> None:
    vcs = {"vcs": "git", "commit_id": "0" * 40, "requested_revision": "v1"}
    installed({"url": "https://me:secret@example.org/birds", "vcs_info": vcs})
    assert line("song") == "pip install 'zoo-birds[song] @ git+https://example.org/birds@v1'"


def test_from_a_place_that_is_gone_it_is_the_libraries(installed: Any, tmp_path: Path) -> None:
    installed({"url": (tmp_path / "gone").as_uri(), "dir_info": {}})
    assert line("song") == "pip install 'librosa<1,>=0.10'"
    installed({"url": (tmp_path / "gone.whl").as_uri(), "archive_info": {}})
    assert line("song") == "pip install 'librosa<1,>=0.10'"


def test_no_message_advises_the_index_by_hand() -> None:
    by_hand = re.compile(r"pip install (-U )?'?hybrid-zoo")
    paths = [path for name in ("zoo", "plugins", "docs") for path in (ROOT / name).rglob("*") if path.is_file()]
    texts = {path: path.read_text("utf-8") for path in [ROOT / "README.md", *paths] if path.suffix in (".py", ".md")}
    assert len(texts) > 250
    assert [str(path) for path, text in texts.items() if by_hand.search(text)] == []
