"""Training that begins with somebody's run: the same again, or its weights for other images."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from torch import Tensor, nn

from zoo.data.rows import Show, silent
from zoo.errors import InputError
from zoo.hub.fetch import fetch, local_folder
from zoo.hub.ref import is_ref, parse_ref
from zoo.package import is_local, sha256_of
from zoo.run import WEIGHTS, RunRecord, read_record, read_weights, without
from zoo.train.plan import Plan, Request, apply_settings, replan, resolve
from zoo.verify import usable_device

NAME = "zoo-from"
"""What the model and the recipe of the source are called while they are resolved."""

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


def plan_from(source: str, given: Mapping[str, Any], show: Show = silent) -> Plan:
    """The plan of a run that begins with another one.

    Args:
        source: a run folder, a package, or `hf://OWNER/NAME[@REVISION]`.
        given: the options that were given, by the names of `zoo.train.plan.Request`. With `dataset`
            the weights are fine-tuned; without it the recorded run is repeated from fresh weights.
    Raises:
        InputError: an option that does not go with it, or weights of which none fits.
        ZooError: as fetching, and as `zoo.train.plan.resolve` and `replan`.
    """
    folder, name = _found(source)
    record = read_record(folder)
    if given.get("dataset") is None:
        return warmed(_repeat(record, given, source, show))
    plan = _fine_tune(record, given, show)
    base = msgspec.structs.replace(plan.record, base_model=name)
    return _warm(plan, base, read_weights(folder), source)


def warmed(plan: Plan) -> Plan:
    """The plan with the weights that its record says it began with; itself, where it says none.

    Raises:
        InputError: they are not on the Hub.
    """
    base = plan.record.base_model
    if not base:
        return plan
    if not is_ref(base):
        raise InputError(
            f"this run began with weights that are not on the Hub ({base[:30]}): it cannot be repeated"
        )
    return _warm(plan, plan.record, read_weights(local_folder(base)), base)


def _found(source: str) -> tuple[Path, str]:
    """The folder, and the name that the record keeps: of a commit, or of the weights themselves."""
    if is_ref(source):
        fetched = fetch(parse_ref(source))
        return fetched.folder, fetched.pinned
    folder = local_folder(source)
    read_record(folder)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{source}: has no {WEIGHTS} to begin with")
    return folder, f"sha256:{sha256_of(folder / WEIGHTS)}"


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


def _fine_tune(record: RunRecord, given: Mapping[str, Any], show: Show) -> Plan:
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
        asked = {"image_size": _same_size(record), **given}
        plan = resolve(Request(model=f"{file}#{NAME}", **asked), show)
    chosen = record.recipe if plan.record.recipe == NAME else plan.record.recipe
    named = msgspec.structs.replace(plan.record, model=record.model, recipe=chosen)
    return Plan(named, plan.registry, plan.train, plan.selecting, plan.test, plan.hardware)


def _same_size(record: RunRecord) -> int | None:
    """Images are resized to what the weights know, where that is square."""
    return record.sizes.height if record.sizes.height == record.sizes.width else None


def _warm(plan: Plan, record: RunRecord, weights: Mapping[str, Tensor], source: str) -> WarmPlan:
    warm = WarmPlan(
        record, plan.registry, plan.train, plan.selecting, plan.test, plan.hardware, weights=dict(weights)
    )
    own = Plan.build(plan).state_dict()
    fresh = [name for name in own if name not in weights or not _fits(own, name, weights[name])]
    if len(fresh) == len(own):
        raise InputError(f"{source}: none of its weights fits; this is another model")
    if fresh:
        shown = ", ".join(fresh[:4]) + (", ..." if len(fresh) > 4 else "")
        print(f"{len(own) - len(fresh)} of {len(own)} tensors from {source}; new: {shown}", file=sys.stderr)
    return warm


def _fits(own: Mapping[str, Tensor], name: str, tensor: Tensor) -> bool:
    return name in own and own[name].shape == tensor.shape and own[name].dtype == tensor.dtype
