"""The pages as a browser gets them: built without a warning, whole, and in step with the code."""

from __future__ import annotations

import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest
from chromium import Page, opened
from click_tree import commands, options
from PIL import Image

import zoo
import zoo.errors
import zoo.plugin.hooks
from zoo.catalogue.augmentation import Step
from zoo.catalogue.keys import keys_of
from zoo.catalogue.recipe import Group, Lookahead, Recipe
from zoo.catalogue.registry import load_registry

pytestmark = pytest.mark.slow  # the pages are built: the step `promises` of `.ci/run` does it

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages as HTML; a warning of Sphinx's is an error."""
    out = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "doctrees"), str(DOCS), str(out / "html")]
    homes = {f"ZOO_{name}_DIR": str(out / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, env=os.environ | homes
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


class Html(HTMLParser):
    """A page's anchors, its links, and what it makes the browser fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("script", "img", "iframe", "source"):
            self.fetched.append(given.get("src", ""))
        elif tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon", "preconnect"):
            self.fetched.append(given.get("href", ""))


@cache
def parsed(path: Path) -> Html:
    return Html(path.read_text("utf-8"))


def broken(path: Path, links: list[str]) -> Iterator[str]:
    """The relative links of a page whose file or anchor is not there."""
    for link in links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.exists():
            yield f"{path.name}: {link}: no such file"
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in parsed(target).ids:
            yield f"{path.name}: {link}: no such anchor"


@pytest.mark.timeout(600)
def test_every_relative_link_and_anchor_resolves(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    assert [wrong for page in pages for wrong in broken(page, parsed(page).links)] == []


def test_a_missing_file_and_a_missing_anchor_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text('<p id="here">')
    links = ["#here", "a.html#here", "https://example.org/x", "b.html", "#there"]
    assert [line.rpartition(": ")[2] for line in broken(page, links)] == ["no such file", "no such anchor"]


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    fetched = {src for page in site.rglob("*.html") for src in parsed(page).fetched}
    assert [src for src in fetched if urlsplit(src).netloc] == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(tmp_path_factory.mktemp("profile")) as page:
        yield page


WIDE = ("catalogue/hybrid.html", "catalogue/datasets.html", "hub.html", "recipe-keys.html", "api.html", "index.html")

SCROLLING = """[...document.querySelectorAll(".content table.docutils, .content pre")]
  .map((e) => (e.matches("pre") ? e : e.parentElement))
  .filter((e) => e.scrollWidth > e.clientWidth).map((e) => [getComputedStyle(e).overflowX, e.tabIndex, e.ariaLabel])"""


@pytest.mark.parametrize("width", [1280, 390])
def test_what_is_wide_scrolls_by_itself_and_by_keyboard(site: Path, browser: Page, width: int) -> None:
    found = []
    for name in WIDE:
        browser.view(width, touch=width < 600)
        browser.open((site / name).as_uri())
        assert browser.run("document.documentElement.scrollWidth") == width
        found += browser.run(SCROLLING)
    assert found
    assert {(overflow, stop) for overflow, stop, _ in found} == {("auto", 0)}
    assert {label for _, _, label in found} <= {"Table that scrolls sideways", "Listing that scrolls sideways"}


def test_headings_have_levels_and_definitions_have_terms(site: Path, browser: Page) -> None:
    for name in WIDE:
        browser.open((site / name).as_uri())
        assert browser.run("document.querySelectorAll('[role=heading]').length") > 0
        assert browser.run("document.querySelectorAll('[role=heading]:not([aria-level])').length") == 0
        assert browser.run("[...document.querySelectorAll('dl')].filter((e) => !e.querySelector('dt')).length") == 0


def test_drawings_are_dark_in_the_dark(site: Path, browser: Page) -> None:
    for dark in (False, True):
        browser.view(1280, dark=dark)
        browser.open((site / "index.html").as_uri())
        browser.wait("document.querySelector('.content img').complete")
        browser.run("document.querySelector('.content img').id = 'drawing'")
        shown = Image.open(io.BytesIO(browser.screenshot(of="drawing"))).convert("L")
        assert bool(np.asarray(shown).mean() < 80) is dark


@pytest.mark.parametrize("word", ["tensorboard", "confusion matrix", "learning rate", "watch"])
def test_a_search_finds_the_page(site: Path, browser: Page, word: str) -> None:
    pages = {"tensorboard": "train.html", "confusion matrix": "evaluate.html", "learning rate": "train.html"}
    browser.open(f"{(site / 'search.html').as_uri()}?q={quote(word)}")
    wanted = pages.get(word, "train.html")
    browser.wait(f"document.querySelector('#search-results a[href^=\"{wanted}\"]')")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_links_of_the_pages_at_the_top_resolve(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text("utf-8"))
    assert links
    assert list(broken(ROOT / name, links)) == []


@pytest.fixture(scope="module")
def inventory(site: Path) -> dict[str, set[str]]:
    """What the pages describe: the names of each kind of object."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        loaded: Any = InventoryFile.load(file, "", lambda a, b: a + b)
    return {kind: set(names) for kind, names in getattr(loaded, "data", loaded).items()}


def test_every_command_and_every_option_is_in_the_reference(inventory: dict[str, set[str]]) -> None:
    wanted = {
        f"{'-'.join(context.command_path.split())}.{word}"
        for context in commands()
        for option in options(context.command)
        for word in option.opts
    }
    assert len(wanted) > 100
    assert wanted - inventory["std:cmdoption"] == set()


def test_every_hook_is_in_the_reference(inventory: dict[str, set[str]]) -> None:
    hooks = [name for name, value in vars(zoo.plugin.hooks).items() if hasattr(value, "zoo_spec")]
    assert {"zoo_components", "zoo_registry"} <= set(hooks)
    assert {f"zoo.plugin.hooks.{name}" for name in hooks} - inventory["py:function"] == set()
    text = (DOCS / "hooks.md").read_text()
    assert re.findall(r"autofunction:: zoo\.plugin\.hooks\.(\w+)", text) == hooks


def test_every_public_name_is_in_the_reference(inventory: dict[str, set[str]]) -> None:
    import zoo.plugin.layers
    import zoo.testing

    described = set().union(*(names for kind, names in inventory.items() if kind.startswith("py:")))
    wanted = {f"zoo.{name}" for name in zoo.__all__ if not name.startswith("__")} - {"zoo.ZooError"}
    wanted |= {f"{m.__name__}.{name}" for m in (zoo.plugin.layers, zoo.testing) for name in m.__all__}
    errors = (v for v in vars(zoo.errors).values() if isinstance(v, type) and v.__module__ == "zoo.errors")
    wanted |= {f"zoo.errors.{error.__name__}" for error in errors}
    assert wanted - described == set()


def reference() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(DOCS / "extensions" / "reference_tables.py")))


def test_the_table_of_exit_codes_has_every_code_and_error(site: Path) -> None:
    rows = list(reference().exit_codes())
    text = (site / "exit-codes.html").read_text("utf-8")
    errors = {error for _, error, _ in rows if error}
    assert errors == {n for n, v in vars(zoo.errors).items() if n.endswith("Error") and n != "ZooError"}
    assert all(f'"#zoo.errors.{error}"' in text or f"api.html#zoo.errors.{error}" in text for error in errors)
    shown = {int(cell) for cell in re.findall(r"<td[^>]*><p>(\d+)</p>", text)}
    assert shown == {code for code, _, _ in rows}


@pytest.mark.parametrize("page", ["train.md", "hub.md"])
def test_other_tables_of_exit_codes_name_codes_that_there_are(page: str) -> None:
    known = {code for code, _, _ in reference().exit_codes()}
    rows = re.findall(r"^\| ([\d, ]+) \|", (DOCS / page).read_text(), re.MULTILINE)
    named = {int(code) for row in rows for code in row.split(",")}
    assert named
    assert named <= known
    assert {k.exit_code for k in vars(zoo.errors).values() if hasattr(k, "exit_code")} <= {
        code for row in rows for code in map(int, row.split(","))
    } | ({c for c in known if c > 2} if page == "train.md" else {1})


def test_the_catalogue_shows_every_model_with_its_tree_and_results(site: Path) -> None:
    registry = load_registry()
    for name, model in registry.models.items():
        page = (site / "catalogue" / f"{model.family}.html").read_text("utf-8")
        section = page.partition(f'id="model-{name}"')[2].partition("<section")[0]
        assert section, name
        assert model.build.use in section
        assert section.count("<td><p>source</p></td>") == len(model.published), name
        assert section.count("<td><p>hybrid-zoo</p></td>") == len(model.measured), name


def test_pages_of_families_that_are_gone_are_removed(tmp_path: Path) -> None:
    pages = SimpleNamespace(**runpy.run_path(str(DOCS / "extensions" / "catalogue_pages.py")))
    for name in ("gone.md", "gone.svg"):
        (tmp_path / name).write_text("gone")
    written = pages.write(tmp_path, pages.builtin())
    assert sorted(tmp_path.iterdir()) == sorted(written)


def test_the_page_of_recipe_keys_has_every_key_and_every_augmentation_step(site: Path) -> None:
    page = (site / "recipe-keys.html").read_text("utf-8")
    rows = {
        tuple(text_of(cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL))
        for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    }
    for struct in (Recipe, Group, Lookahead, *get_args(Step)):
        for key in keys_of(struct):
            assert (key.name, key.type.replace("`", ""), key.default, key.line.replace("`", "")) in rows, key
    for kind in get_args(Step):
        assert f"{kind.__struct_config__.tag}: " in text_of(page)


def text_of(html: str) -> str:
    """The words of a piece of a page, quotes as they were written."""
    return unescape(re.sub(r"<[^>]+>", "", html)).strip().translate(str.maketrans("“”‘’", "\"\"''"))


def test_the_recipe_keys_are_linked_and_the_schema_has_an_address(site: Path) -> None:
    for name in ("index", "train", "mix", "catalogue/recipes"):
        assert 'recipe-keys.html"' in (site / f"{name}.html").read_text("utf-8")
    assert (site / "registry.schema.json").read_bytes() == (ROOT / "zoo/catalogue/registry.schema.json").read_bytes()
