"""The parts of a training's output in a notebook, as plain HTML: no script, no style sheet, nothing from outside.

Their colours suit light and dark pages. What is saved shows where a program cleans the HTML of notebooks that it does
not trust: such programs leave tables, `style` and pictures in `<img>`, but take `<svg>` away.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Collection, Sequence
from typing import Any

from zoo.base.drawing import COLOURS
from zoo.base.headline import headline
from zoo.train.curves_svg import curves_svg

MOST_ROWS = 8
"""Epochs in the table; all are in the curves and in metrics.jsonl."""


def lines(texts: Sequence[str]) -> str:
    """Texts below one another."""
    return f"<div>{'<br>'.join(html.escape(text) for text in texts)}</div>" if texts else ""


def bar(done: int, total: int) -> str:
    """How much is done, as a bar."""
    share = 100 * min(1.0, done / total) if total else 0.0
    return (
        '<div style="width: 400px; height: 8px; margin: 6px 0px; background: rgba(128, 128, 128, 0.3)">'
        f'<div style="width: {share:.1f}%; height: 8px; background: {COLOURS[0]}"></div></div>'
    )


def curves(rows: Sequence[dict[str, Any]], split: str, epochs: int, *, final: bool) -> str:
    """Loss and top-1; while it trains as an element of the page, which does not flicker, at the end as a picture."""
    svg = curves_svg(rows, split, epochs)
    if not final or not svg:
        return svg
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="loss and top-1 by epoch" src="data:image/svg+xml;base64,{data}">'


def epochs_table(rows: Sequence[dict[str, Any]], split: str, best: Collection[int]) -> str:
    """The last epochs, a row each; those with * were the best so far."""
    if not rows:
        return ""
    figure, last = headline(rows[-1]), rows[-1]
    trained = "train top-1" if figure.key == "top1" else "all train labels right"
    titles = (
        *("epoch", "train loss"),
        *([] if _trained(last) is None else [trained]),
        *([f"{split} loss"] if f"{split}_loss" in last else []),  # not in a run that has the training of another one
        *([f"{split} {figure.name}"] if f"{split}_{figure.key}" in last else []),  # not without labels
        *("img/s", ""),
    )
    return _table(titles, rows, split, best)


def _trained(row: dict[str, Any]) -> float | None:
    return row.get("train_top1", row.get("train_subset_accuracy"))


def _table(titles: Sequence[str], rows: Sequence[dict[str, Any]], split: str, best: Collection[int]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{_cells(row, split, row['epoch'] in best)}</tr>" for row in rows[-MOST_ROWS:])
    before = len(rows) - MOST_ROWS
    more = f"the last {MOST_ROWS} of {len(rows):,} epochs" if before > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{lines([more] if more else [])}"


def _cells(row: dict[str, Any], split: str, best: bool) -> str:
    trained, held_out = _trained(row), row.get(f"{split}_{headline(row).key}")
    loss = row.get(f"{split}_loss")
    cells = (
        f"{row['epoch']}",
        f"{row['train_loss']:.4f}",
        *([] if trained is None else [f"{trained:.2%}"]),
        *([] if loss is None else [f"{loss:.4f}"]),
        *([] if held_out is None else [f"{held_out:.2%}"]),
        f"{row['images_per_second']:,.0f}",
        "*" if best else "",
    )
    return "".join(f'<td style="text-align: right">{cell}</td>' for cell in cells)
