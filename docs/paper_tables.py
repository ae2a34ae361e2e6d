"""The tables of docs/papers.md, as `zoo reproduce SOURCE` has them: one for each source.

    python docs/paper_tables.py

writes each between its marks, `<!-- source: NAME -->` and `<!-- end -->`, from registry.toml and results/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.base.files import write_text
from zoo.catalogue.registry import load_registry
from zoo.studies.reproduce.paper_table import paper_rows
from zoo.studies.reproduce.rows import Ask

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "papers.md"
MARKED = re.compile(r"(<!-- source: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = (
    "| Model | Dataset | Published | Ours | Difference | By | Seeds | Spread | Standing | Images "
    "| Device | Commit | Note |",
    "|---|---|---:|---:|---:|---|---:|---:|---|---|---|---|---|",
)


def with_tables(text: str) -> str:
    """The page with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{table(found['name'])}{found[3]}", text)


def table(source: str) -> str:
    """The table of a source in Markdown."""
    rows = paper_rows(Ask(target=source), load_registry(), ROOT / "results")
    return "\n".join([*HEAD, *(f"| {' | '.join(_cells(row))} |" for row in rows), ""])


def _cells(row: dict[str, Any]) -> list[str]:
    shown = {**row, "seeds": row["seeds"] or ""}
    for key, form in (("published_top1", ".2%"), ("top1", ".2%")):
        shown[key] = "" if row[key] is None else format(row[key], form)
    for key, sign in (("difference", "+"), ("spread", "")):
        shown[key] = "" if row[key] is None else format(row[key] * 100, f"{sign}.2f")
    keys = ("model", "dataset", "published_top1", "top1", "difference", "by", "seeds", "spread", "standing")
    return [str(shown[key]) for key in (*keys, "images", "device", "commit", "note")]


if __name__ == "__main__":
    write_text(PAGE, with_tables(PAGE.read_text("utf-8")))
