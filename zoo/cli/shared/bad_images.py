"""Images that cannot be read, as lines for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from zoo.base.text import plural

MOST_OF_A_KIND = 5


def some_of_each_kind(problems: Sequence[str]) -> Iterator[str]:
    """At most five lines about images with the same problem, and how many more there are."""
    from zoo.data.files.decode import BEGINS

    kinds: dict[str, list[str]] = {}
    for problem in problems:
        alike = re.sub(r"0x[0-9a-f]+", "", problem.partition(f"; {BEGINS}")[0])
        kinds.setdefault(alike.rpartition(": ")[2], []).append(problem)
    for kind, lines in kinds.items():
        yield from lines[:MOST_OF_A_KIND]
        if len(lines) > MOST_OF_A_KIND:
            yield f"... {plural(len(lines) - MOST_OF_A_KIND, 'more image')}: {kind}; --json lists each"
