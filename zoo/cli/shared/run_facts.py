"""Facts of runs as people read them in tables."""

from __future__ import annotations

from typing import Any


def told(group: str, key: str, value: Any) -> str:
    """A fact of a comparison: measured values with as many digits as mean something."""
    from zoo.runs.compare import told

    return told(group, key, value)


def short(count: int) -> str:
    """A count with two decimals and k, M, G or T."""
    from zoo.runs.find import short

    return short(count)
