"""Whether trials that are compared are of the same models, recipes and images: their names may come to mean others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from zoo.catalogue.registry import Registry
from zoo.errors import DataError, InputError, RunError
from zoo.runs.record import RECORD, RunRecord, read_record
from zoo.studies.decisive import decisive_dataset, decisive_recipe
from zoo.studies.sweep.space import Space
from zoo.train.recipe_settings import recipe_name
from zoo.train.run_options import Request

if TYPE_CHECKING:
    import optuna

MEANT = "meant"
"""Attribute of a study in Optuna's storage: what the names of the sweep meant when it began."""


def refuse_other_meaning(study: optuna.Study, meant: Mapping[str, Any], where: str) -> None:
    """Refuse to go on with a sweep whose model, recipe or dataset is another one by now.

    Args:
        meant: as `meaning` has it. where: the sweep's storage, for the message.
    Raises:
        InputError: names what has changed.
    """
    stored = study.user_attrs.get(MEANT)
    if stored is None:  # new, or of an earlier version
        study.set_user_attr(MEANT, msgspec.json.encode(meant, order="deterministic").decode())
        return
    before = msgspec.json.decode(stored)
    changed = sorted(key for key in {*before, *meant} if before.get(key) != meant.get(key))
    if changed:
        were = "were" if len(changed) > 1 else "was"
        raise InputError(
            f"{where}: contains a sweep with what {', '.join(changed)} {were} before an edit, so that its "
            "trials cannot be compared with new ones; give another --output"
        )


def meaning(request: Request, space: Space, registry: Registry, name: str) -> dict[str, Any]:
    """What the names of a sweep stand for, as JSON has it; `name` is the model's."""
    choices = {choice.key: choice.values for choice in space.choices}
    meant: dict[str, Any] = {}
    for model in choices.get("model", (name,)):
        entry = registry.model(model)
        meant[f"models.{model}"] = entry.build.to_table()
        for asked in choices.get("recipe", (request.recipe,)):
            recipe = recipe_name(asked, model, entry)
            meant[f"recipes.{recipe}"] = decisive_recipe(msgspec.to_builtins(registry.recipe(recipe)))
        if (spec := request.dataset or entry.dataset) in registry.datasets:
            meant[f"datasets.{spec}"] = decisive_dataset(registry.datasets[spec])
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(meant))
    return found


def refuse_other_images(record: RunRecord, folder: Path) -> None:
    """Refuse a new trial whose images are not those of the trials beside it, read in the same way.

    Raises:
        DataError: names a trial.
    """
    for path in sorted(folder.parent.glob(f"trial-*/{RECORD}")):
        try:
            other = read_record(path.parent)
        except RunError:
            continue
        if path.parent != folder and _read_alike(record) == _read_alike(other) and _images(record) != _images(other):
            raise DataError(
                f"{record.data.spec}: its images have changed since {path.parent.name} was trained, so that its trials "
                "cannot be compared with new ones; give another --output"
            )


def _read_alike(record: RunRecord) -> tuple[Any, ...]:
    data = record.data
    read = (data.spec, data.mode, data.image_size, data.transform, data.decoding, data.limit_train, data.scaling)
    return record.sizes.height, record.sizes.width, *read


def _images(record: RunRecord) -> tuple[Any, ...]:
    return record.data.fingerprint, record.data.validation_fingerprint
