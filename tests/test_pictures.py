"""The pictures of the terminal: made from what a command really writes, small, and without a network."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import make_pictures
    finally:
        sys.path.pop(0)
    return make_pictures


def words_in(svg: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", svg)).replace("\xa0", " ")


def lines_in(svg: str) -> list[str]:
    return [words_in(line).rstrip() for line in re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)]


def self_contained(svg: str) -> bool:
    ElementTree.fromstring(svg)
    addresses = re.findall(r"(?:src|href|url)\s*[=:(]\s*[\"']?(?!#)[\w:/.]+", svg)
    return "@font-face" not in svg and "@import" not in svg and addresses == []


def test_a_picture_shows_what_the_command_writes(script: ModuleType, tmp_path: Path) -> None:
    picture = script.Picture("list hybrid-alt-1")
    svg = script.svg_of(script.text_of(script.screen_of(picture, tmp_path), picture.words), "x")
    shown = words_in(svg)
    assert "$ zoo list hybrid-alt-1" in shown
    assert re.search(r"hybrid-alt-1 +hybrid +4\.72M +77\.97%", shown)
    assert self_contained(svg)


def test_a_command_that_fails_is_no_picture(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no model named 'nothing'"):
        script.screen_of(script.Picture("info nothing"), tmp_path)


def test_every_stored_picture_is_small_and_needs_no_network(script: ModuleType) -> None:
    stored = {path.stem: path.read_text("utf-8") for path in IMAGES.glob("*.svg")}
    assert set(script.PICTURES) <= set(stored)
    for name in script.PICTURES:
        assert len(stored[name].encode()) < 100_000
        assert self_contained(stored[name]), name
        assert f"$ zoo {script.PICTURES[name].words}" in words_in(stored[name])


@pytest.mark.parametrize("name", ["list", "info"])
def test_a_stored_picture_shows_what_the_command_writes_now(script: ModuleType, tmp_path: Path, name: str) -> None:
    picture = script.PICTURES[name]
    now = lines_in(script.svg_of(script.text_of(script.screen_of(picture, tmp_path), picture.words), name))
    assert len(now) > 20
    assert lines_in((IMAGES / f"{name}.svg").read_text("utf-8")) == now, (
        f"draw it again: python docs/make_pictures.py {name}"
    )


@pytest.mark.parametrize("name", ["hybrid-alt-1"])
def test_a_stored_composition_shows_the_model_as_it_is_now(script: ModuleType, tmp_path: Path, name: str) -> None:
    assert name in script.COMPOSITIONS
    stored = (IMAGES / f"{name}.svg").read_text("utf-8")
    assert len(stored.encode()) < 100_000
    assert self_contained(stored)
    words = re.findall(
        r"<!-- (.*?) -->", stored
    )  # matplotlib draws letters as paths, and says beside each line what it is
    assert "cnn.residual" in words
    assert words == re.findall(r"<!-- (.*?) -->", script.draw(name, tmp_path)), (
        f"draw it again: python docs/make_pictures.py {name}"
    )


def test_a_picture_that_fetches_something_is_seen() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><style>@font-face { src: url("https://x.example/f") }</style></svg>'
    assert not self_contained(svg)
    assert not self_contained('<svg xmlns="http://www.w3.org/2000/svg"><image href="https://x.example/a"/></svg>')
    assert self_contained('<svg xmlns="http://www.w3.org/2000/svg"><g clip-path="url(#a)"/></svg>')
