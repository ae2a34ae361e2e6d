"""What the theme's and Sphinx's HTML lacks for screen readers and keyboards, added when the pages are written."""

from __future__ import annotations

import re

CAPTION = '<p class="caption" role="heading">'
SIGNATURE = re.compile(r"\n<dl>\n((?:<dd>.*</dd>\n)+)</dl>\n")
"""Parameters of a long signature, one in a line: a list of definitions without terms."""


def setup(app):
    """Change each page after the theme has made its parts."""
    app.connect("html-page-context", mend, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def mend(app, pagename, templatename, context, doctree) -> None:
    """Levels for the headings of the navigation, and lines in place of definitions without terms."""
    del app, pagename, templatename, doctree
    if tree := context.get("furo_navigation_tree"):
        context["furo_navigation_tree"] = with_levels(tree)
    if body := context.get("body"):
        context["body"] = SIGNATURE.sub(_lines, with_levels(body))


def with_levels(text: str) -> str:
    """HTML whose captions say at which level they are headings."""
    return text.replace(CAPTION, CAPTION.replace('"heading"', '"heading" aria-level="2"'))


def _lines(found: re.Match[str]) -> str:
    return found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
