"""How a training shows itself in a notebook: one output that is replaced, and stays."""

from __future__ import annotations

import base64
import math
import re
import shutil
import sys
import threading
import types
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from zoo.train.curves_svg import MOST_POINTS, curves_svg, scale_of
from zoo.train.events import Tick
from zoo.train.loop import Stop
from zoo.train.notebook import SECONDS, NotebookDisplay, NotebookReporter, in_notebook
from zoo.train.notebook_html import MOST_ROWS, bar, epochs_table, lines
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request
from zoo.train.runner import Watch, train_in
from zoo.train.start import continued

EPOCHS = 3


class Cell:
    """A cell of a notebook: its outputs, each with all that it showed."""

    def __init__(self) -> None:
        self.outputs: list[list[dict[str, str]]] = []

    def __call__(self, bundle: dict[str, str]) -> Any:
        shown = [bundle]
        self.outputs.append(shown)
        return types.SimpleNamespace(update=lambda bundle, *, raw: shown.append(bundle))

    @property
    def pages(self) -> list[str]:
        """What its only output showed."""
        (shown,) = self.outputs
        return [bundle["text/html"] for bundle in shown]

    @property
    def texts(self) -> list[str]:
        (shown,) = self.outputs
        return [bundle["text/plain"] for bundle in shown]


class Clock:
    """Seconds that pass only when they are told to, or by so many at each look."""

    def __init__(self, each: float = 0.0) -> None:
        self.now, self.each = 100.0, each

    def __call__(self) -> float:
        self.now += self.each
        return self.now


class Page(HTMLParser):
    """Reads a page; every element must be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


@pytest.fixture(scope="module")
def plan(plugin_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    base = tmp_path_factory.mktemp("home")
    shutil.copytree(plugin_index, base / "cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CONFIG", "CACHE"):
            patch.setenv(f"ZOO_{name}_DIR", str(base / name.lower()))
        few: dict[str, Any] = {"limit_train": 100, "batch_size": 32, "limit_test": 50, "epochs": EPOCHS}
        settings = ("recipe.select=loss",)
        return resolve(Request(model="cnn-baseline", dataset="digits", device="cpu", settings=settings, **few))


@pytest.fixture(scope="module")
def trained(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, dict[str, Any]]:
    """The cell of a training that drew at every step, and its result."""
    cell = Cell()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.train.loop.TICK_SECONDS", 0.0)
        display = NotebookDisplay(cell, Clock(each=1.0))
        result = train_in(tmp_path_factory.mktemp("run"), plan, Watch(listener=display))
    return cell, result


# ---- a training --------------------------------------------------------------------------------------


def test_a_training_is_one_output_whose_bar_moves_to_its_end(trained: tuple[Cell, dict[str, Any]]) -> None:
    cell, _ = trained
    widths = [float(found[1]) for page in cell.pages if (found := re.search(r"width: ([\d.]+)%", page))]
    assert len(widths) == len(cell.pages) - 1
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (0.0, 100.0)
    assert "cnn-baseline" in cell.pages[0]
    assert any("step 1/3: loss" in page and "left" in page for page in cell.pages)
    assert "lowest loss " in cell.pages[-2]


def test_every_page_is_whole_and_needs_nothing_from_outside(trained: tuple[Cell, dict[str, Any]]) -> None:
    for page in trained[0].pages:
        tags = set(Page(page).tags)
        assert tags <= {"div", "br", "img", "table", "thead", "tbody", "tr", "th", "td", "svg", "g", "path", "text"}
        assert re.findall(r"(?:src|href)=.(?!data:)", page) == []


def test_the_last_page_is_static_and_shows_the_result(trained: tuple[Cell, dict[str, Any]]) -> None:
    cell, result = trained
    last = cell.pages[-1]
    said = f"test top-1 {result['test']['top1']:.2%} ({result['test']['correct']} of 50)"
    assert said in last
    assert said in cell.texts[-1]
    assert "<svg" not in last  # programs that do not trust a notebook take it away
    picture = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', last)
    assert picture is not None
    assert ElementTree.fromstring(base64.b64decode(picture[1])).tag.endswith("svg")
    assert Page(last).text.split().count("*") >= 1
    assert Page(last).tags.count("tr") == 1 + EPOCHS


def test_a_display_starts_no_thread(plan: Plan, tmp_path: Path) -> None:
    before = threading.active_count()
    during: list[int] = []

    class Counting(NotebookDisplay):
        def epoch(self, row: dict[str, Any], best: bool) -> None:
            super().epoch(row, best)
            during.append(threading.active_count())

    train_in(tmp_path, plan, Watch(listener=Counting(Cell())))
    assert (set(during), threading.active_count()) == ({before}, before)


def test_a_run_that_is_stopped_says_so_and_goes_on_with_its_curves(plan: Plan, tmp_path: Path) -> None:
    first, second, asked = Cell(), Cell(), iter(range(100))
    watch = Watch(listener=NotebookDisplay(first), stop=lambda: 15 * (next(asked) >= 4))
    with pytest.raises(Stop):
        train_in(tmp_path, plan, watch)
    assert "ended early, after 1 of 3 epochs" in first.pages[-1]
    train_in(tmp_path, continued(tmp_path), Watch(listener=NotebookDisplay(second)))
    assert "after 1 of 3 epochs" in second.pages[1]
    assert Page(second.pages[1]).tags.count("tr") == 2
    assert Page(second.pages[-1]).tags.count("tr") == 1 + EPOCHS


def test_a_run_that_never_began_shows_nothing_and_an_end_is_final(plan: Plan) -> None:
    cell = Cell()
    display = NotebookDisplay(cell)
    display.end({})
    assert cell.outputs == []
    display.start(plan, 10)
    display.end({"test": None, "train": {"seconds": 1.0, "images_per_second": 2.0}})
    display.end({})
    assert "finished after 1.0 s of training" in cell.pages[-1]
    display.start(plan, 10)
    assert len(cell.outputs) == 2


def tick_at(step: int) -> Tick:
    return Tick(1, 2, step, 100, 1.5, 0.25, 1000.0, step, 200, 0.1, float(step))


def test_an_output_is_replaced_a_few_times_a_second_at_most(plan: Plan) -> None:
    cell, clock = Cell(), Clock()
    display = NotebookDisplay(cell, clock)
    display.start(plan, 10)
    for step in range(1, 101):
        clock.now += SECONDS / 10
        display.tick(tick_at(step))
    assert len(cell.pages) in (10, 11)
    row = {**rows_of([1.0])[0], "step": 100}
    clock.now = display.output.last
    display.epoch(row, best=True)
    assert "<svg" not in cell.pages[-1]  # the next one will show it
    display.epoch({**row, "epoch": EPOCHS}, best=False)
    assert "<svg" in cell.pages[-1]  # what follows may take long
    display.end({})
    assert "ended early" in cell.pages[-1]


# ---- what a call says --------------------------------------------------------------------------------


def test_a_reporter_has_a_bar_for_each_work_and_leaves_lines() -> None:
    cell, clock = Cell(), Clock()
    reporter = NotebookReporter(cell, clock)
    for done in range(1, 101):
        clock.now += SECONDS / 10
        reporter.progress("train images", done, 100)
    assert len(cell.pages) in (11, 12)
    reporter.progress("test <images>", 5, 5)
    reporter.say("a & b")
    assert cell.pages[-1].count("width: 100.0%") == 2
    reporter.close()
    assert (
        cell.pages[-1] == "<div><div>a &amp; b<br>train images: 100 of 100<br>test &lt;images&gt;: 5 of 5</div></div>"
    )
    reporter.progress("more", 1, 2)
    assert len(cell.outputs) == 2


def test_a_reporter_that_has_nothing_to_say_shows_nothing() -> None:
    cell = Cell()
    NotebookReporter(cell).close()
    assert cell.outputs == []


# ---- whether this is a notebook ----------------------------------------------------------------------


def shell_of(name: str, module: str) -> Any:
    kind = type(name, (), {"__module__": module})
    return types.SimpleNamespace(get_ipython=lambda: kind())


@pytest.mark.parametrize(
    ("name", "module", "expected"),
    [
        ("ZMQInteractiveShell", "ipykernel.zmqshell", True),
        ("Shell", "google.colab._shell", True),
        ("Shell", "somewhere", False),
        ("TerminalInteractiveShell", "IPython.terminal.interactiveshell", False),
    ],
)
def test_a_notebook_is_told_by_its_shell(
    name: str, module: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", shell_of(name, module))
    assert in_notebook() == expected


def test_no_shell_is_no_notebook_and_ipython_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))  # half imported
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
    assert "IPython" not in sys.modules


# ---- the parts of a page -----------------------------------------------------------------------------


def rows_of(losses: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "epoch": i + 1,
            **{f"{part}_loss": loss for part in ("train", "val")},
            **{f"{part}_top1": 0.5 for part in ("train", "val")},
            "images_per_second": 1000.0,
        }
        for i, loss in enumerate(losses)
    ]


def curve_of(svg: str) -> str:
    """The line of the first panel that is solid."""
    paths = [path.attrib for path in ElementTree.fromstring(svg)[0] if path.tag.endswith("path")]
    (solid,) = [path["d"] for path in paths if path.get("stroke-width") == "2"]
    return str(solid)


def test_a_curve_goes_from_the_first_epoch_to_the_last_and_down_as_the_loss_falls() -> None:
    points = [
        [float(number) for number in point.split()]
        for point in curve_of(curves_svg(rows_of([3.0, 2.0, 1.0]), "val", 5)).removeprefix("M").split("L")
    ]
    assert points == [[44.0, 22.0], [105.5, 85.0], [167.0, 148.0]]


def test_values_that_are_not_finite_leave_a_gap() -> None:
    curve = curve_of(curves_svg(rows_of([3.0, 2.5, math.nan, math.inf, 1.5, 1.0]), "val", 6))
    assert [part.count("L") for part in curve.split("M")[1:]] == [1, 1]
    assert "nan" not in curves_svg(rows_of([math.nan]), "val", 1)


def test_many_epochs_are_thinned_out_and_the_last_one_is_kept() -> None:
    svg = curves_svg(rows_of([1 / (i + 1) for i in range(5000)]), "val", 5000)
    curve = curve_of(svg)
    assert curve.count("L") <= MOST_POINTS
    assert curve.split("L")[-1].startswith("290.0 ")
    assert len(svg) < 20_000
    table = Page(epochs_table(rows_of([1.0] * 5000), "val", set()))
    assert table.tags.count("tr") == 1 + MOST_ROWS
    assert f"the last {MOST_ROWS} of 5,000 epochs" in table.text


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ((), 0.0, 1.0),
        ((0.0, 0.0), 0.0, 1.0),
        ((1.0, 1.0), 0.9, 1.0),
        ((0.1, 2.3), 0.0, 2.5),
        ((0.1, 0.97), 0.0, 1.0),
        ((0.93, 0.931), 0.93, 0.931),
        ((-3.0,), -3.0, -2.0),
        ((2e5, 9e5), 2e5, 1e6),
    ],
)
def test_a_scale_holds_all_values_between_round_marks(values: tuple[float, ...], low: float, high: float) -> None:
    scale = scale_of(values, 1)
    assert (scale.low, scale.high) == (pytest.approx(low), pytest.approx(high))
    assert 2 <= len(scale.marks()) <= 7
    assert scale.marks()[-1] == pytest.approx(high)


def test_parts_of_a_page_are_escaped_and_never_overflow() -> None:
    assert lines(["<b>", "&"]) == "<div>&lt;b&gt;<br>&amp;</div>"
    assert "width: 100.0%" in bar(7, 5)
    assert "width: 0.0%" in bar(0, 0)
    assert (curves_svg([], "val", 3), epochs_table([], "val", set())) == ("", "")


# ---- a real kernel -----------------------------------------------------------------------------------

CELL = """
from pathlib import Path
from zoo.train.notebook import NotebookDisplay, in_notebook
from zoo.train.plan import resolve
from zoo.train.run_options import Request
from zoo.train.runner import Watch, train_in
assert in_notebook()
few = {"limit_train": 100, "batch_size": 32, "limit_test": 50, "epochs": 2}
plan = resolve(Request(model="cnn-baseline", dataset="digits", device="cpu", **few))
train_in(Path("run"), plan, Watch(listener=NotebookDisplay()));
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_kernel_keeps_one_output_with_the_result(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason='needs nbclient: pip install -e ".[test]"')
    client = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    where = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=200, kernel_name="python3", resources=where).execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert "test top-1" in output.data["text/html"]
    assert "test top-1" in output.data["text/plain"]
