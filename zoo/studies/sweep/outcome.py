"""The results of a sweep: its trials in order, the best one as a recipe, and the importance of each key."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import optuna
from optuna.trial import FrozenTrial, TrialState

from zoo.base.text import plural
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import decode, decode_model
from zoo.catalogue.vary import inline, vary
from zoo.errors import TrainingError
from zoo.studies.sweep.space import changes_of
from zoo.studies.sweep.trials import ERROR, FOLDER, Search


def trials_of(search: Search, study: optuna.Study) -> list[dict[str, Any]]:
    """The finished trials: their settings, results and run folders, the best first.

    Returns:
        Tables with `number`, `state`, `top1` (validation; None if there is none), `changes`,
        `folder`, `seconds`, `error`.
    """
    rows = [
        {
            "number": trial.number,
            "state": "failed" if trial.state is TrialState.FAIL else trial.state.name.lower(),
            "top1": trial.value if trial.state is TrialState.COMPLETE else _last(trial),
            "changes": changes_of(search.space, trial.params),
            "folder": trial.user_attrs.get(FOLDER, ""),
            "seconds": trial.user_attrs.get("seconds"),
            "error": trial.user_attrs.get(ERROR, ""),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or ERROR in trial.user_attrs
    ]
    return sorted(rows, key=lambda row: (row["state"] != "complete", -(row["top1"] or 0.0), row["number"]))


def _last(trial: FrozenTrial) -> float | None:
    values = trial.intermediate_values
    return values[max(values)] if values else None


def best_of(rows: Sequence[Mapping[str, Any]], problems: Sequence[str] = ()) -> Mapping[str, Any]:
    """The best completed trial.

    Args:
        problems: a line for each process that failed.
    Raises:
        TrainingError: no trial was completed; says why the first one, or the first process, failed.
    """
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        otherwise = "all were pruned" if rows else "none has ended yet; repeat the command to continue"
        why = next(filter(None, (*(row["error"] for row in rows), *problems)), otherwise)
        raise TrainingError(f"no trial was completed: {why}")
    return complete[0]


def as_toml(search: Search, registry: Registry, name: str, best: Mapping[str, Any], count: int) -> str:
    """The best trial as tables for a registry.toml: a recipe, and a model if its tree changed.

    Raises:
        SpecError: the tables are not valid, which would be a bug in zoo.
    """
    from zoo.train.recipe_settings import adapted, nested, parse_value, recipe_name

    variant = vary(registry, name, best["changes"], "zoo sweep")
    model, request = variant.model, search.request
    parent = variant.recipe or request.recipe
    fields = adapted(registry, parent, request.dataset or model.dataset)
    fields |= {"epochs": request.epochs} if request.epochs else {}
    for setting in request.settings:
        key, _, text = setting.partition("=")
        fields |= nested(fields, key.strip().removeprefix("recipe."), parse_value(text.strip()), setting)
    fields |= variant.settings
    called = _free_name(registry, re.sub(r"[^a-z0-9]+", "-", f"{variant.name}-swept".lower()).strip("-"))
    small = f"{plural(request.limit_train, 'image')} of " if request.limit_train else ""
    where = f"{small}{request.dataset or model.dataset}"
    summary = f"found by zoo sweep on {where}: validation top-1 {best['top1']:.2%}, best of {count} trials"
    begun = recipe_name(parent, variant.name, model)
    recipe = {"extends": begun, "summary": summary, **fields}
    decode(Recipe, {k: v for k, v in recipe.items() if k != "extends"}, called)
    text = _table(f"recipes.{called}", recipe)
    if model.build == registry.model(variant.name).build:
        return text
    table = {
        "summary": f"{variant.name}, changed by zoo sweep",
        "family": model.family,
        "recipe": called,
        "dataset": model.dataset,
        "build": model.build.to_table(),
    }
    decode_model(table, called)
    return text + "\n" + _table(f"models.{called}", table)


def _free_name(registry: Registry, name: str) -> str:
    """The name, with a number if the catalogue already has it; a recipe cannot extend itself."""
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(n for n in names if n not in registry.recipes and n not in registry.models)


def _table(name: str, content: Mapping[str, Any]) -> str:
    return "".join([f"[{name}]\n", *(f"{key} = {inline(value)}\n" for key, value in content.items())])


def importance(study: optuna.Study) -> dict[str, float]:
    """How much of the variance of validation top-1 each key explains, by fANOVA; the largest first.

    Source: Hutter, Hoos and Leyton-Brown (2014), as Optuna computes it.
    Returns:
        Empty if fewer than three trials were completed, or all have the same result.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = {key for trial in complete for key in trial.params}
    if len(complete) < 3 or len({trial.value for trial in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares: dict[str, float] = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=sorted(varied)
        )
    return shares


def document(
    search: Search, rows: Sequence[Mapping[str, Any]], recipe: str, mattered: Mapping[str, float]
) -> dict[str, Any]:
    """Everything about a finished sweep as plain data, for `sweep.json` and `--json`."""
    return {
        "format": 1,
        "sweep": msgspec.to_builtins(search),
        "protocol": "clean",
        "objective": "validation top-1",
        "trials": list(rows),
        "importance": dict(mattered),
        "recipe": recipe,
    }


def paths(search: Search) -> tuple[Path, Path, Path]:
    """The files of the results: the data, the recipe, and the figures without their ending."""
    folder = Path(search.folder)
    return folder / "sweep.json", folder / "recipe.toml", folder / "importance"
