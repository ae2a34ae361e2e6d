"""What a caller in Python gives in place of names: a model, images, a recipe, a function for batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from zoo.catalogue.own_code import SHORT
from zoo.catalogue.own_model import OwnModel
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Model
from zoo.data.given_data import GivenData, given_data
from zoo.data.portable import spec_of
from zoo.errors import InputError
from zoo.models.own_module import Own, own_of
from zoo.runs.own_source import Warn, own_of_run, warn_as_python
from zoo.runs.record import RunRecord
from zoo.train.own_augment import OwnAugment


@dataclass(frozen=True, kw_only=True)
class Given:
    """What takes the place of names in a `Request`; see `taken`.

    Attributes:
        recipe: as for `zoo.train.recipe_settings.resolved_recipe`.
        warn: receives a line if what is given again is not what the run was given before.
    """

    model: OwnModel | None = None
    data: GivenData | None = None
    recipe: Recipe | Mapping[str, Any] | None = None
    augment: OwnAugment | None = None
    warn: Warn = warn_as_python

    def entry(self, registry: Registry | None = None) -> tuple[Registry, str, Model] | None:
        """The catalogue with the model, its name, and the model; None if none is given."""
        if self.model is None:
            return None
        return (registry or load_registry()).with_model_of(self.model), self.model.name, self.model.model

    def augment_again(self, record: RunRecord) -> OwnAugment | None:
        """The function for batches of a recorded run, which has to be given again.

        Raises:
            InputError: it is missing, or given to a run that had none.
        """
        part = own_of_run(record, "augment")
        if part is None and self.augment is not None:
            raise InputError(f"augment: the run was made without {self.augment.code.attribute}; leave it out")
        if part is None:
            return None
        if self.augment is None:
            kept = f" (its source: {part.copy} in the run folder)" if part.copy else ""
            raise InputError(
                f"this run changed its batches by {part.attribute}, a function of your own: give it again in Python, "
                f"zoo.resume(RUN, augment={part.attribute}){kept}"
            )
        code = self.augment.code
        if code.sha256 != part.sha256:
            now, then = (sha256[:SHORT] or "unknown" for sha256 in (code.sha256, part.sha256))
            self.warn(
                f"augment {code.attribute} has changed since the run was made (sha256 {now} now, {then} then): the "
                "resumed run will not be bit-identical"
            )
        return self.augment


def again(
    *,
    model: Own | None = None,
    dataset: object = None,
    augment: Callable[..., Any] | None = None,
    warn: Warn = warn_as_python,
) -> Given:
    """What is given again to a recorded run, to resume or repeat it; as for `taken`, but a model's name is a file's.

    Raises:
        InputError, DataError: something cannot be used.
    """
    return Given(
        model=None if model is None else own_of(model),
        data=None if dataset is None else given_data(dataset),
        augment=None if augment is None else OwnAugment.of(augment),
        warn=warn,
    )


def taken(
    *,
    model: str | Callable[..., Any] | nn.Module | None = None,
    dataset: object = None,
    recipe: str | Recipe | Mapping[str, Any] | None = None,
    augment: Callable[..., Any] | None = None,
    warn: Warn = warn_as_python,
) -> tuple[dict[str, str], Given]:
    """Divide what was given into names, for `Request`, and all else.

    Args:
        model: a name or FILE.py:NAME stays a name; else as `zoo.models.own_module.own_of`.
        dataset: a SPEC stays one, a folder's path becomes one; else as `zoo.data.given_data.given_data`.
        recipe: a name stays one; else as `zoo.train.recipe_settings.resolved_recipe`.
        augment: see `zoo.train.own_augment`.
    Returns:
        (fields of `Request`: "model", "dataset", "recipe", as far as they are given; all else).
    Raises:
        InputError, DataError: something cannot be used.
    """
    own = None if model is None or isinstance(model, str) else own_of(model)
    data = None if dataset is None or isinstance(dataset, str | Path) else given_data(dataset)
    if recipe is not None and not isinstance(recipe, str | Recipe | Mapping):
        raise InputError(f"recipe: of type {type(recipe).__name__}; give a name, a table of its keys, or a Recipe")
    names = {
        "model": own.name if own else model,
        "dataset": data.spec if data else spec_of(dataset) if isinstance(dataset, Path) else dataset,
        "recipe": recipe if isinstance(recipe, str) else None,
    }
    given = Given(
        model=own,
        data=data,
        recipe=None if isinstance(recipe, str) else recipe,
        augment=None if augment is None else OwnAugment.of(augment),
        warn=warn,
    )
    return {key: str(value) for key, value in names.items() if value is not None}, given
