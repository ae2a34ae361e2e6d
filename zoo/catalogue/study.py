"""A study as data: one model, and what is changed about it. Tables `[studies.NAME]` of a registry file."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from zoo.base.structs import Fraction, Positive, Struct
from zoo.catalogue.spec import Published


class StudyResult(Struct, frozen=True):
    """What a source prints for the variants of a study that have the values `at`; the base, if empty.

    Attributes:
        at: Changed keys and their values that a variant must have.
        top1: Top-1 accuracy as a fraction.
        minutes: Minutes of training that the source prints.
        minutes_per_epoch: Minutes per epoch that the source prints.
        epochs: Epochs of training, where they are not the recipe's.
        published_as: Name of the row in the source's table.
    """

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
        summary: What the study compares, in one line.
        model: The model that is varied.
        source: Key of the paper or report that the study is from.
        dataset: Dataset of the study. Not set: the model's own.
        recipe: Recipe of the study. Not set: the model's own.
        grid: Key to values, all combinations. Keys: "model", "dataset", "recipe", "recipe.KEY",
            "build.PATH": see `zoo.catalogue.vary`.
        each: Key to values, one change at a time, beside the base. Keys as in `grid`.
        published: Results that the source prints for its variants.
        note: Anything a reader of the study should know.
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
