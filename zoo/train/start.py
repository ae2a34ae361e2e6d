"""Training that begins with somebody's weights or run: the same again, or further on other images."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from torch import Tensor, nn

from zoo.catalogue.plugins import import_factory
from zoo.catalogue.registry import Registry, find_model, load_registry
from zoo.catalogue.spec import Node, Pretrained, node_from_table
from zoo.data.sources.base import Show, silent
from zoo.errors import HubConnectionError, HubError, InputError, PluginError
from zoo.hub.fetch import fetch, local_folder
from zoo.hub.package import is_local, sha256_of
from zoo.hub.ref import is_ref, parse_ref
from zoo.hub.session import talking
from zoo.hub.verify import usable_device
from zoo.models.compose import check, place
from zoo.runs.folder import CHECKPOINTS, RECORD, WEIGHTS, RunRecord, read_record, read_weights, without
from zoo.train import checkpoint
from zoo.train.plan import Beginning, Found, Plan, Request, apply_settings, replan, resolve

NAME = "zoo-from"
"""What the model and the recipe of the source are called while they are resolved."""

FINE_TUNE = "fine-tune"
"""The recipe of a run that begins with pretrained weights, where none is named."""

MAX_HOPS = 8

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


@dataclass(frozen=True)
class Weights:
    """Weights that a run can begin with: where they are, what they say about images, how to have them.

    Attributes:
        asked: as the user named them. origin: the reference that will always mean these.
        load: called with in_channels, height and width of the model; gives (tensors, sha256), and
            remembers them for the same sizes.
        hub: their repository on the Hub, where `origin` does not say it.
        side: images are resized to it, where `beginning` has no transform.
    """

    asked: str
    origin: str
    load: Callable[..., tuple[Mapping[str, Tensor], str]]
    beginning: Beginning
    hub: str = ""
    side: int | None = None


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
    source = _of_model(request.model, found, 0) if own else find_weights(weights, found[0])
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
        given: the options that were given, by the names of `zoo.train.plan.Request`. With `dataset`
            the weights are fine-tuned; without it the recorded run is repeated.
    Raises:
        InputError: an option that does not go with it, or weights of which none fits.
        ZooError: as fetching, and as `zoo.train.plan.resolve` and `replan`.
    """
    folder, _ = _found(source)
    record = read_record(folder)
    if given.get("dataset") is None:
        return warmed(_repeat(record, given, source, show))
    weights = _of_run(source)
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


def find_weights(reference: str, registry: Registry | None = None, hops: int = 0) -> Weights:
    """Find weights by their reference, and learn what they want; the weights themselves are not loaded.

    Args:
        reference: "hf://OWNER/NAME[@REVISION]" (a package), a run folder or a package's, or a model
            that has pretrained weights: of the catalogue, "timm/NAME.TAG", "torchvision/NAME.WEIGHTS".
    Raises:
        InputError: no such model, or one without pretrained weights. ZooError: they cannot be had.
    """
    if hops > MAX_HOPS:
        raise InputError(f"{reference}: pretrained weights that refer to one another in a circle")
    if is_ref(reference) or (Path(reference).expanduser() / RECORD).is_file():
        return _of_run(reference)
    registry = registry or load_registry()
    return _of_model(reference, (registry, reference, registry.model(reference)), hops)


def _of_run(source: str) -> Weights:
    folder, origin = _found(source)
    record = read_record(folder)
    data = record.data
    beginning = Beginning(
        transform=data.transform, mean=data.mean, std=data.std, normalize=record.settings.normalize
    )

    def load(**sizes: int) -> tuple[Mapping[str, Tensor], str]:
        del sizes
        return read_weights(folder), sha256_of(folder / WEIGHTS)

    return Weights(source, origin, load, beginning, side=None if data.transform else _same_size(record))


def _of_model(asked: str, found: Found, hops: int) -> Weights:
    """The pretrained weights of a model: what its entry names, else what its component declares."""
    registry, name, model = found
    component = registry.component(model.build.use)
    declared = model.pretrained or component.pretrained
    if declared is None:
        raise InputError(
            f"{name} has no pretrained weights of its own; name some: --weights hf://OWNER/NAME, a run "
            "folder, or a model that has, as timm/NAME"
        )
    if model.pretrained or is_ref(declared):
        return find_weights(declared, registry, hops + 1)
    function = import_factory(declared, model.build.use)
    plain = {key: value for key, value in model.build.args.items() if not isinstance(value, Node)}
    told = _having(asked, "", lambda: function(**plain))
    if not isinstance(told, Pretrained):
        raise InputError(
            f"{asked}: {declared} must return zoo.catalogue.spec.Pretrained, not {type(told).__name__}"
        )

    @lru_cache(1)
    def load(**sizes: int) -> tuple[Mapping[str, Tensor], str]:
        tensors = _having(asked, told.where, lambda: told.load(**sizes))
        return tensors, _digest(tensors)

    normalize = True if told.mean else None
    beginning = Beginning(transform=told.transform, mean=told.mean, std=told.std, normalize=normalize)
    return Weights(asked, told.origin, load, beginning, told.base_model)


def _having(asked: str, where: str, call: Callable[[], Any]) -> Any:
    """What a plugin gives that may have to fetch it.

    Raises:
        ZooError: it cannot be had; says what was asked, where it was looked for, and what to do.
    """
    advice = "or begin with others: --weights hf://OWNER/NAME, or a run folder"
    try:
        with talking(asked):
            return call()
    except HubError as error:
        cause = error.__cause__
        if type(error) is HubError and cause is not None and not isinstance(cause, OSError):
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
            raise PluginError(f"the weights of {asked} cannot be loaded: {reason}; {advice}") from cause
        looked = f" (looked at {where}, and in the cache)" if where else ""
        unreachable = isinstance(error, HubConnectionError) or _is_offline(error)
        kind = HubConnectionError if unreachable else type(error)
        raise kind(f"the weights of {error}{looked}; {advice}") from error


def _is_offline(error: BaseException) -> bool:
    """Whether what failed was a connection that is no conversation with the Hub: an address, a name."""
    cause = error.__cause__
    return isinstance(cause, OSError) and "urlopen" in str(cause)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of names."""
    from zoo.models.tensors import to_bytes

    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(to_bytes({name: tensors[name].detach()}, {}))
    return hasher.hexdigest()


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


def _same_size(record: RunRecord) -> int | None:
    """Images are resized to what the weights know, where that is square."""
    return record.sizes.height if record.sizes.height == record.sizes.width else None


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
