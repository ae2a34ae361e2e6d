"""From what was asked for to everything that decides a run, before any training starts."""

from __future__ import annotations

import math
import platform
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import nn

from zoo.base.version import __version__
from zoo.catalogue.augmentation import Struct
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry, changes, find_model, load_registry, provenance
from zoo.catalogue.spec import Model, Transform, decode, node_from_table
from zoo.data.batches.mode import DataMode, Delivery
from zoo.data.checks import class_counts
from zoo.data.load import load
from zoo.data.seeds import mix_seed
from zoo.data.sources.base import Show, silent
from zoo.data.split import ImageData, Split, limit, validation_split
from zoo.errors import DataError, InputError, RunError, SpecError
from zoo.evaluate.views import refuse_views
from zoo.models.compose import compose, place
from zoo.models.device import Hardware, describe, pick_device, pick_layout, pick_precision, placed, reasons
from zoo.plugin.layers import set_dropout
from zoo.runs.folder import DataRecord, RunRecord, Sizes
from zoo.train.optim.layerwise import freeze
from zoo.train.optim.optimizers import make_optimizer
from zoo.train.processes.world import size_here
from zoo.train.speed.compiled import choose, measure_pace, why_no_graph

VALIDATION_FRACTION = 0.1
VALIDATION_SEED = 0
"""The validation split is the same for every seed of a run: spread over seeds is of training alone."""

INIT = 0x1217
"""Tag of the seed that initialises the weights."""


Found = tuple[Registry, str, Model]
"""A catalogue, and a model with its name."""


class Request(Struct, kw_only=True):
    """What the user asked for; None leaves it to the recipe, the model or the machine."""

    model: str
    dataset: str | None = None
    data_dir: str | None = None
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    precision: str | None = None
    compile: str | None = None
    on_nan: str | None = None
    seed: int = 0
    device: str = "auto"
    protocol: Literal["clean", "paper"] = "clean"
    image_size: int | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    max_steps: int | None = None
    skip_bad: bool = False
    data_mode: DataMode = "auto"
    workers: int | None = None


@dataclass(frozen=True)
class Plan:
    """All that a run needs: its record, the images of each split, the hardware.

    Attributes:
        notes: what was chosen and why, a line each.
    """

    record: RunRecord
    registry: Registry
    train: Split
    selecting: Split
    test: Split
    hardware: Hardware
    notes: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.record.settings

    def build(self) -> nn.Module:
        """The module with its initial weights: a function of the tree, the sizes and the seed."""
        record = self.record
        tree = node_from_table(record.build, "build")
        torch.manual_seed(mix_seed(record.seed, INIT))
        where = place(self.registry, record.model)
        module = compose(tree, self.registry, where=where, **msgspec.structs.asdict(record.sizes))
        if self.recipe.dropout is not None:
            set_dropout(module, self.recipe.dropout)
        return placed(module, self.hardware.device, self.hardware.channels_last)


class Beginning(Struct, kw_only=True, frozen=True):
    """What weights that a run begins with say about its images, and the recipe that suits them.

    Attributes:
        transform: as they know images; None leaves sizes to the dataset. mean, std: empty: the dataset's.
        normalize: whether they want images normalised; None leaves it to the recipe.
        recipe: taken where none is named.
        fetch: called with the sizes as soon as they are known, before any image is decoded.
    """

    transform: Transform | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    normalize: bool | None = None
    recipe: str | None = None
    fetch: Callable[[int, int], object] = lambda height, width: None


def resolve(
    request: Request,
    show: Show = silent,
    found: Found | None = None,
    beginning: Beginning = Beginning(),  # noqa: B008 - frozen
) -> Plan:
    """Decide everything: model, recipe, dataset, splits, device, precision.

    Args:
        found: the catalogue and the model, in the place of those that the request names.
        beginning: what the weights that the run begins with ask for; options of the request win.
    Raises:
        ZooError: whatever cannot be used, in one line.
    """
    registry, name, model = found or find_model(request.model)
    device = pick_device(request.device)
    _refuse_impossible(request)
    spec = request.dataset or model.dataset
    recipe_name, recipe = _recipe(request, registry, model, spec, beginning)
    image_size = recipe.image_size if request.image_size is None else request.image_size
    transform = beginning.transform
    if transform and image_size:
        transform = transform.at(image_size)
    if transform:
        beginning.fetch(*transform.size)
    delivery = Delivery(request.data_mode, request.workers, str(device))
    data = _load(spec, registry, request.data_dir, image_size, request.skip_bad, delivery, show, transform)
    _refuse_empty_classes(data)
    splits = _splits(data, request.protocol == "clean", request.limit_train, request.limit_test)
    sizes = Sizes(
        in_channels=3,
        height=splits[0].images.shape[2],
        width=splits[0].images.shape[3],
        num_classes=len(data.classes),
    )
    outline = _outline((registry, name, model), recipe, sizes)
    precision = pick_precision(recipe.precision, device)
    hardware = Hardware(device, precision, pick_layout(recipe.channels_last, outline, device, precision))
    record = RunRecord(
        model=name,
        build=model.build.to_table(),
        sizes=sizes,
        recipe=recipe_name,
        settings=recipe,
        data=_data_record(data, splits, request, image_size, transform, beginning),
        protocol=request.protocol,
        seed=request.seed,
        device=str(device),
        precision=precision,
        channels_last=hardware.channels_last,
        max_steps=request.max_steps,
        plugins=provenance(registry, model.build, model=name, recipe=recipe_name, dataset=spec),
        environment=environment(device),
    )
    notes = (*data.notes, *reasons(hardware, recipe.precision))
    return _with_compiler(Plan(record, registry, *splits, hardware, notes))


def _outline(found: Found, recipe: Recipe, sizes: Sizes) -> nn.Module:
    """The model without memory, after all that a recipe does to it: what does not fit is said before there is a run."""
    registry, name, model = found
    refuse_views(recipe.tta, sizes.height, sizes.width)
    meta = torch.device("meta")
    with meta:
        outline = compose(model.build, registry, where=place(registry, name), **msgspec.structs.asdict(sizes))
    if recipe.dropout is not None:
        set_dropout(outline, recipe.dropout)
    make_optimizer(freeze(outline, recipe.freeze), recipe, meta)
    return outline


def _refuse_impossible(request: Request) -> None:
    if request.dataset == "":
        raise InputError("--dataset '' names no images; leave it out for the model's own")
    for key in ("limit_train", "limit_test", "max_steps", "image_size"):
        if (value := getattr(request, key)) is not None and value < 1:
            raise InputError(f"--{key.replace('_', '-')} must be at least 1, given {value}")


def _recipe(
    request: Request, registry: Registry, model: Model, spec: str, beginning: Beginning
) -> tuple[str, Recipe]:
    """The recipe's name, and the recipe: adapted by the weights and the dataset, overridden by the request."""
    name, table = choose_recipe(request, registry, model, beginning.recipe)
    table |= {} if beginning.normalize is None else {"normalize": beginning.normalize}
    table |= adapted(registry, request.recipe, spec)
    return name, apply_settings(table, request, f"recipe {name}")


def adapted(registry: Registry, asked: str | None, spec: str) -> dict[str, Any]:
    """The fields that a dataset of the catalogue replaces in a recipe, unless that was asked for by its name."""
    named = asked not in (None, "best", "source")
    return {} if named or spec not in registry.datasets else dict(registry.datasets[spec].adapt)


def _with_compiler(plan: Plan) -> Plan:
    """The plan with the compiler's mode decided, and its reason among the notes."""
    record, hardware, recipe = plan.record, plan.hardware, plan.recipe
    steps = recipe.epochs * math.ceil(record.data.train / recipe.batch_size)
    sizes = (record.sizes.in_channels, record.sizes.height, record.sizes.width)
    mode, why = choose(
        recipe.compile,
        hardware.device,
        min(steps, record.max_steps or steps),
        lambda: measure_pace(
            plan.build().train(),
            (recipe.batch_size, *sizes),
            hardware,
            why_not=why_no_graph(recipe, hardware),
        ),
    )
    return replace(
        plan,
        record=msgspec.structs.replace(record, compile=mode),
        hardware=hardware._replace(compile=mode),
        notes=(*plan.notes, f"compile {why}"),
    )


def replan(
    record: RunRecord,
    *,
    data_dir: str | None = None,
    epochs: int | None = None,
    workers: int | None = None,
    show: Show = silent,
) -> Plan:
    """The plan of a recorded run, to go on with it; `epochs` extends (or shortens) it.

    Args:
        workers: of streamed images; they change nothing but the time.
    Raises:
        RunError: the dataset is not the recorded one. Else as `resolve`.
    """
    kept, registry = record.data, load_registry()
    device = pick_device(record.device)
    delivery = Delivery(kept.mode, workers, str(device))
    skip_bad = kept.skipped > 0
    data = _load(kept.spec, registry, data_dir, kept.image_size, skip_bad, delivery, show, kept.transform)
    if data.fingerprint != kept.fingerprint:
        raise RunError(
            f"dataset {kept.spec!r} is not the one that the run was trained on: its fingerprint is "
            f"{data.fingerprint[:12]}, recorded {kept.fingerprint[:12]}"
        )
    if epochs is not None and record.max_steps:
        raise InputError(
            f"--epochs {epochs}: this run was cut off after {record.max_steps} steps (--max-steps), inside an epoch, "
            "and cannot be extended; train anew"
        )
    if epochs is not None:
        recipe = decode(Recipe, {**msgspec.to_builtins(record.settings), "epochs": epochs}, "--epochs")
        record = msgspec.structs.replace(record, settings=recipe, max_steps=None)
    splits = _splits(data, record.protocol == "clean", kept.limit_train, kept.limit_test)
    return Plan(
        record, registry, *splits, Hardware(device, record.precision, record.channels_last, record.compile)
    )


def differences(record: RunRecord) -> list[str]:
    """What keeps a resumed run from being bit-identical to an uninterrupted one: one line each."""
    now = environment(torch.device(record.device))
    before = {"processes": "1", **record.environment}
    found = [
        f"{key} is {now.get(key, 'absent')} now and was {was} before"
        for key, was in before.items()
        if key in ("torch", "threads", "device", "hybrid-zoo", "processes") and now.get(key) != was
    ]
    return found + changes(record.plugins, load_registry())


def _load(
    spec: str,
    registry: Registry,
    data_dir: str | None,
    image_size: int | None,
    skip_bad: bool,
    delivery: Delivery,
    show: Show,
    transform: Transform | None,
) -> ImageData:
    return load(
        spec,
        registry,
        data_dir=Path(data_dir) if data_dir else None,
        image_size=image_size,
        seed=VALIDATION_SEED,
        show=show,
        skip_bad=skip_bad,
        delivery=delivery,
        transform=transform,
    )


def choose_recipe(
    request: Request, registry: Registry, model: Model, default: str | None = None
) -> tuple[str, dict[str, Any]]:
    """The recipe's name and its fields: the default, else the model's own; "best", "source", or any by name."""
    name = recipe_name(request.recipe or default, request.model, model)
    return name, msgspec.to_builtins(registry.recipe(name))


def recipe_name(asked: str | None, name: str, model: Model) -> str:
    """What the catalogue calls a recipe that was asked for as "best", "source" (or None), or by its name.

    Args:
        name: the model's, for people.
    Raises:
        InputError: the model has no better recipe.
    """
    if asked == "best":
        if model.best is None:
            raise InputError(f"{name!r} has no recipe `best`; its own is {model.recipe!r}")
        return model.best
    return model.recipe if asked in (None, "source") else asked


def apply_settings(table: dict[str, Any], request: Request, where: str) -> Recipe:
    """Apply options and `--set recipe.key=value` over a recipe's table, and check the whole.

    Raises:
        SpecError: an unknown key or a wrong value; names it and what is allowed.
    """
    options = {
        key: getattr(request, key) for key in ("epochs", "batch_size", "lr", "precision", "on_nan", "compile")
    }
    table = table | {key: value for key, value in options.items() if value is not None}
    for setting in request.settings:
        key, mark, text = setting.partition("=")
        key = key.strip().removeprefix("recipe.")
        if not mark:
            raise SpecError(f"--set {setting}: write --set recipe.KEY=VALUE")
        table[key] = parse_value(text.strip())
    return decode(Recipe, table, where)


def parse_value(text: str) -> Any:
    """A value as in TOML; what TOML does not know is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _splits(
    data: ImageData, clean: bool, limit_train: int | None, limit_test: int | None
) -> tuple[Split, Split, Split]:
    """Training, selecting (validation, or the test split by the papers' protocol) and test images."""
    train = limit(data.train, limit_train)
    test = limit(data.test, limit_test)
    if not clean:
        return train, test, test
    rows, held_out = validation_split(train.labels, VALIDATION_FRACTION, VALIDATION_SEED, train.copies)
    return train.select(rows, train.copies), train.select(held_out, train.copies), test


def _refuse_empty_classes(data: ImageData) -> None:
    counts = class_counts(data.train, len(data.classes))
    empty = [name for name, count in zip(data.classes, counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"{data.spec}: no training image of class {empty[0]!r} ({len(empty)} of {len(data.classes)} classes "
            "are empty); remove the class, or see `zoo datasets check`"
        )


def _data_record(
    data: ImageData,
    splits: tuple[Split, Split, Split],
    request: Request,
    image_size: int | None,
    transform: Transform | None,
    beginning: Beginning,
) -> DataRecord:
    clean = request.protocol == "clean"
    return DataRecord(
        spec=data.spec,
        fingerprint=data.fingerprint,
        classes=data.classes,
        mean=beginning.mean or data.dataset.mean,
        std=beginning.std or data.dataset.std,
        train=len(splits[0]),
        validation=len(splits[1]) if clean else 0,
        test=len(splits[2]),
        validation_fraction=VALIDATION_FRACTION if clean else 0.0,
        limit_train=request.limit_train,
        limit_test=request.limit_test,
        image_size=image_size,
        skipped=data.skipped,
        mode="stream" if data.streamed else "resident",
        transform=transform,
    )


def environment(device: torch.device) -> dict[str, str]:
    """Versions, commit and hardware: what a reader needs to judge a number."""
    found = {"hybrid-zoo": __version__, "python": platform.python_version(), "device": describe(device)}
    found["torch"] = str(torch.__version__)
    for package in ("torchvision", "timm", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    found["threads"] = str(torch.get_num_threads())
    found["processes"] = str(size_here())
    return found | ({"commit": commit} if (commit := _commit()) else {})


def _commit() -> str:
    """The commit of the checkout that this code runs from; "" outside of one."""
    here = Path(__file__).resolve().parent.parent.parent
    if not (here / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
