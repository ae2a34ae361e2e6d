"""What the images of a dataset are called where they are listed: their files, or rows of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from zoo.base.paths import local_path
from zoo.data.findings import Finding, Place
from zoo.data.label_sets import label_text
from zoo.data.pixel_findings import side_at, split_at, splits_of
from zoo.data.split import ImageData


class Names:
    """What the images of a dataset are called: their files, or rows of files, below the dataset's own folder."""

    def __init__(self, data: ImageData) -> None:
        path = local_path(data.dataset.source.partition(":")[2].partition("?")[0])
        self._roots = (f"{path.resolve()}/", f"{path}/")
        self._data = data
        self._known: dict[str, list[str]] = {}

    def of(self, place: Place) -> str:
        """The name of one image."""
        return self.short(self.full(place))

    def full(self, place: Place) -> str:
        """The name with its whole path."""
        side, row = place
        if side not in self._known:
            self._known[side] = split_at(self._data, side).origins()
        return self._known[side][row]

    def short(self, name: str) -> str:
        """A name without the dataset's folder, or as it is."""
        for root in self._roots:
            name = name.removeprefix(root)
        return name

    def places(self) -> dict[str, Place]:
        """Where each image is, by its full name."""
        every = ((side, row) for side, split in splits_of(self._data).items() for row in range(len(split)))
        return {self.full((side, row)): (side_at(self._data, side, row), row) for side, row in every}


def named(findings: Sequence[Finding], data: ImageData, names: Names) -> Iterator[Finding]:
    """The findings whose examples are images, by the names of these; with their classes where they differ."""

    def told(place: Place, with_class: bool) -> str:
        side, row = place
        name = names.of(place)
        return f"{name} ({label_text(split_at(data, side).labels[row], data.classes)})" if with_class else name

    for finding in findings:
        if not finding.images or finding.kind in ("odd-size", "odd-shape"):
            examples = tuple(names.short(example) for example in finding.examples)
        else:
            torn = "conflict" in finding.kind
            examples = tuple(" = ".join(told(place, torn) for place in group) for group in finding.images[:5])
        yield msgspec.structs.replace(finding, examples=examples)
