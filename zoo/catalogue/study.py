"""A study as data: one model, and what is changed about it. Tables `[studies.NAME]` of a registry file."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from zoo.base.structs import Fraction, Positive, Struct
from zoo.catalogue.spec import Published


class StudyResult(Struct, frozen=True):
    """What a source prints for the variants of a study that have the values `at`; the base, if empty."""

    at: dict[str, Any]
    top1: Fraction | None = None
    minutes: float | None = None
    minutes_per_epoch: float | None = None
    epochs: Positive | None = None
    published_as: str = ""

    def fits(self, changes: Mapping[str, Any]) -> bool:
        """Whether a variant with these changes is meant."""
        if not self.at:
            return not changes
        return all(key in changes and changes[key] == value for key, value in self.at.items())

    def result(self, dataset: str) -> Published:
        """The same as a row of a table of that dataset."""
        return Published(
            dataset=dataset,
            top1=self.top1,
            minutes=self.minutes,
            minutes_per_epoch=self.minutes_per_epoch,
            epochs=self.epochs,
            published_as=self.published_as,
        )


class Study(Struct, frozen=True):
    """A study of a source (or of ours): one model, and what is changed about it.

    Attributes:
        model, dataset, recipe: the base; dataset and recipe are the model's own where left out.
        grid: key to values, all combinations. each: key to values, one change at a time, beside the base.
            Keys: "model", "dataset", "recipe", "recipe.KEY", "build.PATH": see `zoo.catalogue.vary`.
    """

    summary: str
    model: str
    source: str | None = None
    dataset: str | None = None
    recipe: str | None = None
    grid: dict[str, tuple[Any, ...]] = {}
    each: dict[str, tuple[Any, ...]] = {}
    published: tuple[StudyResult, ...] = ()
    note: str = ""

    def variants(self) -> list[dict[str, Any]]:
        """What each row of the study changes about the base, in order."""
        combined = [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]
        alone = [{key: value} for key, values in self.each.items() for value in values]
        return (combined if self.grid else []) + ([{}, *alone] if self.each else [])
