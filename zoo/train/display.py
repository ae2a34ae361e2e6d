"""Progress of a training on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from zoo.base.text import duration
from zoo.train.events import Listener, Tick
from zoo.train.progress_text import best_note, epoch_line, step_note, summary

if TYPE_CHECKING:
    from zoo.train.plan import Plan


def make_display(quiet: bool) -> Listener:
    """Bars if stderr is a terminal, else one line per epoch; nothing if quiet."""
    if quiet:
        return Listener()
    return Bars() if sys.stderr.isatty() else Lines()


class Lines(Listener):
    """One plain line at the start and after each epoch."""

    def start(self, plan: Plan, parameters: int) -> None:
        """Print what is about to be trained."""
        self.epochs, self.rule = plan.recipe.epochs, plan.recipe.select
        self.say(summary(plan, parameters))

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Print the results of the epoch."""
        self.say(epoch_line(row, self.epochs, best, self.rule))

    def say(self, line: str) -> None:
        """Print one line."""
        print(line, file=sys.stderr, flush=True)


class Bars(Lines):
    """Two live bars, for the epoch and the run, below the lines of the finished epochs."""

    def __init__(self) -> None:
        self.stack = ExitStack()

    def start(self, plan: Plan, parameters: int) -> None:
        """Open the bars."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description:>6}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.best = ""  # of this run: a table trains several, one after another
        self.stack.enter_context(self.bars)
        self.inner = self.bars.add_task("epoch", total=None, note="")
        self.outer = self.bars.add_task("run", total=None, note="")
        super().start(plan, parameters)

    def tick(self, tick: Tick) -> None:
        """Move the bars."""
        self.bars.update(self.inner, completed=tick.step, total=tick.steps, note=step_note(tick))
        self.bars.update(
            self.outer, completed=tick.total_step, total=tick.total_steps, note=f"{duration(tick.seconds)}{self.best}"
        )

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Print the epoch's line above the bars."""
        if best:
            self.best = f", {best_note(row, self.rule)}"
        self.bars.reset(self.inner, note="")
        super().epoch(row, best)

    def end(self, result: dict[str, Any]) -> None:
        """Close the bars."""
        self.stack.close()

    def say(self, line: str) -> None:
        """Print above the bars."""
        self.bars.console.print(line, highlight=False, markup=False)


class DecodeBar:
    """A progress bar for decoding on stderr, shown only on a terminal and if there is something to decode."""

    def __init__(self, quiet: bool = False) -> None:
        self.live = not quiet and sys.stderr.isatty()
        self.stack = ExitStack()
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}

    def __call__(self, description: str, done: int, total: int, /) -> None:
        """Show progress (see `zoo.data.sources.source.Show`)."""
        if not self.live:
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self.bar = self.stack.enter_context(Progress(console=Console(stderr=True), transient=True))
        if description not in self.tasks:
            self.tasks[description] = self.bar.add_task(description, total=total)
        self.bar.update(self.tasks[description], completed=done)

    def close(self) -> None:
        """Remove the bar."""
        self.stack.close()

    def __enter__(self) -> DecodeBar:
        """The bar itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self.close()
