"""Importing libraries that advise to install widgets, in a notebook where nobody asked for their bars."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_advice() -> Iterator[None]:
    """Import inside: tqdm, which the Hub's client brings, warns in notebooks that have no ipywidgets."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield
