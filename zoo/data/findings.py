"""What is worth knowing about a dataset before hours are spent on it: one finding, and all that a check saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.base.structs import Struct
from zoo.base.text import plural, printable

LEVELS = ("error", "warning", "note")

MOST_LISTED = 1000
"""Images, or groups of images, that a finding lists; it counts all."""

Place = tuple[str, int]
"""One image: its split ("train", "validation" or "test") and its row there; validation images that came with a dataset
are rows of the loaded training split."""

Group = tuple[Place, ...]
"""Images that belong together, such as two that are equal."""


class Finding(Struct, frozen=True, kw_only=True):
    """One finding: how bad it is, what kind, one line, how many images or classes, a few of them.

    Attributes:
        examples: the first five. images: what it was found in, at most `MOST_LISTED` groups of images.
    """

    level: Literal["error", "warning", "note"]
    kind: str
    message: str
    count: int = 0
    examples: tuple[str, ...] = ()
    images: tuple[Group, ...] = ()

    def line(self) -> str:
        """The message with its examples."""
        return f"{self.message} ({', '.join(self.examples)})" if self.examples else self.message

    def lines(self) -> list[str]:
        """The message after its level, and each example on a line of its own, with how many more there are."""
        more = self.count - len(self.examples)
        rest = [f"    ... {plural(more, 'more', 'more')}"] if self.examples and more > 0 else []
        return [f"{self.level}: {self.message}", *(f"    {example}" for example in self.examples), *rest]


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; those of a level as they were."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


@dataclass(frozen=True, repr=False)
class DatasetCheck:
    """What `zoo.check_dataset` saw in a dataset.

    Attributes:
        name: its short name. spec: as it was given. fingerprint: changes with images, labels and class names.
        size: height and width of the images in pixels. classes: their names, in label order.
        train, test: numbers of images per class, in label order.
        skipped: unreadable images left out. ignored: files that were no images.
        findings: the errors first, then the warnings, then the notes.
        validation: numbers of validation images per class that came with the dataset; empty where there are none.
        unreadable: a line for each image that cannot be read.
        label_noise: labels that are probably wrong, as plain data, if they were looked for.
        sources: the files (or rows of files) of the images that findings list.
        images: number of images of each split that there is: "train", "validation", "test". An image with several
            labels is counted once here, and in each of its classes above.
    """

    name: str
    spec: str
    fingerprint: str
    size: tuple[int, ...]
    classes: tuple[str, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    skipped: int
    ignored: int
    findings: tuple[Finding, ...]
    validation: tuple[int, ...] = ()
    unreadable: tuple[str, ...] = ()
    label_noise: dict[str, Any] | None = None
    sources: Mapping[Place, str] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether it can be trained on: no finding is an error."""
        return not any(finding.level == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """What `zoo datasets check --json` prints."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        del plain["sources"]
        return plain | {"findings": [self._plain(finding) for finding in self.findings]}

    def _plain(self, finding: Finding) -> dict[str, Any]:
        groups = [
            [{"split": side, "row": row, "source": self.sources.get((side, row), "")} for side, row in group]
            for group in finding.images
        ]
        told = {"level": finding.level, "kind": finding.kind, "message": finding.message, "count": finding.count}
        return {**told, "examples": list(finding.examples), "images": groups}

    def lines(self) -> list[str]:
        """The counts, the fingerprint, and the findings: a line for each, and one for each of its examples."""
        height, width = self.size or (0, 0)
        said = [line for finding in self.findings for line in finding.lines()]
        return [
            f"{self.name}: {self._training()} and {plural(self._count('test'), 'test image')}, "
            f"{width}x{height}, {plural(len(self.classes), 'class')}",
            f"images per class: {_range(self.train)} in train, {_range(self.test)} in test",
            f"fingerprint {self.fingerprint}",
            *(said or ["no problems found"]),
        ]

    def _training(self) -> str:
        """How many images train, and how many validate."""
        trains = f"{self._count('train'):,} train"
        return f"{trains}, {self._count('validation'):,} validation" if self.validation else trains

    def _count(self, side: str) -> int:
        """How many images a split has."""
        return self.images[side] if side in self.images else sum(getattr(self, side))

    def __repr__(self) -> str:
        """The lines."""
        return printable("\n".join(self.lines()))

    def _repr_html_(self) -> str:
        """The lines as notebooks show them."""
        import html

        return f"<pre>{html.escape(repr(self))}</pre>"


def _range(counts: tuple[int, ...]) -> str:
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
