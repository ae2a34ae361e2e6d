"""The rows of a table, and the run of each row and seed; reads only the catalogue."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec

from zoo.base.files import bytes_of_file
from zoo.base.structs import Count, NonNegative, Positive, Struct
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Dataset, Model, Published
from zoo.catalogue.vary import label, vary
from zoo.errors import InputError, UnknownNameError
from zoo.runs.record import RESULT
from zoo.studies.decisive import decisive_dataset, decisive_recipe

MEANT = "dataset.json"
"""In a run's folder: the entry of its dataset in the catalogue when it began. Runs of earlier versions have none."""

SMALL_TRAIN, SMALL_TEST, SMALL_EPOCHS = 2000, 1000, 10
"""The small budget: training images, test images, and the divisor of the epochs."""


class Ask(Struct, frozen=True, kw_only=True):
    """The request of `zoo reproduce` as plain data, which worker processes receive too.

    Attributes:
        target: SOURCE, SOURCE/DATASET, STUDY or MODEL. only: globs of model or variant names.
        dataset: SPEC, or NAME=SPEC, that replaces the published datasets.
        first_seed: the first of the seeds; above 0, their results are added to those of other seeds.
        epochs, limit_train, limit_test: other numbers for the small budget.
        runs: the folder for the run folders.
    """

    target: str
    only: tuple[str, ...] = ()
    protocol: Literal["paper", "clean"] = "paper"
    budget: Literal["full", "small"] = "full"
    seeds: Positive = 1
    first_seed: Count = 0
    recipe: str = "source"
    dataset: str | None = None
    data_dir: str | None = None
    device: str = "auto"
    epochs: Positive | None = None
    limit_train: Positive | None = None
    limit_test: Positive | None = None
    runs: str = "runs/reproduce"
    checkpoint_seconds: NonNegative = 60.0


class Images(Struct, frozen=True, kw_only=True):
    """The images that a row is trained on.

    Attributes:
        spec: a dataset as for `zoo train --dataset`. size: side to resize to, if any.
        mean, std: those of the replaced dataset, if the SPEC has none of its own.
        adapt: fields of a model's own recipe that the dataset overrides.
    """

    spec: str
    stand_in: bool = False
    size: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    adapt: dict[str, Any] = {}


class Row(Struct, frozen=True, kw_only=True):
    """One row of a table: a model, or a variant of it, on a dataset.

    Attributes:
        name: the name of the row: the model, or the label of the variant.
        settings: fields that override the recipe, without those of the budget.
        epochs, limit_train, limit_test: those of the budget; None means the recipe's or the dataset's.
        why_not: why the row is not trained here; "" if it is.
        weights: the reference of its initial weights, if any.
    """

    table: str
    source: str
    name: str
    model: str
    entry: Model
    dataset: str
    published: Published | None
    recipe: str
    images: Images
    protocol: Literal["paper", "clean"]
    budget: Literal["full", "small"]
    settings: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    epochs: int | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    why_not: str = ""
    weights: str | None = None


class Job(Struct, frozen=True, kw_only=True):
    """One run of a row; its folder does not depend on the command.

    Attributes:
        decides: a digest of everything that decides it but the seed.
    """

    row: Row
    seed: int
    folder: Path
    decides: str = ""

    @property
    def recorded(self) -> bool:
        """Whether the run is finished."""
        return (self.folder / RESULT).is_file()

    @property
    def title(self) -> str:
        """The name of the run in messages."""
        name = self.row.name if self.row.name == self.row.model else f"{self.row.model} ({self.row.name})"
        return f"{name} on {self.row.dataset}, seed {self.seed}"


def targets(registry: Registry) -> dict[str, str]:
    """The targets of `zoo reproduce`, except for single models: name to summary."""
    summaries: dict[str, str] = {}
    for key, source in registry.sources.items():
        datasets = sorted({p.dataset for _, p in _published(registry, key)})
        if datasets:
            summaries[key] = source.title
            summaries |= {f"{key}/{name}": f"{source.title}: {name}" for name in datasets}
        summaries |= {n: f"study: {s.summary}" for n, s in registry.studies.items() if s.source == key}
    return summaries | {n: f"study: {s.summary}" for n, s in registry.studies.items() if n not in summaries}


def rows_of(ask: Ask, registry: Registry) -> list[Row]:
    """The rows of the target, in the source's order.

    Raises:
        UnknownNameError: no such source, table, study, model or dataset.
        InputError: `only` matches no row, a number of the small budget is given with the full budget, a recipe is
            given for a study of recipes, or the replacing dataset is empty.
    """
    if ask.dataset is not None and not ask.dataset.rpartition("=")[2]:
        raise InputError(f"--dataset {ask.dataset!r} names no dataset; leave it out for the published ones")
    if ask.budget == "full" and (ask.epochs or ask.limit_train or ask.limit_test):
        raise InputError("--epochs, --limit-train and --limit-test apply to the small budget only; add --budget small")
    rows = list(_all_rows(ask, registry))
    wanted = [row for row in rows if _is_wanted(row, ask.only)]
    if not wanted:
        names = ", ".join(dict.fromkeys(row.name for row in rows))
        raise InputError(f"{ask.target}: no row matches --only {' '.join(ask.only)}; rows: {names}")
    return wanted


def jobs_of(ask: Ask, registry: Registry, rows: Sequence[Row]) -> list[Job]:
    """The runs of the rows: all rows with one seed, then all with the next."""
    trained = [(row, _decided(row, registry), meant_by(row.images.spec, registry)) for row in rows if not row.why_not]
    return [
        Job(
            row=row,
            seed=seed,
            folder=folder_of(row, seed, registry, Path(ask.runs)),
            decides=_digest(decides | {"dataset": meant}),
        )
        for seed in range(ask.first_seed, ask.first_seed + ask.seeds)
        for row, decides, meant in trained
    ]


def folder_of(row: Row, seed: int, registry: Registry, runs: Path) -> Path:
    """The folder for the run of a row and a seed: a readable name, and a digest of everything that decides it.

    Where the dataset's entry in the catalogue was another one when that run began, the digest is of the entry too.
    """
    decides = _decided(row, registry) | {"seed": seed}
    folder = _folder(row, seed, decides, runs)
    now, then = meant_by(row.images.spec, registry), bytes_of_file(f"{folder}/{MEANT}")
    return folder if then in (None, now.encode()) else _folder(row, seed, decides | {"dataset": now}, runs)


def _decided(row: Row, registry: Registry) -> dict[str, Any]:
    """All that decides a run but its seed."""
    decided: dict[str, Any] = {
        "build": row.entry.build.to_table(),
        "recipe": _recipe_table(row, registry),
        "images": [row.images.spec, row.images.size, row.images.mean, row.images.std],
        "budget": [row.limit_train, row.limit_test],
        "protocol": row.protocol,
    }
    return decided | ({"weights": row.weights} if row.weights else {})


def _digest(decides: Mapping[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:8]


def _folder(row: Row, seed: int, decides: Mapping[str, Any], runs: Path) -> Path:
    digest = _digest(decides)
    marks = [row.protocol, *([row.recipe] if row.recipe != row.entry.recipe else [])]
    marks += ["small"] if row.budget == "small" else []
    return runs / (row.source or "own") / row.dataset / "-".join([row.model, *marks, f"seed{seed}", digest])


def meant_by(spec: str, registry: Registry) -> str:
    """What a dataset's name stands for, as JSON; "{}" for a SPEC, which says it itself."""
    dataset = registry.datasets.get(spec)
    meant = decisive_dataset(dataset) if dataset else {}
    return msgspec.json.encode(meant, order="deterministic").decode()


def _recipe_table(row: Row, registry: Registry) -> dict[str, Any]:
    """The fields that differ from the defaults, so that a field that is added later changes no folder name."""
    return decisive_recipe(msgspec.to_builtins(registry.recipe(row.recipe)) | changed_fields(row))


def changed_fields(row: Row) -> dict[str, Any]:
    """The fields that override the recipe: those of the images, the study and the budget."""
    budget = {"epochs": row.epochs} if row.epochs else {}
    return row.images.adapt | row.settings | budget


def _is_wanted(row: Row, only: Sequence[str]) -> bool:
    names = (row.name, row.model, f"{row.model}/{row.dataset}")
    return not only or any(fnmatchcase(name, glob) for name in names for glob in only)


def _all_rows(ask: Ask, registry: Registry) -> Iterator[Row]:
    source, _, dataset = ask.target.partition("/")
    if source in registry.sources:
        results = [p for p in _published(registry, source) if dataset in ("", p[1].dataset)]
        if not results:
            known = [name for name in targets(registry) if name.startswith(f"{source}/")]
            raise UnknownNameError("table", ask.target, known or targets(registry), "see `zoo reproduce --list`")
        for model, published in results:
            yield _row(ask, registry, f"{source}/{published.dataset}", source, model, published)
    elif ask.target in registry.studies:
        yield from _study_rows(ask, registry)
    elif ask.target in registry.models:
        entry = registry.model(ask.target)
        for published in entry.published or (Published(dataset=entry.dataset),):
            source = published.source or entry.source or ""
            yield _row(ask, registry, f"{source or 'own'}/{published.dataset}", source, ask.target, published)
    else:
        known = [*targets(registry), *registry.models]
        raise registry.unknown("source, table, study or model", ask.target, known, "see `zoo reproduce --list`")


def _published(registry: Registry, source: str) -> list[tuple[str, Published]]:
    """(model, published result) of a source, table by table."""
    results = [
        (name, published)
        for name, model in registry.models.items()
        for published in model.published
        if (published.source or model.source) == source
    ]
    order = list(dict.fromkeys(published.dataset for _, published in results))
    return sorted(results, key=lambda pair: order.index(pair[1].dataset))


def _study_rows(ask: Ask, registry: Registry) -> Iterator[Row]:
    study = registry.study(ask.target)
    for changes in study.variants():
        variant = vary(registry, study.model, changes, f"studies.{ask.target}")
        published = next((p for p in study.published if p.fits(changes)), None)
        dataset = variant.dataset or study.dataset or variant.model.dataset
        yield _row(
            ask,
            registry,
            ask.target,
            study.source or "",
            variant.name,
            published.result(dataset) if published else Published(dataset=dataset),
            entry=variant.model,
            recipe=variant.recipe or study.recipe,
            settings=variant.settings,
            changes=changes,
        )


def _row(
    ask: Ask,
    registry: Registry,
    table: str,
    source: str,
    model: str,
    published: Published,
    *,
    entry: Model | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] = {},
    changes: Mapping[str, Any] = {},
) -> Row:
    if "recipe" in changes and ask.recipe != "source":
        raise InputError(
            f"{table} compares recipes, so --recipe {ask.recipe} would make all rows equal; leave out --recipe"
        )
    if published.changes:
        entry = vary(registry, model, published.changes, f"models.{model}.published.changes").model
    entry = entry or registry.model(model)
    chosen, why_not = _recipe(ask, model, entry, recipe or published.recipe, published.best)
    images = images_for(published.dataset, ask.dataset, registry)
    if ask.recipe not in ("source", "best"):  # a recipe that was asked for by name is taken as it is
        images = msgspec.structs.replace(images, adapt={})
    if published.pretrained and not published.weights:
        why_not = f"it starts from weights of {published.pretrained}, whose place the catalogue does not know"
    row = Row(
        table=table,
        source=source,
        name=label(changes) or model,
        model=model,
        entry=entry,
        dataset=published.dataset,
        published=published if published.top1 is not None else None,
        recipe=chosen,
        images=images,
        protocol=ask.protocol,
        budget=ask.budget,
        settings=dict(settings),
        changes=dict(changes),
        why_not=why_not,
        weights=published.weights,
    )
    return row if ask.budget == "full" else _small(row, ask, registry)


def _recipe(ask: Ask, name: str, entry: Model, of_row: str | None, best_of_row: str | None) -> tuple[str, str]:
    """The name of the recipe, and why the row is not trained ("" if it is)."""
    if ask.recipe == "best":
        best = best_of_row or entry.best
        return (best, "") if best else (entry.recipe, f"{name} has no recipe `best`")
    if ask.recipe != "source":
        return ask.recipe, ""
    return of_row or entry.recipe, ""


def _small(row: Row, ask: Ask, registry: Registry) -> Row:
    table = msgspec.to_builtins(registry.recipe(row.recipe)) | changed_fields(row)
    epochs = ask.epochs or max(1, math.ceil(table["epochs"] / SMALL_EPOCHS))
    return msgspec.structs.replace(
        row, epochs=epochs, limit_train=ask.limit_train or SMALL_TRAIN, limit_test=ask.limit_test or SMALL_TEST
    )


# ---- other images --------------------------------------------------------------------------------


def images_for(name: str, given: str | None, registry: Registry) -> Images:
    """The images of a named dataset, or of the SPEC that replaces it.

    The dataset's changes of images (resizing, cropping, altering) apply to the replacing images too.

    Raises:
        UnknownNameError: there is no dataset of that name.
    """
    dataset = registry.dataset(name)
    spec = _stand_in(name, dataset, given, registry)
    if spec is None:
        return Images(spec=name, adapt=dataset.adapt)
    listed = registry.datasets.get(spec)
    options = {k: v for k, v in dataset.options.items() if k in ("resize", "crop", "alter_train", "alter_test")}
    full = spec if not options else _with_options(listed.source if listed else spec, options)
    described = listed or dataset
    return Images(
        spec=full,
        stand_in=True,
        size=dataset.size[0] if dataset.resize and dataset.size else None,
        mean=described.mean if full not in registry.datasets else (),
        std=described.std if full not in registry.datasets else (),
        adapt=listed.adapt if listed else {},
    )


def _stand_in(name: str, dataset: Dataset, given: str | None, registry: Registry) -> str | None:
    if given is None:
        return None
    key, mark, spec = given.partition("=")
    if not mark or ":" in key or "/" in key:
        return given if given != name else None
    replaced = registry.dataset(key)
    return spec if key == name or replaced.source == dataset.source else None


def _with_options(spec: str, options: Mapping[str, Any]) -> str:
    words = [f"{k}={','.join(v) if isinstance(v, list | tuple) else v}" for k, v in options.items()]
    return f"{spec}{'&' if '?' in spec else '?'}{'&'.join(words)}"
