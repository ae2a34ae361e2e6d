"""Warnings that are not the user's to follow, such as advice to install widgets, left out for a while."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def without_advice() -> Iterator[None]:
    """Import inside: tqdm, which the Hub's client brings, warns in notebooks that have no ipywidgets."""
    with ignoring(message="IProgress not found"):
        yield


@contextmanager
def ignoring(message: str = "", module: str = "") -> Iterator[None]:
    """Inside, warnings are left out whose message and module begin with these patterns.

    `warnings.catch_warnings` puts back all filters as they were: two threads that overlap would leave one's filters to
    the whole program, for good.
    """
    patterns = [re.compile(text, flag) if text else None for text, flag in ((message, re.IGNORECASE), (module, 0))]
    own = ("ignore", patterns[0], Warning, patterns[1], 0)
    kept: Any = warnings.filters
    kept.insert(0, own)
    try:
        yield
    finally:
        now: Any = warnings.filters
        for filters in (kept,) if now is kept else (kept, now):
            with suppress(ValueError):
                filters.remove(own)  # in one step, as another thread may put one before it; equal ones are alike
