"""How a training shows itself in a notebook: one output, which is replaced while it trains and stays when it has ended.

It is plain HTML in an output that the kernel updates (`display_id`, since version 5.1 of Jupyter's messages), which
JupyterLab, VS Code and Colab all do, and which needs no package in the notebook's server. Tried for it before, with
ipykernel 7.4 and without ipywidgets, which is not installed everywhere:

- rich 15 warns that it needs ipywidgets, shows no bar, and prints each line as an output of its own.
- tqdm.auto 4.70 warns that it needs ipywidgets, and prints its bar as text on the red ground of stderr.

With ipywidgets both show a bar, but a saved notebook keeps the model of a widget beside it, and is empty where another
program renders it; rich also starts a thread. Here nothing runs beside the training: its own events draw, at most a few
times a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zoo.base.reporter import Reporter
from zoo.base.text import plural
from zoo.train.events import Listener, Tick
from zoo.train.notebook_html import bar, curves, epochs_table, lines
from zoo.train.progress_text import best_note, epoch_line, result_line, selecting, step_note, summary, time_left

if TYPE_CHECKING:
    from zoo.train.plan import Plan

SECONDS = 0.4
"""Between two updates of an output, at least."""

COLAB = "google.colab._shell"


class Handle(Protocol):
    """What IPython's `display` gives for an output that can be replaced."""

    def update(self, bundle: dict[str, str], /, *, raw: bool) -> None:
        """Replace what is shown."""


Show = Callable[[dict[str, str]], Handle]
"""Shows a bundle of texts by their MIME types, and gives the handle."""


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook that shows HTML: of Jupyter, VS Code or Colab, not IPython's terminal.

    IPython is not imported for it: where nobody has imported it, this is no notebook.
    """
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    kind = type(ask() if ask else None)
    return kind.__name__ == "ZMQInteractiveShell" or (kind.__name__, kind.__module__) == ("Shell", COLAB)


def show_in_ipython(bundle: dict[str, str]) -> Handle:
    """Show an output in the running cell."""
    from IPython.display import display

    handle: Handle = display(bundle, raw=True, display_id=True)
    return handle


class Output:
    """One output of a cell, created when there is something to show, and replaced a few times a second at most.

    Args:
        show: creates it. clock: gives seconds.
    """

    def __init__(self, show: Show, clock: Callable[[], float]) -> None:
        self.show, self.clock = show, clock
        self.handle: Handle | None = None
        self.last = 0.0

    def put(self, page: Callable[[], str], text: str, *, now: bool = False) -> None:
        """Show a page, unless something was shown a moment ago.

        Args:
            page: makes the HTML. text: for programs that show none. now: in any case.
        """
        if self.handle is not None and not now and self.clock() - self.last < SECONDS:
            return
        bundle = {"text/html": page(), "text/plain": text}
        self.last = self.clock()
        if self.handle is None:
            self.handle = self.show(bundle)
        else:
            self.handle.update(bundle, raw=True)


class NotebookDisplay(Listener):
    """What is trained, a bar, the curves and the last epochs; at the end the result in place of the bar."""

    def __init__(self, show: Show = show_in_ipython, clock: Callable[[], float] = time.monotonic) -> None:
        self.output = Output(show, clock)
        self.rows: list[dict[str, Any]] = []
        self.best: set[int] = set()
        self.at: Tick | None = None
        self.note, self.tail = "", ""
        self.over = False

    def start(self, plan: Plan, parameters: int) -> None:
        """Show what is about to be trained."""
        self.epochs, self.rule = plan.recipe.epochs, plan.recipe.select
        self.about, self.at = summary(plan, parameters), None
        self.rows, self.best, self.note, self.over = [], set(), "", False
        self.output.handle = None
        self._draw(self.about, now=True)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take over the epochs of before."""
        self.rows = [dict(row) for row in rows]
        self._draw(self.about, now=True)

    def tick(self, tick: Tick) -> None:
        """Move the bar."""
        self.at = tick
        self._draw(f"epoch {tick.epoch}/{tick.epochs}  {step_note(tick)}")

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Add an epoch to the curves and to the table."""
        self.rows.append(dict(row))
        if best:
            self.best.add(row["epoch"])
            self.note = best_note(row, self.rule)
        if self.at is not None:  # the last tick came before the last step
            self.at = self.at._replace(step=self.at.steps, total_step=row["step"])
        self._draw(epoch_line(row, self.epochs, best, self.rule), now=row["epoch"] >= self.epochs)

    def end(self, result: dict[str, Any]) -> None:
        """Show what came out, or that the run was stopped; nothing if it never began."""
        if self.output.handle is None or self.over:
            return
        self.over = True
        self.tail = result_line(result) if result else f"ended early, after {self._epochs_done()}"
        self._draw(self.tail, now=True)

    def _draw(self, text: str, *, now: bool = False) -> None:
        self.output.put(self._page, text, now=now)

    def _page(self) -> str:
        split = selecting(self.rows[-1]) if self.rows else "val"
        last = len(self.rows) if self.over else self.epochs
        state = lines([self.tail]) if self.over else self._live()
        parts = [lines(self.about.splitlines()), state, curves(self.rows, split, last, final=self.over)]
        return f"<div>{''.join(parts)}{epochs_table(self.rows, split, self.best)}</div>"

    def _live(self) -> str:
        """The bar, and what the steps gave so far."""
        at = self.at
        if at is None:
            return bar(len(self.rows), self.epochs) + lines([f"after {self._epochs_done()}"])
        step = f"epoch {at.epoch}/{at.epochs}, step {at.step:,}/{at.steps:,}: {step_note(at)}"
        left = ", ".join(part for part in (time_left(at), self.note) if part)
        return bar(at.total_step, at.total_steps) + lines([step, left])

    def _epochs_done(self) -> str:
        return f"{len(self.rows):,} of {plural(self.epochs, 'epoch')}"


class NotebookReporter(Reporter):
    """Messages and bars of a call in one output of the cell; warnings go to `warnings`, which notebooks show."""

    def __init__(self, show: Show = show_in_ipython, clock: Callable[[], float] = time.monotonic) -> None:
        self.output = Output(show, clock)
        self.said: list[str] = []
        self.bars: dict[str, tuple[int, int]] = {}

    def say(self, line: str) -> None:
        """Show a message below those before."""
        self.said.append(line)
        self._draw(line, now=True)

    def progress(self, what: str, done: int, total: int, /) -> None:
        """Move the bar of a work, and show it anew where it is done."""
        self.bars[what] = (done, total)
        self._draw(f"{what}: {done:,} of {total:,}", now=done >= total)

    def close(self) -> None:
        """Leave lines in the place of the bars; what comes later has an output of its own."""
        if self.output.handle is not None:
            self._draw("; ".join([*self.said, *self._counts()]), now=True, final=True)
        self.output.handle, self.said, self.bars = None, [], {}

    def _draw(self, text: str, *, now: bool = False, final: bool = False) -> None:
        self.output.put(lambda: self._page(final=final), text, now=now)

    def _page(self, *, final: bool) -> str:
        if final:
            return f"<div>{lines([*self.said, *self._counts()])}</div>"
        bars = [lines([text]) + bar(*place) for text, place in zip(self._counts(), self.bars.values(), strict=True)]
        return f"<div>{lines(self.said)}{''.join(bars)}</div>"

    def _counts(self) -> list[str]:
        return [f"{what}: {done:,} of {total:,}" for what, (done, total) in self.bars.items()]
