"""Progress of a training on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from zoo.base.text import duration, plural
from zoo.cli.shared.table import is_quiet
from zoo.train.events import Listener, Tick

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
        self.say(epoch_line(row, self.epochs, best))

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
        note = f"loss {tick.loss:.3f}  top-1 {tick.top1:.1%}  lr {tick.lr:.2g}  {tick.images_per_second:,.0f} img/s"
        self.bars.update(self.inner, completed=tick.step, total=tick.steps, note=note)
        self.bars.update(
            self.outer, completed=tick.total_step, total=tick.total_steps, note=f"{duration(tick.seconds)}{self.best}"
        )

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Print the epoch's line above the bars."""
        split = "val" if "val_top1" in row else "test"
        if best:
            loss = f"lowest loss {row[f'{split}_loss']:.4f}"
            score = loss if self.rule == "loss" else f"best {row[f'{split}_top1']:.1%}"
            self.best = f", {score} (epoch {row['epoch']})"
        self.bars.reset(self.inner, note="")
        super().epoch(row, best)

    def end(self, result: dict[str, Any]) -> None:
        """Close the bars."""
        self.stack.close()

    def say(self, line: str) -> None:
        """Print above the bars."""
        self.bars.console.print(line, highlight=False, markup=False)


def summary(plan: Plan, parameters: int) -> str:
    """Three lines: the model, the images, and the settings."""
    record, data = plan.record, plan.record.data
    sizes = record.sizes
    counts = f"{data.train:,} train + {data.validation:,} validation" if data.validation else f"{data.train:,} train"
    layout = "channels-last" if record.channels_last else "contiguous"
    return (
        f"{record.model}: {parameters:,} parameters, {sizes.height}x{sizes.width}, "
        f"{plural(sizes.num_classes, 'class')}\n"
        f"{data.spec}: {counts} + {plural(data.test, 'test image')}\n"
        f"recipe {record.recipe}, seed {record.seed}, {record.protocol} protocol, "
        f"{record.device} {record.precision} {layout}"
    )


def epoch_line(row: dict[str, Any], epochs: int, best: bool) -> str:
    """One epoch in one line."""
    split = "val" if "val_top1" in row else "test"
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f}  "
        f"{split} loss {row[f'{split}_loss']:.4f}  {split} top-1 {row[f'{split}_top1']:7.2%}  "
        f"{row['images_per_second']:,.0f} img/s{'  *' if best else ''}"
    )


class DecodeBar:
    """A progress bar for decoding, shown only if there is something to decode."""

    def __init__(self, quiet: bool = False) -> None:
        self.live = not (quiet or is_quiet()) and sys.stderr.isatty()
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
