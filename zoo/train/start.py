"""Makes the plan of a run: a new run, a fine-tuning, a repetition of a recorded run, or a resumed run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec
import torch

from zoo.base.text import plural
from zoo.catalogue.own_import import refuse_while_importing
from zoo.catalogue.provenance import provenance, require_components
from zoo.catalogue.registry import Registry, find_model, load_registry
from zoo.catalogue.spec import Model
from zoo.data.portable import is_local
from zoo.data.sources.source import Show, silent
from zoo.errors import DeviceError, InputError, RunError
from zoo.hub.ref import is_ref
from zoo.hub.sums import SUMS
from zoo.models.device import pick_device, pick_layout, usable_device
from zoo.models.own_module import state_hash
from zoo.models.precision import pick_precision
from zoo.runs.folder import any_result, extensions_of, is_finished, read_metrics, read_result
from zoo.runs.own_source import own_of_run, renewed, reopened, with_model
from zoo.runs.record import CHECKPOINTS, RunRecord, read_record, tree_of
from zoo.train import checkpoint
from zoo.train.batch_that_fits import with_micro_batches
from zoo.train.environment import differences, environment
from zoo.train.given import Given
from zoo.train.pinned import folder_of
from zoo.train.plan import Entry, Plan, refuse_longer, replan, resolve, with_compiler
from zoo.train.pretrained import Weights, find_weights, weights_of_model, weights_of_run, with_weights
from zoo.train.recipe_settings import apply_settings
from zoo.train.run_options import AUTO, Request, flag, options, refuse_impossible
from zoo.train.speed.threads import as_recorded
from zoo.train.task import ONE

OF_THE_IMAGES = ("normalize", "image_size")
"""Settings that decided how the images of a run were read."""

NAME = "zoo-from"
"""A temporary name for the source's model and recipe while they are resolved."""

BEGUN = "begun in"
"""In a record's environment: number type and device of a run that went on with a device of another kind."""

FINE_TUNE = "fine-tune"
"""The default recipe of a run that starts from pretrained weights."""


# ---- plans --------------------------------------------------------------------------------------


def plan_of(
    request: Request,
    show: Show = silent,
    entry: Entry | None = None,
    given: Given = Given(),  # noqa: B008 - frozen
) -> Plan:
    """The plan of a new run, with the initial weights that the request names, if any.

    Args:
        entry: as for `zoo.train.plan.resolve`.
        given: what takes the place of names in the request, see `zoo.train.given.taken`.
    Raises:
        ZooError: as `resolve`; also if weights cannot be loaded, or none of them fits.
    """
    refuse_while_importing()
    refuse_impossible(request)
    entry = entry or given.entry()
    if not request.pretrained and request.weights is None:
        return fitting(resolve(request, show, entry, given=given), request)
    entry = entry or find_model(request.model)
    source = (
        weights_of_model(request.model, entry, 0)
        if request.weights is None
        else find_weights(request.weights, entry[0])
    )
    beginning = msgspec.structs.replace(
        source.beginning,
        recipe=FINE_TUNE,
        fetch=lambda height, width: source.load(in_channels=3, height=height, width=width),
    )
    sized = msgspec.structs.replace(request, image_size=request.image_size or source.side)
    return with_weights(fitting(resolve(sized, show, entry, beginning, given), request), source)


def fitting(plan: Plan, request: Request) -> Plan:
    """The plan with micro-batches that fit in memory, where the request asks for it.

    Raises:
        InputError: several processes train together. DeviceError: nothing fits.
    """
    return with_compiler(with_micro_batches(plan)) if request.batch_size == AUTO else plan


def plan_from(
    source: str,
    given: Mapping[str, Any],
    show: Show = silent,
    registry: Registry | None = None,
    warn: Callable[[str], None] = lambda line: None,
    own: Given = Given(),  # noqa: B008 - frozen
) -> Plan:
    """The plan of a run that repeats another run or fine-tunes its weights.

    Args:
        source: a run folder, a package, or `hf://OWNER/NAME[@REVISION]`.
        given: the given options, by their names in `zoo.train.run_options.Request`. With `dataset` the
            weights are fine-tuned; without it the recorded run is repeated.
        registry: the catalogue; loaded if not given.
        warn: receives a line if the weights are not those that are recorded, or the run was extended.
        own: what takes the place of names, or is given again: see `zoo.train.given`.
    Raises:
        InputError: an option that cannot be combined with it, or none of the weights fits.
        ZooError: as fetching, and as `zoo.train.plan.resolve` and `replan`.
    """
    registry = registry or load_registry()
    folder, _ = folder_of(source, registry)
    record = read_record(folder)
    own = replace(own, warn=warn)
    registry = _with_code(folder, record, registry, own)
    if given.get("dataset") is None:
        for line in extensions_of(any_result(folder)):
            warn(f"{source}: was extended ({line}); the repetition has that schedule from the start, and other numbers")
        return warmed(_repeat(record, given, source, registry, show, own), warn)
    weights = weights_of_run(source, registry)
    return with_weights(_fine_tune(record, weights, given, registry, show, own), weights)


def _with_code(folder: Path, record: RunRecord, registry: Registry, own: Given) -> Registry:
    """The catalogue with the user's own code that a run is made of: as it is given again, else as it was."""
    if own.model is not None:
        return with_model(folder, record, registry, own.model)
    return reopened(folder, record, registry, own.warn)


def continued(
    folder: Path,
    registry: Registry | None = None,
    *,
    epochs: int | None = None,
    device: str | None = None,
    show: Show = silent,
    warn: Callable[[str], None] = lambda line: None,
    given: Given = Given(),  # noqa: B008 - frozen
    **changed: Any,
) -> Plan:
    """The plan to resume the run of a folder, or to extend it to more epochs.

    Args:
        epochs: the new total number of epochs. workers: as for `zoo.train.plan.replan`.
        device: the name of the one to go on with; None: the recorded one.
        given: a model, images or a function for batches that the run was given and is given again, see
            `zoo.train.given.again`. A model out of a file need not be: the run's copy of the file is used.
        warn: receives a line for each difference that makes the run not bit-identical to an uninterrupted one.
    Raises:
        RunError: not a run folder, a damaged one, or the run is finished.
        InputError: that many epochs are already trained. DeviceError: the device is not here. ZooError: as `resumed`.
    """
    registry = registry or load_registry()
    record = read_record(folder)
    refuse_package(folder)
    longer = epochs is not None and epochs > record.settings.epochs
    if is_finished(folder) and not longer:
        raise RunError(
            f"{folder}: this run is finished; to extend it, give --epochs N with N above {record.settings.epochs}"
        )
    refuse_soup(record, str(folder))
    if is_finished(folder) and "calibration" in read_result(folder):
        warn(f"{folder}: its calibration is that of the shorter run, and is not kept: calibrate the longer one again")
    trained = len(read_metrics(folder))
    if epochs is not None and not longer and epochs <= trained:
        raise InputError(
            f"--epochs {epochs}: {plural(trained, 'epoch has', 'epochs have')} already been trained in {folder}; "
            "give a larger number"
        )
    begun, record = record, _on_device(folder, record, device)
    threads = as_recorded(record)
    given = replace(given, warn=warn)
    registry = _with_code(folder, record, registry, given)
    for line in differences(record, registry):
        warn(f"{line}: the resumed run will not be bit-identical")
    if given.model is not None:
        record = renewed(record, registry)
    plan = resumed(folder, record, show, registry, warn=warn, epochs=epochs, given=given, **changed)
    plan = _moved(plan, begun, warn)
    if given.model is not None:
        _refuse_another_shape(folder, plan)
    if epochs is not None and record.settings.schedule != "constant":
        warn(
            f"the {record.settings.schedule} schedule now spans {plural(epochs, 'epoch')} instead of "
            f"{record.settings.epochs}, so the learning rate jumps to its value in the longer schedule"
        )
    return replace(plan, notes=(*plan.notes, threads)) if threads else plan


def _on_device(folder: Path, record: RunRecord, device: str | None) -> RunRecord:
    """The record of a run that goes on with another device, or with its own one if that is here.

    Raises:
        InputError, DeviceError: as `pick_device`.
    """
    if device is not None:
        return msgspec.structs.replace(record, device=str(pick_device(device)))
    try:
        pick_device(record.device)
    except DeviceError as error:
        raise DeviceError(
            f"{folder}: {error}; `zoo train --resume {quote(str(folder))} --device auto` goes on with another one"
        ) from None
    return record


def _moved(plan: Plan, begun: RunRecord, warn: Callable[[str], None]) -> Plan:
    """The plan of a run that goes on with a device of another kind: number type, layout and compiler are its own."""
    if plan.hardware.device.type == torch.device(begun.device).type:
        return plan
    plan = with_compiler(_as_asked_now(plan, begun))
    if plan.record.precision != begun.precision:
        now = f"precision is now {plan.record.precision} and was {begun.precision}"
        warn(f"{now}: the resumed run will not be bit-identical")
    known = {BEGUN: f"{begun.precision} on {begun.device}", **plan.record.environment}
    return replace(plan, record=msgspec.structs.replace(plan.record, environment=known))


def refuse_package(folder: Path) -> None:
    """Refuse to train in a package: its files are what their hashes say.

    Raises:
        InputError: says what can be done instead.
    """
    if (folder / SUMS).is_file():
        raise InputError(
            f"{folder}: is a package, which must not change; zoo train --from {quote(str(folder))} repeats its "
            "run, and with --dataset SPEC trains its weights further"
        )


def refuse_anew(folder: Path, record: RunRecord) -> None:
    """Refuse to extend a finished run that has nothing to go on from: it would be trained anew.

    Raises:
        RunError: says what can be done instead.
    """
    if is_finished(folder) and not checkpoint.exists(folder / CHECKPOINTS):
        raise RunError(
            f"{folder}: has no checkpoint to go on from, and training anew would replace its weights; to train them "
            f"further: zoo train {record.model} --weights {quote(str(folder))}"
        )


def refuse_soup(record: RunRecord, where: str) -> None:
    """Refuse to train what was not trained, but made of other runs.

    Raises:
        InputError: says what can be done instead.
    """
    if record.is_ensemble:
        raise InputError(
            f"{where}: is an ensemble of other runs, and cannot be trained further or repeated; train its members"
        )
    if record.soup:
        raise InputError(
            f"{where}: is a soup: its weights are the mean of other runs' and cannot be trained further or repeated; "
            f"to fine-tune them, use zoo train {record.model} --weights {quote(where)}"
        )


def _refuse_another_shape(folder: Path, plan: Plan) -> None:
    """Refuse a model that is given again and is another one, before the run's record names it.

    Raises:
        InputError: names a tensor in which they differ.
    """
    newest = checkpoint.newest(folder / CHECKPOINTS, lambda line: None)
    if newest is None:
        return
    wanted, given = newest.state["module"], plan.build().state_dict()
    for name in (*wanted, *given):
        then, now = (str(tuple(t[name].shape)) if name in t else "none" for t in (wanted, given))
        if then != now:
            raise InputError(f"{folder}: the model that is given is another one: {name}: {now} now, {then} in the run")


def resumed(
    folder: Path,
    record: RunRecord,
    show: Show = silent,
    registry: Registry | None = None,
    *,
    warn: Callable[[str], None] = lambda line: None,
    **changed: Any,
) -> Plan:
    """The plan of a recorded run. Its initial weights are loaded only if it has no checkpoint yet.

    Args:
        warn: as for `warmed`. changed: as for `zoo.train.plan.replan`.
    Raises:
        ZooError: as `replan` and `warmed`.
    """
    plan = replan(record, registry, show=show, **changed)
    return plan if checkpoint.exists(folder / CHECKPOINTS) else warmed(plan, warn)


def warmed(plan: Plan, warn: Callable[[str], None] = lambda line: None) -> Plan:
    """The plan with the initial weights that its record names; the same plan if it names none.

    Args:
        warn: receives a line if the weights are not those that are recorded.
    Raises:
        InputError: the weights are local files of another machine. ZooError: they cannot be loaded.
    """
    record = plan.record
    if not record.base_model:
        return plan
    if own_of_run(record, "module") and record.base_sha256 == state_hash(plan.build()):
        return plan
    if record.base_model.startswith("sha256:"):
        raise InputError(
            f"this run started from weights that are not on the Hub ({record.base_model[:30]}) and cannot be repeated"
        )
    warm = with_weights(plan, find_weights(record.base_model, plan.registry))
    if record.base_sha256 not in ("", warm.record.base_sha256):
        warn(
            f"the weights of {record.base_model} differ from the recorded ones (sha256 "
            f"{warm.record.base_sha256[:12]}, recorded {record.base_sha256[:12]}), so the run will differ"
        )
    return warm


def _repeat(
    record: RunRecord, given: Mapping[str, Any], source: str, registry: Registry, show: Show, own: Given
) -> Plan:
    other = [name for name in given if not options()[name].repeat]
    refuse_soup(record, source)
    if other:
        raise InputError(
            f"--from repeats the recorded run, so {flag(other[0])} cannot be given; "
            "add --dataset SPEC to fine-tune its weights instead"
        )
    if is_local(record.data.spec) and is_ref(source):
        raise InputError(
            f"{source}: was trained on {record.data.spec!r}, a local path of its author; "
            "fine-tune it on your own images with --dataset SPEC"
        )
    request = Request(model=record.model, **given)
    refuse_impossible(request)
    changed = msgspec.structs.replace(
        record,
        settings=apply_settings(msgspec.to_builtins(record.settings), request, f"recipe {record.recipe}"),
        seed=given.get("seed", record.seed),
        device=given.get("device") or usable_device(record.device),
    )
    _refuse_other_images(record, changed)
    if changed.settings.teacher != record.settings.teacher:
        changed = msgspec.structs.replace(changed, teacher=msgspec.UNSET)
    plan = replan(changed, registry, given=own, data_dir=given.get("data_dir"), workers=given.get("workers"), show=show)
    plan = _as_asked_now(plan, record)
    plan = with_micro_batches(plan) if request.batch_size == AUTO else plan
    plan = with_compiler(plan) if _is_another_step(plan, record) else plan
    return replace(plan, record=_made_here(renewed(plan.record, registry), registry))


def _refuse_other_images(record: RunRecord, changed: RunRecord) -> None:
    """Refuse settings of a repetition that would need its images to be read in another way, or more steps.

    Raises:
        InputError: says what can be done instead.
    """
    for key in OF_THE_IMAGES:
        if getattr(record.settings, key) != getattr(changed.settings, key):
            raise InputError(
                f"--from repeats the recorded run on its images as they were, so recipe.{key} cannot be changed; a new "
                f"run can: zoo train {record.model} --dataset SPEC --set recipe.{key}=..."
            )
    refuse_longer(record, changed.settings.epochs)


def _as_asked_now(plan: Plan, before: RunRecord) -> Plan:
    """A repetition in the precision and layout of its recipe, where that or the device is another one than it was."""
    record, recipe, device = plan.record, plan.recipe, plan.hardware.device
    moved = device.type != torch.device(before.device).type
    precision, last = record.precision, record.channels_last
    if moved or recipe.precision != before.settings.precision:
        precision = pick_precision(recipe.precision, device)
    if moved or precision != before.precision or recipe.channels_last != before.settings.channels_last:
        last = pick_layout(recipe.channels_last, plan.build(), device, precision)
    record = msgspec.structs.replace(record, precision=precision, channels_last=last)
    return replace(plan, record=record, hardware=plan.hardware._replace(precision=precision, channels_last=last))


def _is_another_step(plan: Plan, before: RunRecord) -> bool:
    """Whether it has to be decided anew how the steps of a repetition are compiled."""
    moved = plan.hardware.device.type != torch.device(before.device).type
    asked = plan.recipe.compile != before.settings.compile
    return moved or asked or (before.compile != "off" and plan.recipe != before.settings)


def _made_here(record: RunRecord, registry: Registry) -> RunRecord:
    """The record of a repetition: its versions, commit, hardware and plugins are those of this machine."""
    tree = tree_of(record)
    names = {"model": record.model, "recipe": record.recipe, "dataset": record.data.spec}
    return msgspec.structs.replace(
        record, plugins=provenance(registry, tree, **names), environment=environment(torch.device(record.device))
    )


def _fine_tune(
    record: RunRecord, weights: Weights, given: Mapping[str, Any], registry: Registry, show: Show, own: Given
) -> Plan:
    """Resolve the source's tree and recipe as entries of a private copy of the catalogue."""
    recipe = msgspec.structs.replace(record.settings, summary="", source=None, teacher=None, distill=None)
    if record.without_labels:
        recipe = msgspec.structs.replace(recipe, objective="labels", mask=None, select="top1")
    if switched := _has_switched_loss(record, registry):
        recipe = msgspec.structs.replace(recipe, loss="cross-entropy")
    tree = tree_of(record, f"{weights.reference}: build", pretrained=False)
    require_components(tree, record.plugins, registry, "the run", weights.reference)
    model = Model(summary="the model of a run", family="run", recipe=NAME, build=tree)
    request = Request(model=NAME, **{"image_size": weights.side, **given})
    private = registry.having(models={NAME: model}, recipes={NAME: recipe})
    plan = fitting(resolve(request, show, (private, NAME, model), weights.beginning, own), request)
    chosen = record.recipe if plan.record.recipe == NAME else plan.record.recipe
    if switched and plan.recipe.loss == "cross-entropy":
        plan = replace(plan, messages=(*plan.messages, f"{ONE}: loss cross-entropy in place of bce"))
    return replace(plan, record=msgspec.structs.replace(plan.record, model=record.model, recipe=chosen))


def _has_switched_loss(record: RunRecord, registry: Registry) -> bool:
    """Whether a run has its loss because its images have several labels, and not by its recipe."""
    known = registry.recipes.get(record.recipe)
    return record.data.is_multi_label and record.settings.loss == "bce" and (known is None or known.loss != "bce")
