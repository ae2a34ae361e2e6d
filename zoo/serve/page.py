"""The page as one answer: its script and style stand in it, and its policy allows these alone, by their hashes."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, NamedTuple

from zoo.base.version import __version__
from zoo.base.web_page import allowed, filled
from zoo.serve.body import FORMATS
from zoo.serve.limits import Limits

ASSETS = Path(__file__).parent / "assets"


class Page(NamedTuple):
    """What GET / answers: the document, and its Content-Security-Policy."""

    html: str
    policy: str


def make_page(facts: dict[str, Any], limits: Limits) -> Page:
    """The page of one model."""
    script, style = (_asset(name) for name in ("page.js", "page.css"))
    values = {
        "title": html.escape(f"{facts['model']} on {facts['dataset']}"),
        "lead": html.escape(
            f"{facts['classes']} classes; images are scaled to {facts['width']}x{facts['height']}."
        ),
        "limits": html.escape(f"{', '.join(FORMATS[:5])} and more, up to {limits.body >> 20} MiB each."),
        "most": str(limits.body),
        "version": html.escape(__version__),
        "css": style,
        "script": script,
    }
    policy = (
        f"default-src 'none'; script-src {allowed(script)}; style-src {allowed(style)}; "
        "img-src blob: data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return Page(filled(_asset("page.html"), values), policy)


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")
