"""The plan of a run: a new one, one that begins with somebody's weights, one that repeats a run or goes on with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from zoo.base.text import plural
from zoo.catalogue.registry import Registry, find_model, load_registry
from zoo.catalogue.spec import Model, node_from_table
from zoo.data.portable import is_local
from zoo.data.sources.source import Show, silent
from zoo.errors import InputError, RunError
from zoo.hub.ref import is_ref
from zoo.models.compose import check, place
from zoo.models.device import usable_device
from zoo.runs.folder import damage_of_weights, read_metrics
from zoo.runs.record import CHECKPOINTS, RESULT, RunRecord, read_record, without
from zoo.train import checkpoint
from zoo.train.environment import differences
from zoo.train.plan import Found, Plan, replan, resolve
from zoo.train.pretrained import Weights, find_weights, folder_of, weights_of_model, weights_of_run
from zoo.train.request import Request, apply_settings, flag, options, refuse_impossible

NAME = "zoo-from"
"""What the model and the recipe of the source are called while they are resolved."""

FINE_TUNE = "fine-tune"
"""The recipe of a run that begins with pretrained weights, where none is named."""


# ---- plans --------------------------------------------------------------------------------------


def plan_of(request: Request, show: Show = silent, found: Found | None = None) -> Plan:
    """The plan of a new run, that begins with the weights that the request names, if any.

    Args:
        found: as for `zoo.train.plan.resolve`.
    Raises:
        ZooError: as `resolve`; weights that cannot be had, or of which none fits.
    """
    refuse_impossible(request)
    if not request.pretrained and request.weights is None:
        return resolve(request, show, found)
    found = found or find_model(request.model)
    source = (
        weights_of_model(request.model, found, 0)
        if request.weights is None
        else find_weights(request.weights, found[0])
    )
    beginning = msgspec.structs.replace(
        source.beginning,
        recipe=FINE_TUNE,
        fetch=lambda height, width: source.load(in_channels=3, height=height, width=width),
    )
    sized = msgspec.structs.replace(request, image_size=request.image_size or source.side)
    return _warm(resolve(sized, show, found, beginning), source)


def plan_from(
    source: str, given: Mapping[str, Any], show: Show = silent, registry: Registry | None = None
) -> Plan:
    """The plan of a run that begins with another one.

    Args:
        source: a run folder, a package, or `hf://OWNER/NAME[@REVISION]`.
        given: the options that were given, by the names of `zoo.train.request.Request`. With `dataset`
            the weights are fine-tuned; without it the recorded run is repeated.
        registry: the catalogue; loaded if not given.
    Raises:
        InputError: an option that does not go with it, or weights of which none fits.
        ZooError: as fetching, and as `zoo.train.plan.resolve` and `replan`.
    """
    registry = registry or load_registry()
    folder, _ = folder_of(source, registry)
    record = read_record(folder)
    if given.get("dataset") is None:
        return warmed(_repeat(record, given, source, registry, show))
    weights = weights_of_run(source, registry)
    return _warm(_fine_tune(record, weights, given, registry, show), weights)


def continued(
    folder: Path,
    registry: Registry | None = None,
    *,
    epochs: int | None = None,
    show: Show = silent,
    warn: Callable[[str], None] = lambda line: None,
    **changed: Any,
) -> Plan:
    """The plan to go on with the run of a folder, to more epochs if asked.

    Args:
        epochs: in all, more than the run was made for.
        warn: receives a line for everything that keeps the run from being bit-identical to an uninterrupted one.
        changed: `data_dir` and `workers`, as for `zoo.train.plan.replan`.
    Raises:
        RunError: no run folder, a damaged one, or the run is finished.
        InputError: so many epochs are trained already. ZooError: as `resumed`.
    """
    registry = registry or load_registry()
    record = read_record(folder)
    longer = epochs is not None and epochs > record.settings.epochs
    if (folder / RESULT).is_file() and not longer and not damage_of_weights(folder):
        raise RunError(
            f"{folder}: this run is finished; extend it with --epochs N, N above {record.settings.epochs}"
        )
    trained = len(read_metrics(folder))
    if epochs is not None and not longer and epochs <= trained:
        raise InputError(
            f"--epochs {epochs}: {plural(trained, 'epoch has', 'epochs have')} been trained in {folder}; give more"
        )
    for line in differences(record, registry):
        warn(f"{line}: the resumed run will not be bit-identical")
    plan = resumed(folder, record, show, registry, epochs=epochs, **changed)
    if epochs is not None and record.settings.schedule != "constant":
        warn(
            f"the {record.settings.schedule} schedule now spans {plural(epochs, 'epoch')}, not "
            f"{record.settings.epochs}: the learning rate jumps to where the longer schedule is"
        )
    return plan


def resumed(
    folder: Path, record: RunRecord, show: Show = silent, registry: Registry | None = None, **changed: Any
) -> Plan:
    """The plan of a record. What the run began with is looked for only where it has no checkpoint yet.

    Args:
        changed: as for `zoo.train.plan.replan`.
    Raises:
        ZooError: as `replan` and `warmed`.
    """
    plan = replan(record, registry, show=show, **changed)
    return plan if checkpoint.exists(folder / CHECKPOINTS) else warmed(plan)


def warmed(plan: Plan) -> Plan:
    """The plan with the weights that its record says it began with; itself, where it says none.

    Raises:
        InputError: they are files of somebody's machine. ZooError: they cannot be had.
    """
    record = plan.record
    if not record.base_model:
        return plan
    if record.base_model.startswith("sha256:"):
        raise InputError(
            f"this run began with weights that are not on the Hub ({record.base_model[:30]}): it cannot be repeated"
        )
    warm = _warm(plan, find_weights(record.base_model, plan.registry))
    if record.base_sha256 not in ("", warm.record.base_sha256):
        print(
            f"warning: the weights of {record.base_model} are not those that were recorded (sha256 "
            f"{warm.record.base_sha256[:12]}, recorded {record.base_sha256[:12]}): this is not the same run",
            file=sys.stderr,
        )
    return warm


def _repeat(record: RunRecord, given: Mapping[str, Any], source: str, registry: Registry, show: Show) -> Plan:
    other = [name for name in given if not options()[name].repeat]
    if other:
        raise InputError(
            f"--from repeats the recorded run: {flag(other[0])} cannot be given with it; "
            "with --dataset SPEC its weights are fine-tuned"
        )
    if is_local(record.data.spec) and is_ref(source):
        raise InputError(
            f"{source}: was made from {record.data.spec!r}, which only its author has at that place; "
            "fine-tune it on your own images with --dataset SPEC"
        )
    asked = Request(model=record.model, **given)
    refuse_impossible(asked)
    changed = msgspec.structs.replace(
        record,
        settings=apply_settings(msgspec.to_builtins(record.settings), asked, f"recipe {record.recipe}"),
        seed=given.get("seed", record.seed),
        device=given.get("device") or usable_device(record.device),
    )
    return replan(changed, registry, data_dir=given.get("data_dir"), workers=given.get("workers"), show=show)


def _fine_tune(
    record: RunRecord, weights: Weights, given: Mapping[str, Any], registry: Registry, show: Show
) -> Plan:
    """Resolve the source's tree and recipe, as entries of the catalogue that only this plan sees."""
    recipe = msgspec.structs.replace(record.settings, summary="", source=None)
    tree = node_from_table(without(record.build, "pretrained"), f"{weights.asked}: build")
    model = Model(summary="the model of a run", family="run", recipe=NAME, build=tree)
    request = Request(model=NAME, **{"image_size": weights.side, **given})
    private = registry.having(models={NAME: model}, recipes={NAME: recipe})
    plan = resolve(request, show, (private, NAME, model), weights.beginning)
    chosen = record.recipe if plan.record.recipe == NAME else plan.record.recipe
    return replace(plan, record=msgspec.structs.replace(plan.record, model=record.model, recipe=chosen))


def _warm(plan: Plan, source: Weights) -> Plan:
    """The plan that begins with the weights, and its record that says so.

    Raises:
        InputError: none of them fits. ZooError: they cannot be had.
    """
    sizes = msgspec.structs.asdict(plan.record.sizes)
    weights, sha256 = source.load(**{key: sizes[key] for key in ("in_channels", "height", "width")})
    tree = node_from_table(plan.record.build, "build")
    own = check(tree, plan.registry, where=place(plan.registry, plan.record.model), **sizes).state_dict()
    fresh = [name for name in own if name not in weights or not _fits(own, name, weights[name])]
    if len(fresh) == len(own):
        raise InputError(f"{source.asked}: none of its weights fits; this is another model")
    if fresh:
        shown = ", ".join(fresh[:4]) + (", ..." if len(fresh) > 4 else "")
        print(
            f"{len(own) - len(fresh)} of {len(own)} tensors from {source.asked}; new: {shown}",
            file=sys.stderr,
        )
    record = msgspec.structs.replace(
        plan.record, base_model=source.origin, base_sha256=sha256, base_hub=source.hub
    )
    taken = {name: weights[name] for name in own.keys() - set(fresh)}
    return replace(plan, record=record, weights=taken)


def _fits(own: Mapping[str, Tensor], name: str, tensor: Tensor) -> bool:
    return name in own and own[name].shape == tensor.shape and own[name].dtype == tensor.dtype
