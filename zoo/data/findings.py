"""What is worth knowing about a dataset before hours are spent on it: one finding, and all that a check saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from zoo.base.structs import Struct
from zoo.base.text import plural, printable


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

    @property
    def usable(self) -> bool:
        """Whether it can be trained on: no finding is an error."""
        return not any(finding.level == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """What `zoo datasets check --json` prints."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        findings = [
            {"level": f.level, "kind": f.kind, "message": f.message, "count": f.count, "examples": list(f.examples)}
            for f in self.findings
        ]
        return plain | {"findings": findings}

    def lines(self) -> list[str]:
        """The counts, the fingerprint and the findings, a line each."""
        height, width = self.size or (0, 0)
        said = [f"{finding.level}: {finding.line()}" for finding in self.findings]
        return [
            f"{self.name}: {self._training()} and {plural(sum(self.test), 'test image')}, "
            f"{width}x{height}, {plural(len(self.classes), 'class')}",
            f"fingerprint {self.fingerprint}",
            *(said or ["no problems found"]),
        ]

    def _training(self) -> str:
        """How many images train, and how many validate."""
        trains = f"{sum(self.train):,} train"
        return f"{trains}, {sum(self.validation):,} validation" if self.validation else trains

    def __repr__(self) -> str:
        """The lines."""
        return printable("\n".join(self.lines()))

    def _repr_html_(self) -> str:
        """The lines as notebooks show them."""
        import html

        return f"<pre>{html.escape(repr(self))}</pre>"
