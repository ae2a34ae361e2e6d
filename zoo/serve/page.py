"""The page as one answer: its script and style stand in it, and its policy allows these alone, by their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from zoo.base.templates import templates
from zoo.base.text import plural
from zoo.base.version import __version__
from zoo.base.web_page import allowed
from zoo.data.files.formats import FORMATS
from zoo.serve.limits import Limits

ASSETS = Path(__file__).parent / "assets"


class Page(NamedTuple):
    """What GET / answers: the document, and its Content-Security-Policy."""

    html: str
    policy: str


def asset(name: str) -> str:
    """A script or a style of the page; `page.js` shows what the function `ask(file)` answers, whoever answers it."""
    return (ASSETS / name).read_text("utf-8")


def alone(*scripts: str) -> str:
    """Scripts as one that leaves no names behind."""
    return "\n".join(["(() => {", "'use strict';", *(script.rstrip("\n") for script in scripts), "})();", ""])


def make_page(facts: dict[str, Any], limits: Limits) -> Page:
    """The page of one model."""
    pages = templates(ASSETS)
    script, style = alone(asset("ask.js"), asset("page.js")), asset("page.css")
    policy = (
        f"default-src 'none'; script-src {allowed(script)}; style-src {allowed(style)}; "
        "img-src blob: data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    document = pages.get_template("page.html").render(
        facts=facts, limits=limits, formats=FORMATS[:5], version=__version__, style=style, script=script, plural=plural
    )
    return Page(document, policy)
