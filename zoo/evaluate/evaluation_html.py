"""An evaluation as notebooks show it: tables in plain HTML, whose colours suit light and dark pages."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.base.tables import Table
from zoo.base.text import plural
from zoo.evaluate.classes import mistakes

MOST_CELLS = 30
"""With more classes than this, only the most frequent mistakes of the confusion matrix are shown."""

MOST_PAIRS = 15
MOST_NAME = 20


def evaluation_html(document: Mapping[str, Any], lines: Sequence[str], robustness: Table | None) -> str:
    """The lines, and a table for each part of the document."""
    split, blocks = document["split"], [f"<p>{html.escape(line)}</p>" for line in lines]
    if "classes" in document:
        blocks.append(_titled(f"Classes ({split})", _classes(document["classes"]["rows"])))
    if "confusion" in document:
        names, counts = document["confusion"]["classes"], document["confusion"]["counts"]
        blocks.append(_titled(f"Confusion ({split})", confusion_html(names, counts)))
    if "calibration" in document:
        scores = document["calibration"]
        title = f"Calibration: ECE {scores['ece']:.2%}, MCE {scores['mce']:.2%}, Brier {scores['brier']:.4f}"
        blocks.append(_titled(title, Table([row for row in scores["bins"] if row["count"]])._repr_html_()))
    if "latency" in document:
        title = f"Latency: {document['latency']['hardware']}"
        blocks.append(_titled(title, Table(document["latency"]["rows"])._repr_html_()))
    if robustness is not None:
        scores = document["robustness"]
        title = f"Robustness: top-1 {scores['clean']:.2%} of {plural(scores['images'], 'image')} as they are"
        blocks.append(_titled(f"{title}, {scores['mean']:.2%} corrupted", robustness._repr_html_()))
    return f"<div>{''.join(blocks)}</div>"


def _classes(rows: list[dict[str, Any]]) -> str:
    shares = [key for key in ("average_precision", "precision", "recall", "f1") if rows and key in rows[0]]
    return Table([{**row, **{key: f"{row[key]:.2%}" for key in shares}} for row in rows])._repr_html_()


def confusion_html(names: list[str], counts: list[list[int]]) -> str:
    """The confusion matrix, each cell shaded by its share of the row; of many classes, the most frequent mistakes."""
    if len(names) > MOST_CELLS:
        wrong = mistakes(names, counts)
        rows = [{**row, "share": f"{row['share']:.1%}"} for row in wrong[:MOST_PAIRS]]
        more = f"<p>{plural(len(names), 'class')}: the most frequent of {plural(len(wrong), 'kind')} of mistakes</p>"
        return more + Table(rows, wrong.columns)._repr_html_()
    shown = [html.escape(name[:MOST_NAME]) for name in names]
    head = "".join(f"<th>{name}</th>" for name in shown)
    body = "".join(
        f'<tr><th style="text-align: left">{name}</th>{_cells(row)}</tr>'
        for name, row in zip(shown, counts, strict=True)
    )
    return f"<table><thead><tr><th>true \\ predicted</th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: list[int]) -> str:
    whole = sum(row) or 1
    return "".join(f'<td style="text-align: right; {_shade(n / whole)}">{n or ""}</td>' for n in row)


def _shade(share: float) -> str:
    """The page's own ground shines through a weak colour, whose text therefore has the page's own colour."""
    return f"background: rgba(8, 81, 156, {share:.2f}); color: {'white' if share > 0.75 else 'inherit'}"


def _titled(title: str, table: str) -> str:
    return f"<p><b>{html.escape(title)}</b></p>{table}"
