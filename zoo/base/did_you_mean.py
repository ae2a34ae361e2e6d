"""The names that somebody may have meant who misspelled one."""

from __future__ import annotations

from collections.abc import Collection


def nearest(name: str, known: Collection[str], most: int = 3, likeness: float = 0.5) -> list[str]:
    """At most `most` of the known names that are alike, the nearest first.

    Args:
        likeness: the least share of letters in common, 0..1.
    """
    import difflib  # only here: listing must not pay for it

    return difflib.get_close_matches(name, known, n=most, cutoff=likeness)


def did_you_mean(name: str, known: Collection[str], most: int = 3, likeness: float = 0.5) -> str:
    """ "did you mean resnet18, resnet9?"; "" where no known name is alike."""
    near = nearest(name, known, most, likeness)
    return f"did you mean {', '.join(near)}?" if near else ""
