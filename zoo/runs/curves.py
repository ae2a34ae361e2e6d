"""Curves of runs as a picture, in colours that colour-blind people tell apart, and with markers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.drawing import COLOURS, MARKERS, encoded, plain_text, styled
from zoo.base.files import write_bytes
from zoo.errors import InputError
from zoo.runs.find import Run, curves
from zoo.runs.folder import read_metrics
from zoo.runs.record import CURVES, read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("loss", "top1")
FORMATS = ("png", "svg", "pdf")
LABELS = (("loss", "loss"), ("top1", "top-1"), ("epoch", "epoch"), ("minutes", "minutes of training"))


def draw(
    runs: Sequence[Run],
    *,
    what: Sequence[str] = METRICS,
    x: str = "epoch",
    log: bool = False,
    kind: str = "png",
    dpi: int = 150,
) -> bytes:
    """Draw training and validation (or test) curves of runs, one panel for each metric.

    Args:
        what: of `METRICS`. x: "epoch" or "minutes". log: a logarithmic loss. kind: of `FORMATS`.
    Returns:
        The file's bytes; the same for the same runs and the same matplotlib.
    Raises:
        InputError: none of the runs has finished an epoch.
    """
    drawn = [run for run in runs if run.rows]
    if not drawn:
        raise InputError("nothing to plot: none of these runs has finished an epoch")
    with styled():
        return encoded(_figure(drawn, what, x, log), kind, dpi=dpi)


def _figure(drawn: Sequence[Run], what: Sequence[str], x: str, log: bool) -> Figure:
    import matplotlib.ticker
    from matplotlib.figure import Figure

    below = math.ceil(len(drawn) / 2) * 0.22 if len(drawn) > 1 else 0.0
    figure = Figure(figsize=(4.6 * len(what) + 0.4, 3.6 + below), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(what), squeeze=False)[0], what, strict=True):
        for i, run in enumerate(drawn):
            _lines(axes, run, i, metric, x)
        axes.set(xlabel=dict(LABELS)[x], ylabel=dict(LABELS)[metric])
        if metric == "loss" and log:
            axes.set_yscale("log")
        if metric == "top1":
            axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
        if x == "epoch":
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    _legend(figure, drawn)
    return figure


def _lines(axes: Any, run: Run, i: int, metric: str, x: str) -> None:
    columns = curves(run, most=100_000)
    colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
    few, one = len(columns["epoch"]) < 40, len(columns["epoch"]) == 1
    for split, style in (("train", "--"), ("val", "-"), ("test", "-")):
        if values := columns.get(f"{split}_{metric}"):
            points = [(a, math.nan if b is None else b) for a, b in zip(columns[x], values, strict=True)]
            solid = split != "train"
            axes.plot(
                *zip(*points, strict=True),
                style,
                color=colour,
                marker=marker if one or (few and solid) else "",
                markerfacecolor=colour if solid else "none",  # a single epoch has no line to tell them apart
                markersize=4,
                linewidth=1.8 if solid else 1.1,
            )


def _legend(figure: Any, runs: Sequence[Run]) -> None:
    """What the styles mean; for several runs also which colour is whose, below the panels."""
    from matplotlib.lines import Line2D

    splits = {key.partition("_")[0] for run in runs for key in curves(run, 1) if "_" in key}
    names = (("train", "training", "--"), ("val", "validation", "-"), ("test", "test", "-"))
    styles = [Line2D([], [], color="0.4", linestyle=s, label=label) for k, label, s in names if k in splits]
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
