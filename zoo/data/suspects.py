"""Images whose label is probably wrong: what a judgement by networks that have not seen them says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.base.text import plural
from zoo.data.findings import Finding
from zoo.data.types import Images


@dataclass(frozen=True)
class Suspect:
    """One image whose label a network confidently disagrees with.

    Attributes:
        split: "train", "validation" or "test", as the run divides the images; of other images, their own.
        source: the file, or the row of a file. given: its class. suggested: the class that is more likely.
        probability: of the suggested class, 0..1. given_probability: of the given one.
        read: gives the image as the network sees it, uint8 (3, H, W).
    """

    split: str
    source: str
    given: str
    suggested: str
    probability: float
    given_probability: float
    read: Callable[[], Images] = field(repr=False, compare=False)

    def line(self) -> str:
        """The image, its class, and what the network says."""
        return (
            f"{self.source}: {self.given} ({self.given_probability:.1%}), "
            f"perhaps {self.suggested} ({self.probability:.1%})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {key: value for key, value in vars(self).items() if key != "read"}


@dataclass(frozen=True)
class LabelNoise:
    """Labels that are probably wrong, the likeliest first.

    Attributes:
        run: what judged. folds: how many runs of its recipe judged the training images; 0: none.
        judged: how many images of each split were judged. left: how many were not, for the run has learnt from them.
        suspects: at most as many as were judged.
    """

    run: str
    folds: int
    judged: Mapping[str, int]
    left: int
    suspects: Sequence[Suspect]

    def as_dict(self) -> dict[str, Any]:
        """Plain data: what `zoo datasets check --json` prints of it."""
        plain = {"run": self.run, "folds": self.folds, "judged": dict(self.judged), "left": self.left}
        return {**plain, "suspects": [suspect.as_dict() for suspect in self.suspects]}

    def finding(self) -> Finding:
        """The suspects as a finding; a note where there are none."""
        count, total = len(self.suspects), sum(self.judged.values())
        left = f"; {plural(self.left, 'image')} that it learnt from not judged (--folds K does)" if self.left else ""
        text = f"{plural(count, 'label is', 'labels are')} probably wrong, of {plural(total, 'image')} judged{left}"
        lines = tuple(suspect.line() for suspect in self.suspects[:5])
        return Finding(
            level="warning" if count else "note", kind="label-noise", message=text, count=count, examples=lines
        )
