"""The one figure that stands for a run: top-1, or mAP where images have several labels. Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Headline(NamedTuple):
    """A figure of a result or of an epoch; the larger, the better.

    Attributes:
        key: as in `result.json` ("top1"), and in `metrics.jsonl` behind a split ("val_top1"). name: for people.
        metric: its name on a card.
        exact: what `correct` of `count` images are, for people; "" where it says the same figure.
    """

    key: str
    name: str
    metric: str
    exact: str = ""

    def of(self, metrics: Mapping[str, Any]) -> float:
        """Its value in the metrics of a split; NaN where there is none."""
        value = metrics.get(self.key)
        return float("nan") if value is None else float(value)

    def counted(self, metrics: Mapping[str, Any]) -> str:
        """The value, and of how many images: "top-1 91.20% (912 of 1,000)"."""
        exact = f"; {self.exact}" if self.exact else ""
        count = f"{metrics['correct']:,} of {metrics['count']:,}"
        return f"{self.name} {self.of(metrics):.2%} ({count}{exact})"


TOP1 = Headline("top1", "top-1", "top-1 accuracy")

MAP = Headline("map", "mAP", "mean average precision", "exactly their labels")


def headline(metrics: Mapping[str, Any]) -> Headline:
    """The figure that stands for the metrics of a split ("top1"), or for those of an epoch ("val_top1")."""
    return MAP if any(key == MAP.key or key.endswith(f"_{MAP.key}") for key in metrics) else TOP1


def test_score(result: Mapping[str, Any] | None) -> str:
    """The figure of the test images as the end of a sentence: ", test top-1 91.20%"; "" where there is none."""
    test = (result or {}).get("test")
    return f", test {headline(test).name} {headline(test).of(test):.2%}" if test else ""
