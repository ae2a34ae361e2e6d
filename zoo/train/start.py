"""Training that begins with somebody's weights or run: the same again, or further on other images."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from torch import Tensor, nn

from zoo.catalogue.registry import find_model
from zoo.catalogue.spec import node_from_table
from zoo.data.portable import is_local
from zoo.data.sources.source import Show, silent
from zoo.errors import InputError
from zoo.hub.ref import is_ref
from zoo.models.compose import check, place
from zoo.models.device import usable_device
from zoo.runs.record import CHECKPOINTS, RunRecord, read_record, without
from zoo.train import checkpoint
from zoo.train.plan import Found, Plan, replan, resolve
from zoo.train.pretrained import Weights, find_weights, folder_of, weights_of_model, weights_of_run
from zoo.train.request import Request, apply_settings

NAME = "zoo-from"
"""What the model and the recipe of the source are called while they are resolved."""

FINE_TUNE = "fine-tune"
"""The recipe of a run that begins with pretrained weights, where none is named."""


REPEATS_WITH = (
    "data_dir",
    "device",
    "seed",
    "epochs",
    "batch_size",
    "lr",
    "precision",
    "compile",
    "settings",
    "workers",
)


@dataclass(frozen=True)
class WarmPlan(Plan):
    """A plan whose module begins with given weights, as far as their shapes fit."""

    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The module as the seed makes it, then the given weights over it."""
        module = super().build()
        own = module.state_dict()
        module.load_state_dict({**own, **{n: w for n, w in self.weights.items() if _fits(own, n, w)}})
        return module


# ---- plans --------------------------------------------------------------------------------------


def plan_of(
    request: Request, weights: str | None = None, show: Show = silent, found: Found | None = None
) -> Plan:
    """The plan of a new run, that begins with weights or without.

    Args:
        weights: "" for the model's own pretrained ones, or a reference: see `find_weights`.
        found: as for `zoo.train.plan.resolve`.
    Raises:
        ZooError: as `resolve`; weights that cannot be had, or of which none fits.
    """
    if weights is None:
        return resolve(request, show, found)
    found = found or find_model(request.model)
    own = not weights
    source = weights_of_model(request.model, found, 0) if own else find_weights(weights, found[0])
    beginning = msgspec.structs.replace(
        source.beginning,
        recipe=FINE_TUNE,
        fetch=lambda height, width: source.load(in_channels=3, height=height, width=width),
    )
    asked = msgspec.structs.replace(request, image_size=request.image_size or source.side)
    return _warm(resolve(asked, show, found, beginning), source)


def plan_from(source: str, given: Mapping[str, Any], show: Show = silent) -> Plan:
    """The plan of a run that begins with another one.

    Args:
        source: a run folder, a package, or `hf://OWNER/NAME[@REVISION]`.
        given: the options that were given, by the names of `zoo.train.request.Request`. With `dataset`
            the weights are fine-tuned; without it the recorded run is repeated.
    Raises:
        InputError: an option that does not go with it, or weights of which none fits.
        ZooError: as fetching, and as `zoo.train.plan.resolve` and `replan`.
    """
    folder, _ = folder_of(source)
    record = read_record(folder)
    if given.get("dataset") is None:
        return warmed(_repeat(record, given, source, show))
    weights = weights_of_run(source)
    return _warm(_fine_tune(record, weights, given, show), weights)


def resumed(folder: Path, record: RunRecord, show: Show = silent, **options: Any) -> Plan:
    """The plan to go on with a run. What it began with is looked for only where it has no checkpoint yet.

    Args:
        options: of `zoo.train.plan.replan`.
    Raises:
        ZooError: as `replan` and `warmed`.
    """
    plan = replan(record, show=show, **options)
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


# ---- weights ------------------------------------------------------------------------------------


def _repeat(record: RunRecord, given: Mapping[str, Any], source: str, show: Show) -> Plan:
    odd = [key for key in given if key not in REPEATS_WITH]
    if odd:
        raise InputError(
            f"--from repeats the recorded run: --{odd[0].replace('_', '-')} cannot be given with it; "
            "with --dataset SPEC its weights are fine-tuned"
        )
    if is_local(record.data.spec) and is_ref(source):
        raise InputError(
            f"{source}: was made from {record.data.spec!r}, which only its author has at that place; "
            "fine-tune it on your own images with --dataset SPEC"
        )
    asked = Request(model=record.model, **given)
    changed = msgspec.structs.replace(
        record,
        settings=apply_settings(msgspec.to_builtins(record.settings), asked, f"recipe {record.recipe}"),
        seed=given.get("seed", record.seed),
        device=given.get("device") or usable_device(record.device),
    )
    return replan(changed, data_dir=given.get("data_dir"), workers=given.get("workers"), show=show)


def _fine_tune(record: RunRecord, weights: Weights, given: Mapping[str, Any], show: Show) -> Plan:
    """Resolve the source's tree and recipe as a model of a registry file of its own."""
    settings = {
        k: v for k, v in msgspec.to_builtins(record.settings).items() if k not in ("source", "summary")
    }
    model = {
        "summary": "the model of a run",
        "family": "run",
        "recipe": NAME,
        "build": without(record.build, "pretrained"),
    }
    recipe = {k: v for k, v in settings.items() if v is not None}
    tables = {"recipes": {NAME: recipe}, "models": {NAME: model}}
    with tempfile.TemporaryDirectory(prefix="zoo-from-") as temporary:
        file = Path(temporary) / "registry.toml"
        file.write_text(tomli_w.dumps(tables), "utf-8")
        asked = {"image_size": weights.side, **given}
        plan = resolve(Request(model=f"{file}#{NAME}", **asked), show, beginning=weights.beginning)
    chosen = record.recipe if plan.record.recipe == NAME else plan.record.recipe
    named = msgspec.structs.replace(plan.record, model=record.model, recipe=chosen)
    return replace(plan, record=named)


def _warm(plan: Plan, source: Weights) -> WarmPlan:
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
    return WarmPlan(
        record, plan.registry, plan.train, plan.selecting, plan.test, plan.hardware, plan.notes, weights=taken
    )


def _fits(own: Mapping[str, Tensor], name: str, tensor: Tensor) -> bool:
    return name in own and own[name].shape == tensor.shape and own[name].dtype == tensor.dtype
