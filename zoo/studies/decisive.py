"""What decides a run in entries of the catalogue: their words about themselves and what is as by default do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from zoo.catalogue.recipe import Recipe
from zoo.catalogue.spec import Dataset

OF_A_DATASET = ("source", "classes", "num_classes", "size", "resize", "channels", "mean", "std", "options", "adapt")
ABOUT_ITSELF = ("summary", "source")


def decisive_recipe(table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe that differ from the defaults, so that a field that is added later changes nothing."""
    defaults = msgspec.to_builtins(Recipe())
    return {k: v for k, v in table.items() if v != defaults.get(k) and k not in ABOUT_ITSELF}


def decisive_dataset(dataset: Dataset) -> dict[str, Any]:
    """The fields of a dataset that say which images these are, and how they are read."""
    table, defaults = (msgspec.to_builtins(one) for one in (dataset, Dataset(source="")))
    return {k: table[k] for k in OF_A_DATASET if table[k] != defaults[k]}
