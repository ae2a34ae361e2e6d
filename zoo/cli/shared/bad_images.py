"""Images that cannot be read, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from zoo.base.text import plural
from zoo.errors import BadImagesError

MOST_OF_A_KIND = 5


def some_of_each_kind(error: BadImagesError) -> Iterator[str]:
    """At most five lines about images with the same problem, and how many more there are."""
    for kind, lines in error.by_kind().items():
        yield from lines[:MOST_OF_A_KIND]
        if len(lines) > MOST_OF_A_KIND:
            yield f"... {plural(len(lines) - MOST_OF_A_KIND, 'more image')}: {kind}; --json lists each"
