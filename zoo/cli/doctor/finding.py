"""A finding: the result of one check of `zoo doctor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "error"]
Area = Literal["versions", "devices", "folders", "plugins", "data", "hub", "runs", "settings"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        level: "ok", "note" (nothing is wrong), "warning" (something does not work, the rest does), "error"
            (work stops).
        said: one line for people. fix: how to fix it; "" if nothing is wrong.
        data: the same facts for programs.
    """

    area: Area
    what: str
    level: Level
    said: str
    fix: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def size(count: float) -> str:
    """A number of bytes as text: "3.2 GB"."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} bytes"
