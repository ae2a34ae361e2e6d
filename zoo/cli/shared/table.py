"""Plain output of lists: aligned columns, bold on a terminal, JSON. Without a library, so that listing is fast."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from zoo.base.text import printable_line

GAP = "  "
QUIET = "zoo-quiet"
"""The key in click's `Context.meta` under which -q is remembered."""


class Column:
    """A column. On a narrow terminal, `flexible` columns shrink first, then columns are dropped by `drop` (1 first).

    A plain class: to make a named tuple would take `zoo list` as long as reading its rows.
    """

    __slots__ = ("drop", "flexible", "right", "title")

    def __init__(self, title: str, right: bool = False, flexible: bool = False, drop: int = 0) -> None:
        self.title, self.right, self.flexible, self.drop = title, right, flexible, drop


MIN_FLEXIBLE = 16


def on_terminal() -> bool:
    """Whether stdout is a terminal that shows styles (`NO_COLOR` and TERM=dumb switch them off)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width() -> int | None:
    """The width of the terminal; None if stdout is not a terminal, where lines have no limit."""
    if not sys.stdout.isatty():
        return None
    chosen = os.environ.get("COLUMNS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def bold(text: str) -> str:
    """The text in bold on a terminal."""
    return f"\033[1m{text}\033[0m" if on_terminal() else text


def dim(text: str) -> str:
    """The text in a fainter shade on a terminal."""
    return f"\033[2m{text}\033[0m" if on_terminal() else text


def clean(text: str) -> str:
    """The text as one printable line, so that no file or plugin can send control codes to the terminal."""
    if text.isprintable():
        return text
    return printable_line(text)


def emit(lines: Iterable[str]) -> None:
    """Write lines to stdout; a character that its encoding lacks becomes "?"."""
    text = "".join(f"{line}\n" for line in lines)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def emit_json(value: Any) -> None:
    """Write one JSON document to stdout; NaN and infinity become null."""
    import msgspec

    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except UnicodeEncodeError:  # a name that is not UTF-8: escaped, as Python's json reads it back
        import json

        text = json.dumps(_without_nan(msgspec.to_builtins(value)), indent=2)
    if (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8":
        import json

        text = json.dumps(json.loads(text), indent=2)
    emit([text])


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def emit_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], limit: int | None) -> list[str]:
    """Write rows as an aligned table that fits into `limit` characters (None: no limit).

    Returns:
        The titles of the columns that did not fit.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max([len(c.title), *(len(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    shown, dropped = _fit(columns, widths, limit)
    emit([bold(_line(columns, widths, shown, [c.title for c in columns]))])
    emit(_line(columns, widths, shown, row) for row in cells)
    return dropped


def _fit(columns: Sequence[Column], widths: list[int], limit: int | None) -> tuple[list[int], list[str]]:
    """Shrink the flexible columns, then drop columns, until the line fits."""
    shown = list(range(len(columns)))
    order = sorted((i for i in shown if columns[i].drop), key=lambda i: columns[i].drop)
    dropped: list[str] = []
    while limit is not None:
        excess = sum(widths[i] for i in shown) + len(GAP) * (len(shown) - 1) - limit
        flexible = [i for i in shown if columns[i].flexible]
        spare = sum(max(0, widths[i] - MIN_FLEXIBLE) for i in flexible)
        if excess <= spare or not order:
            for i in flexible:
                cut = min(max(0, widths[i] - MIN_FLEXIBLE), max(0, excess))
                widths[i], excess = widths[i] - cut, excess - cut
            break
        leaving = order.pop(0)
        shown.remove(leaving)
        dropped.append(columns[leaving].title.lower())
    return shown, dropped


def _line(columns: Sequence[Column], widths: list[int], shown: list[int], row: Sequence[str]) -> str:
    cells = []
    for i in shown:
        text = row[i] if len(row[i]) <= widths[i] else row[i][: widths[i] - 1].rstrip() + "…"
        cells.append(text.rjust(widths[i]) if columns[i].right else text.ljust(widths[i]))
    return GAP.join(cells).rstrip()


def is_quiet() -> bool:
    """Whether -q was given, before or after the command."""
    import click

    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def say(message: str) -> None:
    """Print a hint on stderr, unless -q was given."""
    if not is_quiet():
        print(message, file=sys.stderr)
