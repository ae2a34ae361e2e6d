"""The check of a dataset as one HTML page with pictures: everything is inside, nothing is fetched.

Names of classes and files come from strangers: they enter as escaped text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.base.files import write_text
from zoo.base.templates import templates
from zoo.base.text import plural, printable
from zoo.base.version import __version__
from zoo.base.web_page import allowed
from zoo.data.findings import DatasetCheck, Finding, Group, Place
from zoo.data.label_sets import label_text, shows
from zoo.data.pixel_findings import split_at
from zoo.data.split import ImageData, is_given
from zoo.data.suspects import LabelNoise, Suspect
from zoo.data.thumbnails import data_uri
from zoo.errors import DataError

ASSETS = Path(__file__).parent / "assets"
MAX_BYTES = 4_000_000
MOST_CLASSES = 1000
SHARES = (1.0, 0.5, 0.25, 0.1, 0.0)
"""Of the pictures that a page has: fewer, where they do not fit."""


@dataclass(frozen=True)
class Most:
    """How many pictures a page has at most: groups of a finding, suspects, images of a class, classes with images."""

    groups: int = 12
    suspects: int = 96
    of_class: int = 8
    classes: int = 60

    def less(self, share: float) -> Most:
        """A share of them."""
        return Most(*(int(share * number) for number in (self.groups, self.suspects, self.of_class, self.classes)))


def write_page(path: Path, check: DatasetCheck, data: ImageData, noise: LabelNoise | None = None) -> None:
    """Write the page, below `MAX_BYTES`.

    Args:
        data: the images that the findings of `check` name.
    Raises:
        WriteError: it cannot be written.
    """
    for share in SHARES:
        page = render(check, data, noise, Most().less(share))
        if len(page.encode()) < MAX_BYTES:
            break
    write_text(path, page)


def render(check: DatasetCheck, data: ImageData, noise: LabelNoise | None, most: Most) -> str:
    """The page as HTML."""
    pictures = _Pictures(check, data)
    style = (ASSETS / "check.css").read_text("utf-8")
    sides = {"train": check.train, "test": check.test}
    more = len(check.classes) - MOST_CLASSES
    page: str = (
        templates(ASSETS)
        .get_template("check.html")
        .render(
            check=check,
            version=__version__,
            style=style,
            policy=f"default-src 'none'; img-src data:; style-src {allowed(style)}; base-uri 'none'",
            lead=printable(check.lines()[0]),
            verdict="It can be trained on." if check.usable else "It cannot be trained on as it is.",
            findings=[_shown(finding, pictures, most) for finding in check.findings],
            suspects=[_suspect(one) for one in noise.suspects[: most.suspects]] if noise else [],
            judged=noise.finding().message if noise else "",
            sides=list(sides),
            classes=list(_classes(check, sides, pictures, most)),
            more_classes=f"... and {plural(more, 'more class', 'more classes')}" if more > 0 else "",
        )
    )
    return page


class _Pictures:
    """Images of a dataset as the page shows them."""

    def __init__(self, check: DatasetCheck, data: ImageData) -> None:
        self.check, self.classes, self.data = check, data.classes, data

    def of(self, place: Place) -> dict[str, str]:
        """An image by its split and row, with its class and its name."""
        side, row = place
        split = split_at(self.data, side)
        label = label_text(split.labels[row], self.classes)
        name = self.check.sources.get(place, f"{side} {row}")
        try:
            uri = data_uri(split.images[row])
        except DataError:  # a file that cannot be read, or has gone meanwhile
            uri = ""
        return _picture(uri, label, f"{name} ({side})")

    def of_class(self, label: int, count: int) -> Iterator[dict[str, str]]:
        """Some training images of a class, evenly from all of them."""
        rows = np.flatnonzero(shows(self.data.train.labels, label) & ~is_given(self.data.train))
        chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]
        return (self.of(("train", row)) for row in chosen.tolist())


def _picture(uri: str, label: str, name: str) -> dict[str, str]:
    return {"uri": uri, "label": printable(label), "name": printable(name), "alt": printable(f"{label}: {name}")}


def _shown(finding: Finding, pictures: _Pictures, most: Most) -> dict[str, Any]:
    listed: list[Group] = [group[:4] for group in finding.images[: most.groups]]
    groups = [[image for place in group if (image := pictures.of(place))["uri"]] for group in listed]
    shown = len(groups) or len(finding.examples)
    more = finding.count - shown
    return {
        "level": finding.level,
        "kind": finding.kind,
        "count": finding.count,
        "message": printable(finding.message),
        "examples": [printable(example) for example in finding.examples],
        "groups": groups,
        "more": f"... and {plural(more, 'more', 'more')}" if shown and more > 0 else "",
    }


def _suspect(one: Suspect) -> dict[str, str]:
    label = f"{one.given} {one.given_probability:.0%}, perhaps {one.suggested} {one.probability:.0%}"
    return _picture(data_uri(one.read()), label, f"{one.source} ({one.split})")


def _classes(
    check: DatasetCheck, sides: dict[str, tuple[int, ...]], pictures: _Pictures, most: Most
) -> Iterator[dict[str, Any]]:
    for label, name in enumerate(check.classes[:MOST_CLASSES]):
        images = list(pictures.of_class(label, most.of_class)) if label < most.classes else []
        yield {"name": printable(name), "counts": [counts[label] for counts in sides.values()], "images": images}
