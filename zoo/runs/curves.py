"""Curves of runs as a picture, in colours that colour-blind people tell apart, and with markers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.drawing import COLOURS, DASHES, MARKERS, encoded, plain_text, styled
from zoo.base.files import write_bytes
from zoo.base.headline import MAP, TOP1, Headline
from zoo.base.reporter import Reporter
from zoo.base.text import unit_of_time
from zoo.errors import InputError
from zoo.runs.find import Run, curves
from zoo.runs.folder import read_metrics
from zoo.runs.record import CURVES, read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("loss", "top1", "lr")
BOTH = METRICS[:2]
FORMATS = ("png", "svg", "pdf")
LABELS = (("loss", "loss"), ("top1", "top-1"), ("lr", "learning rate"))
FEW = 40
"""Runs of fewer epochs have a mark at each."""


def panels(what: str) -> list[str]:
    """The panels that a text names: some of `METRICS` with commas between, "both" (loss and top1) or "all".

    Raises:
        InputError: it names something else, nothing, or one twice.
    """
    words = [word.strip() for word in what.split(",") if word.strip()]
    found = [panel for word in words for panel in {"both": BOTH, "all": METRICS}.get(word, (word,))]
    if not found or any(panel not in METRICS for panel in found) or len(set(found)) < len(found):
        raise InputError(
            f"panels {what!r}: give some of {', '.join(METRICS)} with commas between, or both (loss,top1), or all"
        )
    return found


def with_curves(runs: Sequence[Run], reporter: Reporter) -> list[Run]:
    """The runs that have curves; the reporter hears which others are left out.

    Raises:
        InputError: none has.
    """
    drawn = [run for run in runs if run.rows]
    if not drawn and any(run.record.soup for run in runs):
        raise InputError("nothing to plot: what is made of other runs has no curves; plot the runs that it is made of")
    if not drawn:
        raise InputError("nothing to plot: none of these runs has finished an epoch")
    for run in (run for run in runs if not run.rows):
        why = "is made of other runs and has no curves" if run.record.soup else "has finished no epoch"
        reporter.warn(f"{run.name}: left out: {why}")
    return drawn


def draw(
    runs: Sequence[Run],
    *,
    what: Sequence[str] = BOTH,
    x: str = "epoch",
    log: bool = False,
    kind: str = "png",
    dpi: int = 150,
) -> bytes:
    """Draw training and validation (or test) curves of runs, one panel for each metric.

    Args:
        what: of `METRICS`. x: "epoch", or "minutes" for the time of training in the unit that fits the longest run.
        runs: as `with_curves` gives them. log: a logarithmic loss. kind: of `FORMATS`.
    Returns:
        The file's bytes; the same for the same runs and the same matplotlib.
    """
    if all(run.record.without_labels for run in runs):
        what = [panel for panel in what if panel != "top1"] or ["loss"]
    with styled():
        return encoded(_figure(runs, what, x, log), kind, dpi=dpi)


def _figure(drawn: Sequence[Run], what: Sequence[str], x: str, log: bool) -> Figure:
    import matplotlib.ticker
    from matplotlib.figure import Figure

    below = math.ceil(len(drawn) / 2) * 0.22 if len(drawn) > 1 else 0.0
    figure = Figure(figsize=(4.6 * len(what) + 0.4, 3.6 + below), layout="constrained")
    longest = max(60 * (curves(run)["minutes"][-1] or 0) for run in drawn)
    unit, size = unit_of_time(longest)
    for axes, metric in zip(figure.subplots(1, len(what), squeeze=False)[0], what, strict=True):
        for i, run in enumerate(drawn):
            _lines(axes, run, i, metric, None if x == "epoch" else size)
        figures = " or ".join(dict.fromkeys(_figure_of(run).name for run in drawn))
        label = figures if metric == "top1" else dict(LABELS)[metric]
        axes.set(xlabel="epoch" if x == "epoch" else f"training time ({unit})", ylabel=label)
        if metric == "loss" and log:
            axes.set_yscale("log")
        if metric == "top1":
            axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        if metric == "lr":
            axes.set_ylim(bottom=0.0)
        if x == "epoch":
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    _legend(figure, drawn)
    return figure


def _lines(axes: Any, run: Run, i: int, metric: str, unit: int | None) -> None:
    """Draw one metric of one run, over epochs or, where a `unit` of so many seconds is given, over time."""
    columns = curves(run, most=100_000)
    xs = columns["epoch"] if unit is None else [60 * (minutes or 0) / unit for minutes in columns["minutes"]]
    colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
    few, one = len(xs) < FEW, len(xs) == 1
    metric = _figure_of(run).key if metric == "top1" else metric
    for split in ("train", "val", "test", ""):
        if values := columns.get(f"{split}_{metric}" if split else metric):
            points = [(a, math.nan if b is None else b) for a, b in zip(xs, values, strict=True)]
            solid = split != "train"
            axes.plot(
                *zip(*points, strict=True),
                linestyle="solid" if solid else DASHES,
                color=colour,
                marker=marker if one or (few and solid) else "",
                markerfacecolor=colour if solid else "none",  # a single epoch has no line to tell them apart
                markersize=4,
                linewidth=1.8 if solid else 1.1,
            )


def _figure_of(run: Run) -> Headline:
    """What the panel "top1" shows of a run."""
    return MAP if run.record.data.is_multi_label else TOP1


def _legend(figure: Any, runs: Sequence[Run]) -> None:
    """What the styles mean; for several runs also which colour is whose, below the panels."""
    from matplotlib.lines import Line2D

    splits = {key.partition("_")[0] for run in runs for key in curves(run, 1) if "_" in key}
    names = (("train", "training"), ("val", "validation"), ("test", "test"))
    styles = [
        Line2D([], [], color="0.4", label=label, **_style(runs, k != "train")) for k, label in names if k in splits
    ]
    if figure.axes[0].get_ylabel() != dict(LABELS)["lr"]:  # a learning rate is of no split
        figure.axes[0].legend(handles=styles, frameon=False, fontsize=8)
    if len(runs) == 1:
        record = runs[0].record
        figure.suptitle(
            plain_text(
                f"{record.model} on {record.data.spec} "
                f"({record.recipe}, {record.protocol} protocol, seed {record.seed})"
            )
        )
        return
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i // len(COLOURS) % len(MARKERS)],
            markersize=4,
            label=plain_text(run.name),
        )
        for i, run in enumerate(runs)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _style(runs: Sequence[Run], solid: bool) -> dict[str, Any]:
    """The line of training or of what was held out, with the marks that these runs have."""
    lengths = [len(run.rows) for run in runs]
    marked = min(lengths) == 1 or (solid and min(lengths) < FEW)
    return {
        "linestyle": "solid" if solid else DASHES,
        "marker": MARKERS[0] if marked else "",
        "markerfacecolor": "0.4" if solid else "none",
        "markersize": 4,
    }


def draw_curves(folder: Path) -> None:
    """Draw `curves.png` of one run: the same picture as `zoo plot FOLDER`.

    Raises:
        WriteError: it cannot be written.
    """
    rows = tuple(read_metrics(folder))
    if rows:
        # Made by hand, since `find.read` asks for the lock, which may be this process's own.
        run = Run(folder.name, folder, read_record(folder), rows, None, "training", 0.0)
        write_bytes(folder / CURVES, draw([run]))
