"""Curves of a training that is running, as a small SVG picture, which takes a millisecond and no matplotlib.

What is kept of a run is drawn by `zoo.runs.curves`; this one looks alike: trained on dashed, held out solid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.base.drawing import COLOURS
from zoo.base.headline import headline

WIDTH, HEIGHT = 300, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 22, 22
"""Margins of a panel, in pixels: for its numbers and its title."""

MOST_POINTS = 200
GREY = "#808080"
"""Of text and frames: it can be read on white and on the dark grounds of notebooks."""

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Scale:
    """Where a panel draws: epochs 1 to `last` from left to right, values `low` to `high` from below."""

    last: int
    low: float
    high: float
    step: float

    def across(self, epoch: float) -> float:
        """Pixels from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / max(1, self.last - 1)

    def down(self, value: float) -> float:
        """Pixels from above."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)

    def marks(self) -> list[float]:
        """The values that have a line and a number."""
        return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]


def curves_svg(rows: Sequence[dict[str, Any]], split: str, epochs: int) -> str:
    """Draw loss and top-1 over the epochs.

    Args:
        rows: of the epochs, as in metrics.jsonl; values that are not finite leave a gap.
        split: "val" or "test", the images beside those that are trained on. epochs: where the x axis ends.
    Returns:
        An `<svg>` element; "" without rows.
    """
    if not rows:
        return ""
    every = math.ceil(len(rows) / MOST_POINTS)
    shown = [row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1]
    last, figure = max(epochs, int(rows[-1]["epoch"])), headline(rows[-1])
    known = f"{split}_{figure.key}" in rows[-1]  # not of a run without labels
    parts = (("loss", "loss"), *([(figure.name, figure.key)] if known else []))
    width = WIDTH * len(parts)
    panels = "".join(
        f'<g transform="translate({i * WIDTH},0)">{_panel(shown, title, key, split, last)}</g>'
        for i, (title, key) in enumerate(parts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" '
        f'font-family="sans-serif" font-size="10" fill="{GREY}">{panels}</svg>'
    )


def _panel(rows: Sequence[dict[str, Any]], title: str, key: str, split: str, last: int) -> str:
    columns = [[_point(row, f"{part}_{key}") for row in rows] for part in ("train", split)]
    scale = scale_of([value for column in columns for _, value in column if value is not None], last)
    held_out = {"val": "validation", "test": "test"}[split]
    parts = [f'<text x="{LEFT}" y="12">{title}: training dashed, {held_out} solid</text>']
    for mark in scale.marks():
        y, text = scale.down(mark), f"{mark:.6g}" if key == "loss" else f"{100 * mark:.6g}%"
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-opacity="0.3"/>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">epoch 1</text>')
    if last > 1:
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{last}</text>')
    return "".join(parts) + _curve(columns[0], scale, solid=False) + _curve(columns[1], scale, solid=True)


def _point(row: dict[str, Any], key: str) -> Point:
    value = row.get(key)
    return row["epoch"], value if value is not None and math.isfinite(value) else None


def scale_of(values: Sequence[float], last: int) -> Scale:
    """A scale of three to six round marks that holds all values."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-6 * abs(high):  # one value: it lies on the upper edge, where an accuracy of 1 belongs
        low, high = (low - 0.1 * high, high) if high > 0 else (low, high + 1.0)
    size = 10 ** math.floor(math.log10(high - low))
    step = next(part * size for part in (0.2, 0.5, 1, 2, 5) if (high - low) / (part * size) <= 4.5)
    return Scale(last, step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9), step)


def _curve(points: Sequence[Point], scale: Scale, *, solid: bool) -> str:
    """A line, broken where there is no value; a value that stands alone is a dot."""
    strokes: list[list[str]] = [[]]
    for epoch, value in points:
        if value is None:
            strokes.append([])
        else:
            strokes[-1].append(f"{scale.across(epoch):.1f} {scale.down(value):.1f}")
    drawn = "M".join("L".join(stroke if len(stroke) > 1 else stroke * 2) for stroke in strokes if stroke)
    if not drawn:
        return ""
    look = 'stroke-width="2"' if solid else 'stroke-width="1.2" stroke-dasharray="4 3"'
    dots = "" if len(points) > 1 or not solid else 'stroke-linecap="round" '
    return f'<path d="M{drawn}" fill="none" stroke="{COLOURS[0]}" {dots}{look}/>'
