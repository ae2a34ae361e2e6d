"""What an evaluation leaves in a folder: predictions as a table, and pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo.base.drawing import COLOURS, plain_text, save, styled
from zoo.base.text import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MAX_SHOWN_CLASSES = 30
"""A confusion matrix of more classes has no names and no numbers in its cells."""


def draw_reliability(path: Path, title: str, measured: dict[str, Any]) -> None:
    """Draw accuracy over confidence as bars, the gap to the diagonal, and how many images each bin has.

    Args:
        measured: what `zoo.evaluate.calibration.calibration` gave.
    """
    with _figure(path, (4.6, 5.2)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        bins = [row for row in measured["bins"] if row["count"]]
        width = measured["bins"][0]["high"] - measured["bins"][0]["low"]
        places = [row["low"] + width / 2 for row in bins]
        means = [(row["accuracy"], row["confidence"]) for row in bins]
        upper.bar(places, [a for a, _ in means], width, color=COLOURS[0], edgecolor="white", label="accuracy")
        upper.bar(
            places,
            [c - a for a, c in means],
            width,
            [a for a, _ in means],
            color=(0, 0, 0, 0),
            edgecolor=COLOURS[1],
            hatch="///",
            linewidth=0.8,
            label="gap to the mean confidence",
        )
        upper.plot([0, 1], [0, 1], color="0.3", linestyle=(0, (4, 2)), linewidth=1, label="calibrated")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        images = sum(row["count"] for row in bins)
        sums = f"ECE {measured['ece']:.2%} of {plural(images, 'image')}, {plural(len(measured['bins']), 'bin')}"
        figure.suptitle(f"{title}\n{sums}", fontsize=9, wrap=True)
        upper.legend(frameon=False, fontsize=8, loc="upper left")
        lower.bar(places, [row["count"] for row in bins], width, color="0.6", edgecolor="white")
        lower.set(xlabel="confidence", ylabel="images")
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)


def draw_robustness(path: Path, title: str, measured: dict[str, Any]) -> None:
    """Draw top-1 of each corruption (rows) at each severity (columns) as shade and number."""
    rows, severities = measured["rows"], measured["severities"]
    with _figure(path, (max(4.4, 2.2 + 0.6 * len(severities)), 1.5 + 0.3 * len(rows))) as figure:
        axes = figure.subplots()
        cells = [row["top1"] for row in rows]
        top = max([measured["clean"], *(value for row in cells for value in row)], default=0) or 1.0
        axes.imshow(cells, cmap="viridis", vmin=0, vmax=top, aspect="auto")
        axes.set_xticks(range(len(severities)), [str(severity) for severity in severities])
        axes.set_yticks(range(len(rows)), [row["corruption"].replace("_", " ") for row in rows])
        axes.set_xlabel("severity")
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                shade = "black" if value > 0.6 * top else "white"
                axes.text(x, y, f"{100 * value:.1f}", ha="center", va="center", color=shade, fontsize=8)
        sums = f"top-1 (%) of {measured['images']:,} images: clean {100 * measured['clean']:.1f}, corrupted"
        figure.suptitle(f"{title}\n{sums} {100 * measured['mean']:.1f}", fontsize=9, wrap=True)


@contextlib.contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure that is written as a PNG when the block ends well."""
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained", dpi=150)
        yield figure
        save(figure, path)


def draw_confusion(path: Path, counts: Tensor, classes: tuple[str, ...], title: str = "") -> None:
    """Draw the confusion matrix: rows are true classes, shares of each row as shade, images as number."""
    many = len(classes) > MAX_SHOWN_CLASSES
    side = 6.0 if many else min(14.0, 2.5 + 0.55 * len(classes))
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(plain_text(title), fontsize=9)
        if not many:
            _label_cells(axes, counts, shares, [plain_text(name)[:20] or "?" for name in classes])
        save(figure, path)


def _label_cells(axes: Any, counts: Tensor, shares: Any, names: list[str]) -> None:
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    for row in range(len(names)):
        for column in range(len(names)):
            if count := int(counts[row, column]):
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=8)
