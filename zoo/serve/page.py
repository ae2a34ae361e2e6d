"""The page as one answer: its script and style stand in it, and its policy allows these alone, by their hashes."""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path
from typing import Any, NamedTuple

from zoo.serve.body import FORMATS
from zoo.serve.limits import Limits
from zoo.version import __version__

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
        f"default-src 'none'; script-src 'sha256-{_sha256(script)}'; style-src 'sha256-{_sha256(style)}'; "
        "img-src blob: data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return Page(_filled(_asset("page.html"), values), policy)


def _filled(template: str, values: dict[str, str]) -> str:
    """Put values in the place of {{name}}, in one pass: what a value holds is not looked at again."""
    parts = template.split("{{")
    return parts[0] + "".join(
        values[name] + rest for name, _, rest in (part.partition("}}") for part in parts[1:])
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
