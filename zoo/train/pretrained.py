"""Initial weights of a run: finding them, and how their images are prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec
import torch
from torch import Tensor

from zoo.base.files import sha256_of
from zoo.base.paths import local_path
from zoo.base.text import plural
from zoo.catalogue.provenance import changes
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.weights import AT
from zoo.data.sources.labels import composed
from zoo.errors import InputError
from zoo.hub.ask_library import ask, fetched
from zoo.hub.ref import is_ref
from zoo.models.compose import check, place
from zoo.models.tensors import digest
from zoo.runs.folder import read_weights
from zoo.runs.record import RECORD, WEIGHTS, RunRecord, read_record, tree_of
from zoo.runs.which import is_ensemble, reference_of
from zoo.train.optim.freeze import logits_layer
from zoo.train.pinned import folder_of
from zoo.train.plan import Entry, Plan
from zoo.train.recipe_settings import Beginning

MAX_HOPS = 8

ADVICE = "or start from others: --weights hf://OWNER/NAME, or a run folder"
"""What to do where weights cannot be had."""


@dataclass(frozen=True)
class Weights:
    """Weights that a run can start from: their origin, how their images are prepared, how to load them.

    Attributes:
        reference: the name that the user gave. origin: the permanent reference to exactly these weights.
        load: called with in_channels, height and width of the model; returns (tensors, sha256), and
            caches them for the same sizes.
        hub: their repository on the Hub, if it is not in `origin`.
        side: images are resized to this side, if `beginning` has no transform.
        classes: names of the classes that they tell apart, in order; empty if that is not known.
        without_head: the last layer was never trained, and so is not taken over.
        changed: components that come from another version of their plugin now, a line each: what they compute, and
            the defaults of their arguments, may be others than those that the weights were trained with.
    """

    reference: str
    origin: str
    load: Callable[..., tuple[Mapping[str, Tensor], str]]
    beginning: Beginning
    hub: str = ""
    side: int | None = None
    classes: tuple[str, ...] = ()
    without_head: bool = False
    changed: tuple[str, ...] = ()


def find_weights(reference: str, registry: Registry | None = None, hops: int = 0) -> Weights:
    """Find weights by their reference, and how their images are prepared, without loading them.

    Args:
        reference: "hf://OWNER/NAME[@REVISION]" (a package), a run as in `zoo.runs.which`, or a model
            that has pretrained weights: one of the catalogue, "timm/NAME.TAG", "torchvision/NAME.WEIGHTS".
    Raises:
        InputError: no such model, or one without pretrained weights. ZooError: they cannot be loaded.
    """
    if hops > MAX_HOPS:
        raise InputError(
            f"{reference}: its pretrained weights refer to one another in a circle; fix `pretrained` in registry.toml"
        )
    registry = registry or load_registry()
    is_ensemble(reference, allowed=False)
    is_folder = (local_path(reference) / RECORD).is_file()
    if is_ref(reference) or is_folder or (reference not in registry.models and reference_of(reference) is not None):
        return weights_of_run(reference, registry)
    return weights_of_model(reference, (registry, reference, registry.model(reference)), hops)


def weights_of_run(source: str, registry: Registry) -> Weights:
    """The weights of a run folder or a package, given by its path or reference."""
    folder, origin = folder_of(source, registry)
    record = read_record(folder)
    if record.is_ensemble:
        raise InputError(f"{source}: is an ensemble of other runs, and cannot be trained further; train its members")
    data = record.data
    expected = None if data.scaling else data.transform  # beside a scaling, it was taken over from a dataset's
    beginning = Beginning(
        transform=expected,
        scaling=data.scaling or None,
        mean=data.mean,
        std=data.std,
        normalize=record.settings.normalize,
    )

    def load(**sizes: int) -> tuple[Mapping[str, Tensor], str]:
        del sizes
        return read_weights(folder), sha256_of(folder / WEIGHTS)

    side = None if expected else _same_size(record)
    changed = tuple(changes({use: was for use, was in record.plugins.items() if use in registry.components}, registry))
    if record.without_labels:
        return Weights(source, origin, load, beginning, side=side, without_head=True, changed=changed)
    return Weights(source, origin, load, beginning, side=side, classes=data.classes, changed=changed)


def weights_of_model(reference: str, entry: Entry, hops: int) -> Weights:
    """The pretrained weights of a model: those that its entry names, its component's, else its first trained ones."""
    registry, name, model = entry
    component = registry.component(model.build.use)
    declared = model.pretrained or component.pretrained
    if declared is None and model.weights:
        return weights_of_run(f"{name}{AT}{model.weights[0].dataset}", registry)
    if declared is None:
        raise InputError(
            f"{name} has no pretrained weights of its own; give others: --weights hf://OWNER/NAME, a run "
            "folder, or a model that has some, such as timm/NAME"
        )
    if model.pretrained or is_ref(declared):
        return find_weights(declared, registry, hops + 1)
    pretrained = ask(reference, model.build, declared, ADVICE)

    @lru_cache(1)
    def load(**sizes: int) -> tuple[Mapping[str, Tensor], str]:
        tensors = fetched(reference, pretrained.where, pretrained.load, ADVICE, **sizes)
        return tensors, digest(tensors)

    normalize = True if pretrained.mean else None
    beginning = Beginning(transform=pretrained.transform, mean=pretrained.mean, std=pretrained.std, normalize=normalize)
    return Weights(reference, pretrained.origin, load, beginning, pretrained.base_model)


def _same_size(record: RunRecord) -> int | None:
    """The side of the images that the weights were trained on, if they are square."""
    return record.sizes.height if record.sizes.height == record.sizes.width else None


def with_weights(plan: Plan, source: Weights) -> Plan:
    """The plan with these initial weights, which its record then names.

    Raises:
        InputError: none of them fits. ZooError: they cannot be loaded.
    """
    sizes = msgspec.structs.asdict(plan.record.sizes)
    weights, sha256 = source.load(**{key: sizes[key] for key in ("in_channels", "height", "width")})
    tree = tree_of(plan.record)
    where = place(plan.registry, plan.record.model)
    outline = check(tree, plan.registry, where=where, **sizes)
    needed, anew = outline.state_dict(), logits_layer(outline) if source.without_head else ()
    lines = [
        f"{source.reference}: {line}; the weights go on in the code and defaults of now" for line in source.changed
    ]
    fresh = [n for n in needed if n in anew or n not in weights or not _fits(needed, n, weights[n])]
    if len(fresh) == len(needed):
        raise InputError(
            f"{source.reference}: none of its weights fits this model; give the weights of the same architecture"
        )
    if fresh:
        shown = ", ".join(fresh[:4]) + (", ..." if len(fresh) > 4 else "")
        line = (
            f"{len(needed) - len(fresh)} of {len(needed)} tensors from {source.reference}; newly initialised: {shown}"
        )
        lines.append(line)
    record = msgspec.structs.replace(plan.record, base_model=source.origin, base_sha256=sha256, base_hub=source.hub)
    taken = {name: weights[name] for name in needed.keys() - set(fresh)}
    rows, line = rows_by_name(source.classes, plan.record.data.classes, source.reference)
    lines += [line] if line else []
    if rows is not None:
        more = check(tree, plan.registry, where=where, **{**sizes, "num_classes": len(rows) + 1}).state_dict()
        taken = {name: _ordered(tensor, more[name], rows) for name, tensor in taken.items()}
    return replace(plan, record=record, weights=taken, messages=(*plan.messages, *lines))


def rows_by_name(before: tuple[str, ...], now: tuple[str, ...], reference: str) -> tuple[list[int] | None, str]:
    """Which class of the weights each class of the dataset begins as, where a head for as many classes is taken over.

    A class begins as the one of its name. Those whose names are new get what is left, in order: if all names are
    new, nothing is moved.

    Returns:
        A number below len(before) for each class, or None if none is moved; and a line for people, "" where nothing is
        to be said.
    """
    before, now = tuple(map(composed, before)), tuple(map(composed, now))  # accents may be spelled in two ways
    if before and len(before) != len(now):
        known = len({*before} & {*now})
        return None, (
            f"{reference} tells {plural(len(before), 'class')} apart, this dataset has {len(now)} ({known:,} of the "
            "same name): the last layer begins anew for all of them"
        )
    if before == now or not before or len({*before}) < len(before) or len({*now}) < len(now):
        return None, ""
    left = iter([row for row, name in enumerate(before) if name not in now])
    rows = [before.index(name) if name in before else next(left) for name in now]
    new = [name for name in now if name not in before]
    if not new:
        line = f"the classes are those of {reference} in another order: the last layer's weights follow their names"
    else:
        shown = ", ".join(new[:4]) + (", ..." if len(new) > 4 else "")
        line = (
            f"{plural(len(new), 'class')} of {len(now)} had no such name in {reference} ({shown}): in the last layer, "
            "they begin with the weights of other classes"
        )
    return (None if rows == list(range(len(rows))) else rows), line


def _ordered(tensor: Tensor, with_one_more: Tensor, rows: list[int]) -> Tensor:
    """A tensor with its classes reordered; the one that differs in size for one class more is the axis of classes."""
    sizes = zip(tensor.shape, with_one_more.shape, strict=True)
    axes = [axis for axis, (size, larger) in enumerate(sizes) if (size, larger) == (len(rows), len(rows) + 1)]
    for axis in axes:
        tensor = tensor.index_select(axis, torch.tensor(rows, device=tensor.device))
    return tensor


def _fits(needed: Mapping[str, Tensor], name: str, tensor: Tensor) -> bool:
    return name in needed and needed[name].shape == tensor.shape and needed[name].dtype == tensor.dtype
