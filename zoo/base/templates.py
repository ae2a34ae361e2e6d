"""Templates of Jinja2: the one place where it is set up, so that pages, cards and scaffold keep the same rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(*folders: Path, finalize: Callable[[Any], str] | None = None) -> Environment:
    """The templates in some folders; a name that stands in several is taken from the first of them.

    A name that a template uses and is not given is an error (`jinja2.UndefinedError`). Values in a
    template `*.html` are escaped, unless the template marks them `safe`.

    Args:
        finalize: turns each value that a template prints into text; escapes what is not HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=select_autoescape(("html",)),
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
