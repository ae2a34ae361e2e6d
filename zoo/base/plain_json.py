"""JSON that every reader takes: JSON has no NaN and no infinity, so that these are null."""

from __future__ import annotations

import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """The value with None in the place of every float that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


def json_text(value: Any, indent: int | None = None) -> str:
    """`json.dumps` of what is finite of a value."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)
