"""What only the model and its data can tell: FLOPs, confusion, the images it was most wrongly sure of.

Everything is kept in the cache folder under the hash of what it was made from, for as long as the sources of the
plugins stay as they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from zoo.base.files import WriteError, sha256_of, write_bytes
from zoo.base.paths import cache_dir
from zoo.base.stamps import installed, stamp, unchanged
from zoo.base.structs import Struct
from zoo.base.text import reason_of
from zoo.base.version import __version__
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node
from zoo.data.dataset_spec import find
from zoo.data.thumbnails import data_uri
from zoo.errors import DataError, InputError, ZooError
from zoo.evaluate.one_pass import Keep
from zoo.evaluate.opened import open_run
from zoo.models.device import usable_device
from zoo.models.tried import stamps_of
from zoo.runs.folder import temperature_of
from zoo.runs.record import WEIGHTS, RunRecord, configuration, tree_of

FORMAT = 3  # 2: of models that are counted on a CPU, attention was left out
REMOTE = ("hf", "torchvision", "plugin")
"""Schemes of data that may have to be downloaded: a report never does."""

MOST_KEPT = 48
T = TypeVar("T", bound=Struct)


class Confused(Struct, frozen=True, kw_only=True):
    """One test image that the model gave a wrong class, and how sure it was.

    Attributes:
        row: of the test split. probability: of the wrong class, by softmax. image: a data URI.
    """

    row: int
    true: int
    said: int
    probability: float
    image: str


class Seen(Struct, frozen=True, kw_only=True):
    """One pass over the test split.

    Attributes:
        cells: (true class, predicted class, images) where there are any. worst: the surest mistakes first.
        stamps: of the plugins' sources, as they were then.
    """

    format: int
    cells: tuple[tuple[int, int, int], ...]
    worst: tuple[Confused, ...]
    stamps: dict[str, int]


def look(
    folder: Path, record: RunRecord, registry: Registry, *, data_dir: str | None = None, device: str | None = None
) -> tuple[Seen | None, str]:
    """Run the model over its test images, or take what was seen before.

    Returns:
        (what was seen, ""), or (None, why not): no weights, no data here, or it fails.
    """
    if not (folder / WEIGHTS).is_file():
        return None, f"the folder holds no {WEIGHTS}"
    try:
        scale = temperature_of(folder)
        calibrated = [] if scale == 1 else [str(scale)]
        what = [configuration(record), sha256_of(folder / WEIGHTS), record.data.fingerprint, *calibrated]
        place = _place("seen", what)
        kept = _kept(place, Seen)
        if kept is not None and all(stamp(file) == was for file, was in kept.stamps.items()):
            return kept, ""
        seen = _look(folder, record, registry, data_dir, device)
        stamps = stamps_of(_packages(tree_of(record), registry))
        if stamps is not None:
            seen = msgspec.structs.replace(seen, stamps={k: v for k, v in stamps.items() if k.endswith(".py")})
            _keep(place, seen)
        return seen, ""
    except (ZooError, OSError, RuntimeError, MemoryError) as error:
        return None, reason_of(error)


def _look(folder: Path, record: RunRecord, registry: Registry, data_dir: str | None, device: str | None) -> Seen:
    if record.without_labels:
        raise InputError("it was trained without labels, and tells no classes apart")
    if record.data.is_multi_label:
        raise InputError("its images have several labels, so that no class is taken for another")
    _check_here(record, registry)
    where = device or usable_device(record.device)
    opened = open_run(folder, data_dir=data_dir, device=where, registry=registry)
    keep = Keep(opened.classifier.temperature)
    opened.measure(keep=keep)
    found = keep.predictions()
    counts, sure = found.confusion(), found.confidence
    cells = [(i, j, int(counts[i, j])) for i, j in counts.nonzero().tolist()]
    wrong = torch.nonzero(~found.hits).flatten()
    order = torch.argsort(sure[wrong], descending=True, stable=True)[:MOST_KEPT]
    worst = [
        Confused(
            row=row,
            true=int(found.labels[row]),
            said=int(found.predicted[row]),
            probability=round(float(sure[row]), 4),
            image=data_uri(opened.images.images[row]),
        )
        for row in wrong[order].tolist()
    ]
    return Seen(format=FORMAT, cells=tuple(cells), worst=tuple(worst), stamps={})


def _check_here(record: RunRecord, registry: Registry) -> None:
    """Refuse data that would have to be downloaded: decoded images of the same fingerprint lie in the cache.

    Raises:
        DataError: they do not.
    """
    source = find(record.data.spec, registry)[1].source
    if source.partition(":")[0] not in REMOTE and not source.startswith("wds:http"):
        return
    for index in sorted((cache_dir() / "images").glob("*/index.json")):
        try:
            if json.loads(index.read_bytes())["fingerprint"] == record.data.fingerprint:
                return
        except (OSError, ValueError, KeyError, TypeError):
            continue
    raise DataError(f"the images of {record.data.spec} are not on this machine; `zoo eval` fetches them")


# ---- FLOPs -----------------------------------------------------------------------------------


class Flops(Struct, frozen=True, kw_only=True):
    """Floating-point operations of one image's forward pass; None where they cannot be counted.

    Attributes:
        stamps: of what is installed and of the plugins' sources, as they were when the operations were counted.
    """

    format: int
    count: int | None
    stamps: dict[str, int]


def flops(tree: Node, sizes: dict[str, int], registry: Registry) -> int | None:
    """Count the FLOPs of one image on the meta device: 2 for each multiply-add of matmul and convolution.

    They are counted again when a plugin's source or anything that is installed has changed.
    """
    text = json.dumps(msgspec.to_builtins(tree), sort_keys=True, default=str)
    place = _place("flops", [text, sizes, torch.__version__, __version__, _plugins(tree, registry)])
    kept = _kept(place, Flops)
    if kept is not None and unchanged(kept.stamps, installed()):
        return kept.count
    try:
        count = _count(tree, sizes, registry)
    except (ZooError, RuntimeError, NotImplementedError):  # perhaps of a plugin that is not installed today
        return None
    if (stamps := stamps_of(_packages(tree, registry))) is not None:
        _keep(place, Flops(format=FORMAT, count=count, stamps=stamps))
    return count


def _plugins(tree: Node, registry: Registry) -> list[str]:
    """The plugins of a tree's components, with their versions."""
    return sorted({str(registry.origins.get(("component", part.use))) for _, part in tree.walk("")})


def _packages(tree: Node, registry: Registry) -> frozenset[str]:
    """The Python packages that a tree's components come from; the user's own code is known by its hash."""
    found = [registry.components.get(part.use) for _, part in tree.walk("")]
    factories = [component.factory for component in found if component is not None]
    return frozenset(name.partition(":")[0].partition(".")[0] for name in factories if isinstance(name, str))


def _count(tree: Node, sizes: dict[str, int], registry: Registry) -> int:
    from zoo.models.compose import check
    from zoo.models.flops import flops as counted

    return counted(check(tree, registry, where="build", **sizes), sizes)


# ---- the cache -------------------------------------------------------------------------------


def _place(kind: str, made_from: list[Any]) -> Path:
    digest = hashlib.sha256(json.dumps([FORMAT, made_from], sort_keys=True).encode()).hexdigest()
    return cache_dir() / "report" / f"{kind}-{digest[:24]}.json"


def _kept(place: Path, kind: type[T]) -> T | None:
    """What is in the cache; None where nothing is, or not as this version writes it."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(place.read_bytes(), type=kind)
    return None


def _keep(place: Path, made: Struct) -> None:
    """Put it there, where it can be."""
    with contextlib.suppress(WriteError):
        write_bytes(place, msgspec.json.encode(made))
