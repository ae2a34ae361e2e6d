"""Plots for print and for eyes that see colours differently, as files that are the same each time.

Each series has a colour that colour-blind people tell apart, a marker and a place in the legend; what was trained on is
dashed, what was not is solid. Nothing depends on the clock or on the user's matplotlib settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.base.drawing import COLOURS, DASHES, MARKERS, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = 10
FORMATS = ("png", "svg")
INCH = 6.8
"""A page's text width."""


class Series(NamedTuple):
    """A model's curves: `runs` has the rows of `metrics.jsonl` of each of its runs (seeds)."""

    name: str
    runs: Sequence[Sequence[Mapping[str, Any]]]


def draw_table(stem: Path, title: str, series: Sequence[Series]) -> list[Path]:
    """Draw loss and top-1 over epochs for all series, training and validation (or test), in one plot.

    Args:
        stem: the files' path without suffix.
    Returns:
        The files: PNG and SVG.
    Raises:
        WriteError: they cannot be written.
    """
    series = _merged(series)
    with _style():
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter

        figure = Figure(figsize=(INCH, 3.6 + 0.17 * ((len(series) + 1) // 2)), layout="constrained")
        figure.suptitle(title, fontsize=9, wrap=True)
        left, right = figure.subplots(1, 2)
        held_out = _curves(left, series, "loss")
        _curves(right, series, "top1")
        left.set_ylabel("loss")
        right.set_ylabel("top-1")
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
        _legend(figure, series, held_out)
        return _save(figure, stem)


def _merged(series: Sequence[Series]) -> list[Series]:
    """Models whose curves are equal, as one: a recipe can make one network of two models, and one line hides the other.

    Their names are joined by "=".
    """
    found: list[Series] = []
    for one in series:
        same = next((i for i, other in enumerate(found) if _drawn(other) == _drawn(one)), None)
        if same is None:
            found.append(one)
        else:
            found[same] = Series(f"{found[same].name} = {one.name}", one.runs)
    return found


def _drawn(one: Series) -> list[list[tuple[Any, ...]]]:
    """What of a series is drawn: its clocks differ even where its curves do not."""
    keys = ("epoch", *(f"{split}_{metric}" for split in ("train", "val", "test") for metric in ("loss", "top1")))
    return [[tuple(row.get(key) for key in keys) for row in rows] for rows in one.runs]


def draw_importance(stem: Path, title: str, importance: Mapping[str, float]) -> list[Path]:
    """Draw how much each key of a sweep mattered, as bars.

    Args:
        importance: key to its share, 0 to 1.
    Returns:
        The files: PNG and SVG.
    """
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(INCH, 1.1 + 0.32 * len(importance)), layout="constrained")
        figure.suptitle(title, fontsize=9, wrap=True)
        axes = figure.subplots()
        found = sorted(importance.items(), key=lambda item: (item[1], item[0]))
        bars = axes.barh([key for key, _ in found], [share for _, share in found], color=COLOURS[0])
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_xlim(0, 1.1)
        axes.set_xlabel("share of the variance of validation top-1 (fANOVA)")
        axes.spines[["top", "right"]].set_visible(False)
        return _save(figure, stem)


def _curves(axes: Axes, series: Sequence[Series], metric: str) -> str:
    """Draw one metric of all series; which split was held out: "val" or "test"."""
    from matplotlib.ticker import MaxNLocator

    held_out = "val"
    for number, one in enumerate(series):
        rows = [row for run in one.runs for row in run]
        held_out = "val" if any(f"val_{metric}" in row for row in rows) else "test"
        for split, dashes in (("train", DASHES), (held_out, "solid")):
            epochs, means = _mean(one.runs, f"{split}_{metric}")
            axes.plot(
                epochs,
                means,
                color=COLOURS[number % len(COLOURS)],
                linestyle=dashes,
                linewidth=1.0 if split == "train" else 1.5,
                marker=MARKERS[number % len(MARKERS)],
                markevery=max(1, len(epochs) // MARKS),
                markersize=3.0 if split == "train" else 4.0,
                markerfacecolor="white" if split == "train" else None,
            )
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    return held_out


def _mean(runs: Sequence[Sequence[Mapping[str, Any]]], key: str) -> tuple[list[int], list[float]]:
    """Epochs, and the mean over the runs that have them; a gap where it is not finite in one of them."""
    epochs, means = [], []
    for rows in zip_longest(*runs):
        there = [row for row in rows if row is not None and key in row]
        if there:
            values = [math.nan if row[key] is None else row[key] for row in there]
            epochs.append(there[0]["epoch"])
            means.append(sum(values) / len(values))
    return epochs, means


def _legend(figure: Figure, series: Sequence[Series], held_out: str) -> None:
    from matplotlib.lines import Line2D

    models = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=4, label=s.name)
        for i, s in enumerate(series)
    ]
    solid = {"val": "validation", "test": "test"}[held_out]
    kinds = [
        Line2D([], [], color="0.3", linestyle=DASHES, marker="o", markerfacecolor="white", label="training"),
        Line2D([], [], color="0.3", marker="o", markersize=4, label=solid),
    ]
    figure.legend(
        handles=[*models, *kinds], loc="outside lower center", ncols=2, fontsize=7, frameon=False, handlelength=3.5
    )


def _style() -> AbstractContextManager[None]:
    return styled(font_size=8, axes_linewidth=0.6, savefig_dpi=200)


def _save(figure: Figure, stem: Path) -> list[Path]:
    return [save(figure, stem.with_name(f"{stem.name}.{kind}"), dpi=200) for kind in FORMATS]
