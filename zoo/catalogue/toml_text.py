"""A model as TOML that people read and change: one inline table, on several lines where a list holds components."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

BARE = re.compile(r"[A-Za-z0-9_-]+")


def inline(value: Any, margin: str = "") -> str:
    """A value in TOML.

    Args:
        value: what TOML can hold. margin: what the lines of a list of tables begin with.
    """
    if isinstance(value, Mapping):
        return f"{{ {', '.join(pair(key, v, margin) for key, v in value.items())} }}" if value else "{}"
    if isinstance(value, list | tuple):
        if not any(isinstance(v, Mapping) for v in value):
            return f"[{', '.join(inline(v, margin) for v in value)}]"
        lines = "".join(f"{margin}  {inline(v, f'{margin}  ')},\n" for v in value)
        return f"[\n{lines}{margin}]"
    return _scalar(value)


def pair(key: str, value: Any, margin: str = "") -> str:
    """`key = value` in TOML."""
    return f"{key_of(key)} = {inline(value, margin)}"


def key_of(key: str) -> str:
    """A key in TOML, in quotes where it needs them."""
    return key if BARE.fullmatch(key) else _scalar(key)


def _scalar(value: Any) -> str:
    import tomli_w

    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")
