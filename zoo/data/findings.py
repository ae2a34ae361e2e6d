"""One thing that is worth knowing about a dataset before hours are spent on it."""

from __future__ import annotations

from typing import Literal

from zoo.base.structs import Struct


class Finding(Struct, frozen=True, kw_only=True):
    """One finding: how bad it is, what kind, one line, how many images or classes, a few of them."""

    level: Literal["error", "warning", "note"]
    kind: str
    message: str
    count: int = 0
    examples: tuple[str, ...] = ()

    def line(self) -> str:
        """The message with its examples."""
        return f"{self.message} ({', '.join(self.examples)})" if self.examples else self.message
