"""What an evaluation gives. Nothing here imports torch, so that a run can name it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.headline import MAP
from zoo.base.plain_json import finite
from zoo.base.tables import Table
from zoo.base.text import printable
from zoo.evaluate.asked import PARTS
from zoo.evaluate.classes import LABEL_COLUMNS, mistakes
from zoo.runs.folder import why_no_result
from zoo.runs.record import RESULT, read_record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DOCUMENT = "eval.json"

CLASS_COLUMNS = ("class", "precision", "recall", "f1", "support", "predicted")


@dataclass(frozen=True, repr=False, eq=False)
class Measured:
    """Accuracy of one model on one set of images.

    Attributes:
        document: all that was measured, as plain data.
    """

    document: Mapping[str, Any]

    @property
    def run(self) -> str:
        """The run's folder, or its word on the Hub."""
        return str(self.document["run"])

    @property
    def split(self) -> str:
        """Which images of the run: "test", "val" or "train"."""
        return str(self.document["split"])

    @property
    def tta(self) -> str:
        """The views of an image that were averaged; "none" for the image alone."""
        return str(self.document["tta"])

    @property
    def top1(self) -> float:
        """The share of images whose class was predicted, 0..1; NaN where images have several labels."""
        return float(self.document.get("top1", math.nan))

    @property
    def top5(self) -> float:
        """The share of images whose class was among the first five, 0..1; NaN where images have several labels."""
        return float(self.document.get("top5", math.nan))

    @property
    def map(self) -> float | None:
        """The mean average precision, 0..1, where images have several labels; else None."""
        found: float | None = self.document.get("map")
        return found

    @property
    def balanced_accuracy(self) -> float:
        """The mean over the classes that have images of the share of them that was classified rightly, 0..1.

        NaN where images have several labels.
        """
        return float(self.document.get("balanced_accuracy", math.nan))

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have images, 0..1."""
        return float(self.document["macro_f1"])

    @property
    def loss(self) -> float:
        """The mean cross entropy of the images, in nats; where they have several labels, also over the classes."""
        return float(self.document["loss"])

    @property
    def correct(self) -> int:
        """How many images were classified rightly; of those with several labels, with exactly their labels."""
        return int(self.document["correct"])

    @property
    def count(self) -> int:
        """How many images there were."""
        return int(self.document["count"])

    def as_dict(self) -> dict[str, Any]:
        """All as plain data, copied; what JSON cannot say (NaN) is None."""
        copied: dict[str, Any] = finite(deepcopy(dict(self.document)))
        return copied


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(Measured):
    """A second run, measured on the same images as a first one, and a paired test of both."""

    @property
    def difference(self) -> float:
        """Top-1 of the first run minus that of this one, -1..1."""
        return float(self.document["paired"]["difference"])

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the difference, by a paired bootstrap."""
        low, high = self.document["paired"]["interval"]
        return float(low), float(high)

    @property
    def p(self) -> float:
        """The p of McNemar's exact, two-sided test, 0..1."""
        return float(self.document["paired"]["p"])

    @property
    def counts(self) -> dict[str, int]:
        """Images that `both_right`, `only_first`, `only_second` and `both_wrong` name."""
        paired = self.document["paired"]
        return {key: int(paired[key]) for key in ("both_right", "only_first", "only_second", "both_wrong")}

    def __repr__(self) -> str:
        """The second run's accuracy, the difference, and how sure it is."""
        low, high = self.interval
        return printable(
            f"Comparison with {self.run}: {accuracy(self)}; the first minus this one "
            f"{100 * self.difference:+.2f} percentage points (95% interval {100 * low:+.2f} to {100 * high:+.2f}), "
            f"McNemar's p = {self.p:.3g}"
        )


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Measured):
    """What `zoo.evaluate` and `zoo.compare` give: figures, and a part for each thing that was asked for.

    A part that was not asked for is None.

    Attributes:
        document: all that was measured, as plain data; `as_dict` copies it.
        recorded: what the run recorded of the same images: `correct`, `count`, `loss`, `top1`, `top5`; None if nothing.
        num_classes: that the run knows.
        verdict: how this compares with what is recorded, in words.

    Example:
        >>> evaluation = zoo.evaluate("last", what=["classes", "confusion"])  # doctest: +SKIP
        >>> evaluation.top1, evaluation.same_as_recorded, evaluation.confusion.shape  # doctest: +SKIP
        (0.9583333333333334, True, (10, 10))
    """

    recorded: Mapping[str, Any] | None = None
    num_classes: int = 0
    verdict: str = ""

    @property
    def on(self) -> str | None:
        """The SPEC of other images than the run's; None: they are the run's."""
        found: str | None = self.document["on"]
        return found

    @property
    def same_as_recorded(self) -> bool | None:
        """Whether as many images were right as the run recorded; None where it recorded nothing of them."""
        return is_recorded(self.document, self.recorded)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95% interval of `top1`; None where accuracy alone was asked for."""
        found = self.document.get("top1_interval")
        return None if found is None else (float(found["ends"][0]), float(found["ends"][1]))

    @property
    def classes(self) -> Table | None:
        """A row for each class, in label order: precision, recall and F1 (0..1), its images, and those taken for it."""
        found = self.document.get("classes")
        columns = CLASS_COLUMNS if self.map is None else LABEL_COLUMNS
        return None if found is None else Table(found["rows"], columns)

    @property
    def averages(self) -> dict[str, Any] | None:
        """Of the classes: `macro` and `weighted` precision, recall and F1, and the `balanced_accuracy`."""
        found = self.document.get("classes")
        return None if found is None else {key: deepcopy(found[key]) for key in found if key != "rows"}

    @property
    def confusion(self) -> NDArray[np.int64] | None:
        """int64 (K, K): images of each class (rows) that were taken for each class (columns)."""
        found = self.document.get("confusion")
        if found is None:
            return None
        import numpy as np

        return np.array(found["counts"], np.int64)

    @property
    def mistakes(self) -> Table | None:
        """The confusions, the most frequent first: `true`, `predicted`, `images`, and their `share` of the class."""
        found = self.document.get("confusion")
        return None if found is None else mistakes(found["classes"], found["counts"])

    @property
    def calibration(self) -> dict[str, Any] | None:
        """`ece`, `mce`, `brier`, mean `confidence`, `accuracy`, and the `bins`, a row each.

        Of a run with a temperature (`zoo.calibrate`) they are those after it; `temperature` is it, and `before` has the
        figures before it.
        """
        return deepcopy(self.document.get("calibration"))

    @property
    def latency(self) -> Table | None:
        """A row for each size of a batch: median, 95th percentile and least milliseconds, images per second."""
        found = self.document.get("latency")
        return None if found is None else Table(found["rows"])

    @property
    def robustness(self) -> Table | None:
        """A row for each corruption: its group, top-1 (0..1) at each severity, and their mean."""
        found = self.document.get("robustness")
        if found is None:
            return None
        levels = [f"severity {level}" for level in found["severities"]]
        return Table(
            {
                "corruption": row["corruption"],
                "group": row["group"],
                **dict(zip(levels, row["top1"], strict=True)),
                "mean": row["mean"],
            }
            for row in found["rows"]
        )

    @property
    def comparison(self) -> Comparison | None:
        """The second run, and the paired test."""
        found = self.document.get("compare")
        return None if found is None else Comparison(found)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that were written."""
        return tuple(Path(path) for path in self.document.get("files", ()))

    def __repr__(self) -> str:
        """The figures, and the names of the parts that there are."""
        parts = ", ".join(f".{name}" for name in PARTS if name in self.document)
        return printable("\n  ".join([*self._lines(), *([f"with {parts}"] if parts else [])]))

    def _lines(self) -> list[str]:
        lines = [f"Evaluation of {self.run}: {accuracy(self)}", self.verdict]
        return lines if self.comparison is None else [*lines, repr(self.comparison)]

    def _repr_html_(self) -> str:
        """The figures, and a table for each part."""
        from zoo.evaluate.evaluation_html import evaluation_html

        return evaluation_html(self.document, self._lines(), self.robustness)


def accuracy(measured: Measured) -> str:
    """The figures in one line."""
    low_high = measured.interval if isinstance(measured, Evaluation) else None
    interval = f", 95% interval {low_high[0]:.2%} to {low_high[1]:.2%}" if low_high else ""
    where = measured.on if isinstance(measured, Evaluation) and measured.on else ""
    split = f"{measured.split}{' of ' + where if where else ''}"
    if measured.map is not None:
        return f"{split} {MAP.counted(measured.document)}, loss {measured.loss:.4f}"
    return (
        f"{split} top-1 {measured.top1:.2%} "
        f"({measured.correct:,} of {measured.count:,}{interval}), loss {measured.loss:.4f}"
    )


def is_recorded(out: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> bool | None:
    """Whether the counts are those that the run recorded; None where it recorded none."""
    return None if recorded is None else all(recorded[key] == out[key] for key in ("correct", "count"))


def verdict(folder: Path | None, out: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> str:
    """Say how a document compares with what is recorded of the same images, or why nothing is.

    Args:
        folder: of the run; None of an ensemble, and where the weights are a library's.
    """
    if folder is None:
        images = out["on"] or f"the first run's split {out['split']}"
        return f"measured on {images}; nothing is recorded of {out['run']} to compare with"
    if recorded is None:
        if out["on"] is not None:
            return f"measured on {out['on']}, of which the run recorded nothing to compare with"
        if out["split"] == "train":
            return "no result of training images is recorded to compare with"
        return f"{_without_result(folder)} is recorded to compare with"
    if is_recorded(out, recorded):
        return "the same as recorded"
    return (
        f"{out['run']}: result.json records {recorded['correct']} of {recorded['count']} correct, "
        f"measured {out['correct']} of {out['count']}"
    )


def _without_result(folder: Path) -> str:
    """Why there is nothing to compare with: a run that is being trained has no result yet."""
    finished = (folder / RESULT).is_file()
    return "no result of these images" if finished else f"{why_no_result(folder, read_record(folder))}; no result"
