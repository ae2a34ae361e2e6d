"""Which models of a catalogue were asked for."""

from __future__ import annotations

from collections.abc import Collection


class Choice:
    """A glob (or a part of the name, where it has no wildcard), and what else must hold; "" is anything.

    A plain class: to make a dataclass or a named tuple would take a hundredth of `zoo list`.
    """

    __slots__ = ("dataset", "family", "pattern", "tag")

    def __init__(self, pattern: str = "*", family: str = "", tag: str = "", dataset: str = "") -> None:
        self.pattern, self.family, self.tag, self.dataset = pattern, family, tag, dataset

    def allows(self, name: str, family: str, tags: Collection[str], datasets: Collection[str]) -> bool:
        """Whether a model is among those asked for."""
        return (
            self._names(name)
            and self.family in ("", family)
            and (not self.tag or self.tag in tags)
            and (not self.dataset or self.dataset in datasets)
        )

    def _names(self, name: str) -> bool:
        if self.pattern == "*":
            return True
        if not any(c in self.pattern for c in "*?["):
            return self.pattern in name
        from fnmatch import fnmatchcase  # only here: listing everything needs none

        return fnmatchcase(name, self.pattern)
