"""`zoo report`: ten real runs on one page, opened in a real Chromium."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Page, opened
from click.testing import CliRunner
from PIL import Image

from zoo.base.install import install_line
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import InputError
from zoo.runs.find import find
from zoo.studies.report import page as page_module
from zoo.studies.report import published
from zoo.studies.report.measure import Confused, Seen
from zoo.studies.report.page import MAX_BYTES, Content, render, table_rows

pytest.importorskip("bokeh", reason="zoo report draws with Bokeh: pip install -e '.[report]'")

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "$$\\frac{1}{2}$$",
    "\\(x\\)",
    "a&b'c\"d",
    "{{data}}",
    "{{ 7 * 7 }}{% for %}",
    "@run{safe}",
)
CLASSES = 36
"""More than the confusion matrix shows as a table."""


def zoo(*words: str | Path) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def train(output: str, model: str, *words: str) -> None:
    zoo("train", model, "--output", output, "--limit-train", "300", "--limit-test", "120", "-q", *words)


def hostile_images(folder: Path) -> None:
    """A folder of few images whose classes have names that a page must not trust."""
    names = [*HOSTILE, *(f"class {i}" for i in range(CLASSES - len(HOSTILE)))]
    pixels = np.random.default_rng(0).integers(0, 256, (CLASSES, 8, 8, 3), np.uint8)
    for side in ("train", "test"):
        for name, image in zip(names, pixels, strict=True):
            (folder / side / name).mkdir(parents=True)
            for i in range(2):
                Image.fromarray(np.roll(image, i, axis=0)).save(folder / side / name / f"{i}.png")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with eleven runs, and the report of ten of them, written there."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("CACHE", "DATA", "CONFIG"):
            patch.setenv(f"ZOO_{name}_DIR", str(folder / "home" / name.lower()))
        for i, model in enumerate(("cnn-baseline", "cnn-baseline-bn") * 4):
            words = ["--epochs", "3", "--seed", str(i), "--lr", str((1 + i) / 1000)]
            train(f"runs/{model}-{i}", model, "--dataset", "digits", *words)
        train("runs/paper", "cnn-baseline-bn", "--dataset", "digits", "--epochs", "2", "--protocol", "paper")
        train("runs/late", "cnn-baseline-bn-dropout", "--dataset", "digits", "--epochs", "2")
        (folder / "runs/late/result.json").unlink()  # as a run that was stopped
        hostile_images(folder / "images")
        zoo("train", "cnn-baseline-bn", "--dataset", "folder:images", "--epochs", "1", "--output", "bad/<b>run", "-q")
        zoo("report", "-q", "--output", "report.html", "--images", "6")
        zoo("report", "bad", "-q", "--output", "bad.html", "--catalogue", "none")
        yield folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(base: Path, browser: Page) -> Page:
    return show(browser, base / "report.html")


def show(browser: Page, path: Path, width: int = 1280, *, dark: bool = False) -> Page:
    browser.view(width, dark=dark, touch=width < 600)
    browser.open(path.as_uri())
    browser.wait("document.querySelector('#loss .bk-Plot') && Bokeh.index.roots.length >= 4")
    return browser


def column(page: Page, number: int) -> list[str]:
    """The texts of a column of the table, of the rows that are shown."""
    script = f"[...document.querySelectorAll('#table tbody tr:not([hidden])')].map(r => r.cells[{number}].textContent)"
    return list(page.run(script))


def alphabetical(name: str) -> str:
    """A name as the Unicode collation orders it: space, hyphen, comma, then digits and letters of any case."""
    return name.lower().translate(str.maketrans(" -,", "\1\2\3"))


def plot(page: Page, host: str, value: str) -> Any:
    """A value of the Bokeh view `v` that is drawn in a host element."""
    find_view = f"const v = Bokeh.index.roots.find((r) => document.getElementById('{host}').contains(r.el));"
    return page.run(f"(() => {{ {find_view} return {value}; }})()")


def changed_picture(page: Page, before: bytes = b"") -> bytes:
    """The loss curves as they are drawn, once they no longer look as before."""
    page.run("document.getElementById('loss').scrollIntoView({block: 'center', behavior: 'instant'})")
    for _ in range(100):
        if (now := page.screenshot(of="loss")) != before:
            return now
        page.run("new Promise((done) => setTimeout(done, 50))")
    raise AssertionError("the curves still look the same")


LINES_SHOWN = "v.model.renderers.filter((r) => r.visible && r.glyph.type === 'Line').length"
POINTS = "v.model.renderers.reduce((n, r) => n + r.data_source.data.x.length, 0)"


# ---- the file --------------------------------------------------------------------------------


def test_the_page_is_small_whole_and_the_same_twice(base: Path) -> None:
    first = (base / "report.html").read_bytes()
    assert len(first) < MAX_BYTES
    assert b"10 runs of 3 models on 1 dataset" in first
    assert str(base).encode() not in first
    zoo("report", "-q", "--output", "again.html", "--images", "6")
    assert (base / "again.html").read_bytes() == first
    zoo("report", "-q", "--output", "stamped.html", "--no-data", "--catalogue", "none", "--stamp")
    assert re.search(r"with Bokeh [\d.]+ on \d{4}-\d\d-\d\d\.", (base / "stamped.html").read_text())


def test_the_page_loads_nothing_by_its_own_words(base: Path) -> None:
    text = (base / "report.html").read_text()
    head = html.unescape(text[: text.index("<script>")])
    assert "default-src 'none'" in head
    assert "unsafe-eval" not in head
    assert "script-src 'sha256-" in head
    loads = re.findall(r"<(?:script|img|iframe|object|embed)[^>]*\ssrc=|@import|url\(", head)
    assert loads == []
    assert re.findall(r'<link[^>]*href="([^"]*)"', head) == ["data:,"]


def test_a_name_that_is_not_utf8_is_on_the_page(base: Path) -> None:
    (run, *_), _ = find([])
    page, _ = render(Content([dataclasses.replace(run, name="night\udcff")]))
    assert page.count(">night?<") == 1


def test_what_does_not_fit_is_left_out_and_said(base: Path) -> None:
    runs, _ = find([])
    images = [f"data:image/png;base64,{i:04}{'A' * 30_000}" for i in range(8)]
    worst = tuple(Confused(row=i, true=0, said=1, probability=0.9, image=image) for i, image in enumerate(images))
    seen = Seen(format=1, cells=((0, 1, 8),), worst=worst, stamps={})
    content = Content(runs, seen={run.name: seen for run in runs}, images=8)
    whole, left_out = render(content)
    assert left_out == []
    assert all(image in whole for image in images)
    smaller, left_out = render(content, limit=len(whole.encode()) - 100_000)
    assert left_out == ["4 images of each run, not 8: the page would be too large"]
    assert [image in smaller for image in images] == [True] * 4 + [False] * 4
    with pytest.raises(InputError, match="do not fit into a page"):
        render(content, limit=100_000)


def test_without_bokeh_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    monkeypatch.setattr(page_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape(install_line("report"))):
        zoo("report")


def test_a_run_whose_data_is_gone_says_so(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base / "bad", tmp_path / "gone")
    run = next((tmp_path / "gone").glob("*/run.toml"))
    run.write_text(run.read_text().replace("folder:images", "folder:nowhere"))
    zoo("report", tmp_path / "gone", "-q", "--output", tmp_path / "gone.html", "--catalogue", "none")
    data = re.search(r'id="data">(.*?)</script>', (tmp_path / "gone.html").read_text(), re.DOTALL)
    assert data
    told = json.loads(data[1])["runs"][0]
    assert told["seen"] is None
    assert "nowhere" in told["reason"]


def test_no_name_stands_twice_among_the_results_of_a_dataset() -> None:
    rows = published.rows(load_registry(), [], "all")
    names = [(row["dataset"], row["name"]) for row in rows]
    assert len(names) == len(set(names)) > 20


def test_rows_are_in_the_order_of_their_datasets_with_the_best_first(base: Path) -> None:
    runs, _ = find([])
    rows = table_rows(Content(runs, published.rows(load_registry(), runs)))
    datasets = [name for name, _ in page_module.datasets(rows)]
    assert datasets[0] == "digits"
    assert len(datasets) > 1
    order = [(datasets.index(row["dataset"]), -row.get("top1", -1)) for row in rows]
    assert order == sorted(order)


# ---- in the browser --------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_without_a_complaint_a_request_or_a_sideways_scroll(
    base: Path, browser: Page, width: int, dark: bool
) -> None:
    page = show(browser, base / "report.html", width, dark=dark)
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run("document.documentElement.scrollWidth") == width
    background = page.run("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", background)[:3])) > 382
    assert light is not dark
    assert page.requests() == [(base / "report.html").as_uri()]
    assert page.complaints() == []


def test_the_columns_sort_both_ways_with_the_unknown_last(page: Page) -> None:
    top1 = [float(cell.rstrip("%")) for cell in column(page, 2) if cell != "-"]
    assert top1 == sorted(top1, reverse=True)
    assert len(top1) >= 9
    assert column(page, 2)[-1] == "-"
    button = '#table button[data-key="{}"]'
    page.click(button.format("top1"))
    up = column(page, 2)
    assert [float(cell.rstrip("%")) for cell in up if cell != "-"] == top1[::-1]
    assert up[-1] == "-"
    assert page.run("document.querySelector('#table th[aria-sort=ascending]').textContent") == "Top-1"
    page.click(button.format("name"))
    assert column(page, 1) == sorted(column(page, 1), key=alphabetical)
    assert page.run("document.getElementById('status').textContent").endswith("sorted by Name, ascending")


def test_the_filters_narrow_the_table_and_the_scatter(page: Page) -> None:
    every = len(column(page, 1))
    page.wait("document.getElementById('scatter').getAttribute('aria-label')")
    points = plot(page, "scatter", POINTS)
    page.run("document.getElementById('f-text').focus()")
    page.type("cnn-baseline-bn-")
    names, protocols = column(page, 1), column(page, 3)
    assert 0 < len(names) < every
    assert f"{len(names)} of {every} rows" in page.run("document.getElementById('status').textContent")
    page.wait(f"document.getElementById('cost-status').textContent.includes('of the {len(names)} rows')")
    page.wait("Bokeh.index.roots.some((r) => document.getElementById('scatter').contains(r.el))")
    assert plot(page, "scatter", POINTS) < points
    page.run("document.getElementById('f-protocol').value = 'paper'")
    page.run("document.getElementById('f-protocol').dispatchEvent(new Event('input', {bubbles: true}))")
    left = column(page, 1)
    assert left == [n for n, p in zip(names, protocols, strict=True) if p == "paper"]
    assert len(left) < len(names)
    page.run("document.getElementById('f-text').focus()")
    page.type("no such name")
    assert column(page, 1) == []
    page.click("#filters button[type=reset]")
    page.wait(f"document.querySelectorAll('#table tbody tr:not([hidden])').length === {every}")


def test_a_run_is_toggled_by_its_chip_and_by_its_box(page: Page) -> None:
    shown = plot(page, "loss", LINES_SHOWN)
    assert shown == 2 * 8  # training and validation of the eight best
    all_of_them = changed_picture(page)
    page.click('#chips button[aria-pressed="true"]')
    assert plot(page, "loss", LINES_SHOWN) == plot(page, "top1", LINES_SHOWN) == shown - 2
    fewer = changed_picture(page, all_of_them)
    page.click("#table input:not(:checked)")
    assert plot(page, "loss", LINES_SHOWN) == shown
    assert changed_picture(page, fewer) != all_of_them
    page.click("#c-train")
    assert plot(page, "loss", LINES_SHOWN) == shown // 2


def test_hovering_tells_the_run_and_its_numbers(page: Page, base: Path) -> None:
    page.run("document.getElementById('loss').scrollIntoView({block: 'center', behavior: 'instant'})")
    data = "v.model.renderers.find((r) => r.visible && r.glyph.type === 'Line').data_source.data"
    box = "v.canvas_view.el.getBoundingClientRect()"
    where = f"[{box}.x + v.frame.x_scale.compute(d.x[2]), {box}.y + v.frame.y_scale.compute(d.y[2]), d.run[2], d.y[2]]"
    x, y, run, loss = plot(page, "loss", f"((d) => {where})({data})")
    page.move(x, y)
    page.move(x + 1, y)
    page.wait("document.querySelector('.bk-Tooltip')")
    said = page.run("document.querySelector('.bk-Tooltip').shadowRoot.textContent")
    assert run in said
    told = [float(number) for number in re.findall(r"loss ([\d.]+)", said)]
    assert min(abs(number - loss) for number in told) < 6e-5  # where the fifth digit is a 5, two roundings are right
    assert "protocol: clean" in said
    assert re.search(r"after \d[\d.]* s,", said)
    rows = [json.loads(line) for line in (base / "runs" / run / "metrics.jsonl").read_text().splitlines()]
    assert rows[2]["train_loss"] == pytest.approx(loss, rel=1e-5)


def test_a_chart_is_zoomed_and_moved_by_the_keyboard(page: Page) -> None:
    page.run("document.getElementById('loss').focus()")
    assert page.run("document.activeElement.id") == "loss"
    span = "v.model.x_range.end - v.model.x_range.start"
    whole, start = plot(page, "loss", span), plot(page, "loss", "v.model.x_range.start")
    page.key("+", "+")
    assert plot(page, "loss", span) == pytest.approx(0.8 * whole)
    page.key("ArrowRight", code=39)
    assert plot(page, "loss", "v.model.x_range.start") > start
    page.key("0", "0")
    page.wait("true")
    assert plot(page, "loss", span) == pytest.approx(whole)


def test_confusion_and_images_are_of_the_run_that_is_named(page: Page, base: Path) -> None:
    page.run("document.getElementById('k-run').selectedIndex = 1")
    page.run("document.getElementById('k-run').dispatchEvent(new Event('change'))")
    name = page.run("document.getElementById('k-run').selectedOptions[0].textContent")
    test = json.loads((base / "runs" / name / "result.json").read_text())["test"]
    cells = page.run(
        "[...document.querySelectorAll('#confusion tbody tr')].map(r => [...r.cells].slice(1).map(c => +c.textContent))"
    )
    assert np.trace(cells) == test["correct"]
    assert np.sum(cells) == test["count"]
    assert "as recorded" in page.run("document.getElementById('classes-note').textContent")
    assert plot(page, "bars", "v.model.renderers[0].data_source.data.top.length") == 10
    images = page.run(
        "[...document.querySelectorAll('#images img')].map(i => [i.alt, i.src.slice(0, 11), i.naturalWidth])"
    )
    assert len(images) == 6
    sure = [float(alt.split()[-2].rstrip("%")) for alt, _, _ in images]
    assert sure == sorted(sure, reverse=True)
    for alt, source, width in images:
        assert re.fullmatch(r"true class \d, taken for \d, [\d.]+% sure", alt)
        assert source == "data:image/"
        assert width == 8


def test_the_differences_of_chosen_runs_are_listed(page: Page) -> None:
    page.run("document.querySelectorAll('#chips button[aria-pressed=true]').forEach((b, i) => i > 1 && b.click())")
    keys = page.run("[...document.querySelectorAll('#differences tbody tr:not(.group) th')].map(e => e.textContent)")
    assert {"lr", "seed", "top1"} <= set(keys)
    assert "epochs" not in keys
    page.click("#d-all")
    every = page.run("[...document.querySelectorAll('#differences tbody tr:not(.group) th')].map(e => e.textContent)")
    assert {"epochs", "batch_size", "fingerprint"} <= set(every)


def choose(page: Page, control: str, value: str) -> None:
    page.run(f"document.getElementById('{control}').value = '{value}'")
    page.run(f"document.getElementById('{control}').dispatchEvent(new Event('change'))")


def test_one_dataset_is_shown_at_a_time(page: Page) -> None:
    digits = column(page, 1)
    assert set(column(page, 5)) == {"digits"}
    assert set(column(page, 6)) == {"run"}
    choose(page, "dataset", "cifar10")
    assert set(column(page, 5)) == {"cifar10"}
    assert not set(digits) & set(column(page, 1))
    assert "rows on cifar10" in page.run("document.getElementById('status').textContent")
    assert page.run("document.getElementById('curves').hidden")  # no run is on it
    page.click("#filters button[type=reset]")
    page.run("new Promise((done) => setTimeout(done, 50))")
    assert set(column(page, 5)) == {"cifar10"}
    page.wait("document.getElementById('scatter').ariaLabel.includes('protocol')")
    choose(page, "dataset", "digits")
    assert column(page, 1) == digits
    page.wait("document.querySelector('#loss .bk-Plot')")
    assert plot(page, "loss", LINES_SHOWN) == 2 * 8
    assert page.complaints() == []


def test_ticks_are_counts_and_times_as_people_write_them(page: Page) -> None:
    page.wait("document.querySelector('#scatter .bk-Plot')")
    labels = "v.model.below[0].formatter.doFormat({}, {{}})"
    assert plot(page, "scatter", labels.format("[950, 1e6, 2.5e9, 66710, 66720]")) == [
        "950",
        "1M",
        "2.5G",
        "66.71k",
        "66.72k",
    ]
    choose(page, "s-cost", "minutes")
    page.wait("document.getElementById('scatter').ariaLabel.includes('training time')")
    assert plot(page, "scatter", labels.format("[0.005, 0.75, 5, 180]")) == ["0.3 s", "45 s", "5 min", "3 h"]
    choose(page, "c-x", "minutes")
    assert plot(page, "loss", "v.model.below[0].axis_label") == "training time (s)"


def test_the_charts_are_three_stops_of_the_tab_key_away(page: Page) -> None:
    stops = []
    for _ in range(2):
        page.key("Tab", code=9)
        stops.append(page.run("document.activeElement.textContent"))
    assert stops == ["Skip to the results", "Skip to the charts"]
    page.key("Enter", "\r", code=13)
    page.key("Tab", code=9)
    page.wait("document.getElementById('charts').contains(document.activeElement)")
    assert page.run("document.activeElement.closest('.chart').id") == "loss"


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_a_contrast_that_can_be_read(base: Path, browser: Page, dark: bool) -> None:
    page = show(browser, base / "report.html", dark=dark)
    page.wait("document.querySelector('#confusion td')")
    page.run("document.querySelectorAll('#chips button')[2].click()")
    page.run("document.querySelectorAll('details').forEach((e) => (e.open = true))")
    assert page.low_contrasts() == []


def test_the_theme_can_be_chosen_against_the_system(page: Page) -> None:
    page.run("document.getElementById('theme').value = 'dark'")
    page.run("document.getElementById('theme').dispatchEvent(new Event('change'))")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.wait("Bokeh.index.roots.length >= 4")
    assert plot(page, "loss", "v.model.below[0].axis_label_text_color") == "#a3adb8"


def test_a_screen_reader_finds_a_name_for_each_control_and_chart(page: Page) -> None:
    page.wait("['loss', 'top1', 'scatter', 'bars'].every((id) => document.getElementById(id).ariaLabel)")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "checkbox", "combobox", "textbox", "searchbox", "spinbutton", "link", "image", "region")
    found = [(n["role"]["value"], n.get("name", {}).get("value")) for n in nodes if not n["ignored"]]
    named = [name for role, name in found if role in controls]
    assert len(named) > 60
    assert all(named), [pair for pair in found if pair[0] in controls and not pair[1]]
    headings = [name for role, name in found if role == "heading"]
    assert {"Results", "Training curves", "Accuracy over cost", "Classes", "Most confidently confused"} <= set(headings)


def test_what_strangers_wrote_stays_text(base: Path, browser: Page) -> None:
    page = show(browser, base / "bad.html")
    page.wait("document.getElementById('bars').ariaLabel && document.getElementById('confusion').ariaLabel")
    page.run("document.getElementById('class-data').open = true")
    shown = page.run("[...document.querySelectorAll('#class-data tbody th')].map((e) => e.textContent)")
    assert set(HOSTILE) <= set(shown)
    assert "<b>run" in column(page, 1)
    assert page.run("document.querySelectorAll('img[src=x], #table b').length") == 0
    assert plot(page, "confusion", "v.model.renderers[0].glyph.type") == "Rect"
    assert page.requests() == [(base / "bad.html").as_uri()]
    assert page.complaints() == []
