"""What showed when a tree was tried out, kept for as long as nothing changes that it depends on.

On the meta device torch runs most operations by references in Python, and the first one imports torch's compiler, which
takes a second of CPU time. Every training, prediction and evaluation builds a tree, and one that passed need not be run
again. What is kept is good for the same tree and sizes, the same installed distributions, and the
same source files of the plugins and of whatever else is not installed (a checkout). It is only kept of a tree without
the user's own code, where all of it ran on the meta device, and where no source changed after this process began, which
may have imported it as it was. A file that cannot be read or written costs time only.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from zoo.base.paths import cache_path
from zoo.base.stamps import installed, read_checked, stamp, unchanged, write_checked
from zoo.base.structs import Struct
from zoo.base.version import __version__
from zoo.catalogue.plugins import import_factory
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node
from zoo.errors import ZooError
from zoo.models.arguments import changed_defaults

FORMAT = 1
ROOMS = ("zoo.models", "zoo.plugin")
"""Modules of ours that the result depends on."""

BEGAN = time.time_ns()
"""Before this moment a source must have been written that is imported as it is on the disk."""

Shape: TypeAlias = tuple[int, int, int]


class Findings(NamedTuple):
    """What showed when parts were run.

    Attributes:
        shapes: what each stem makes, by its place and sizes.
        writers: places of the parts that write to their input.
    """

    shapes: dict[tuple[str, tuple[int, ...]], Shape]
    writers: set[str]


class Place(NamedTuple):
    """Where the findings of a tree are kept, where it stands, and the packages whose components it is made of."""

    file: str
    where: str
    packages: frozenset[str]


class _Kept(Struct, frozen=True):
    stamps: dict[str, int]
    shapes: list[tuple[str, tuple[int, ...], Shape]]
    writers: list[str]


def place_of(node: Node, registry: Registry, where: str, sizes: Mapping[str, int]) -> Place | None:
    """Where the findings of a tree are kept; None where they cannot be."""
    parts, packages = [], set()
    try:
        folder = cache_path()
        for place, part in node.walk(""):
            component = registry.component(part.use)
            if not isinstance(component.factory, str):  # the user's own code
                return None
            factory = import_factory(component.factory, part.use)
            changed = changed_defaults(factory, part.defaults)  # a run's tree is often that of the catalogue
            parts.append((place, component.kind, component.factory, sorted(changed.items())))
            packages.add(component.factory.partition(":")[0].partition(".")[0])
    except ZooError:  # building it says what is wrong
        return None
    identity = (FORMAT, __version__, sys.version, sorted(sizes.items()), node.to_table(), parts)
    file = f"{folder}/tried/{hashlib.sha256(repr(identity).encode()).hexdigest()[:24]}.msgpack"
    return Place(file, where, frozenset(packages))


def read(place: Place) -> Findings | None:
    """What is kept; None where nothing is, it is damaged, or anything changed since."""
    content = read_checked(place.file)
    if content is None:
        return None
    try:
        kept = msgspec.msgpack.decode(content, type=_Kept)
    except msgspec.MsgspecError:
        return None
    if not unchanged(kept.stamps, installed()):
        return None
    where = place.where
    return Findings(
        {(where + inner, sizes): shape for inner, sizes, shape in kept.shapes},
        {where + inner for inner in kept.writers},
    )


def write(place: Place, findings: Findings) -> None:
    """Keep what showed; call it when the tree was built, so that all of its modules are imported."""
    stamps = stamps_of(place.packages)
    if stamps is None:
        return
    kept = _Kept(
        stamps=stamps,
        shapes=[(at.removeprefix(place.where), sizes, shape) for (at, sizes), shape in findings.shapes.items()],
        writers=sorted(at.removeprefix(place.where) for at in findings.writers),
    )
    write_checked(place.file, msgspec.msgpack.encode(kept))


def stamps_of(packages: frozenset[str]) -> dict[str, int] | None:
    """Stamps of all that a tree of components of these packages depends on, once it was built.

    Returns:
        For `zoo.base.stamps.unchanged`; None where a source changed after this process began.
    """
    present = installed()
    sources = list(_sources(present, packages))
    if any(_written(file) > BEGAN for file in sources):
        return None
    return present | {file: stamp(file) for file in sources}


def _written(file: str) -> int:
    try:
        status = os.stat(file)
    except OSError:
        return 0
    return max(status.st_mtime_ns, status.st_ctime_ns)


def _sources(present: Iterable[str], packages: frozenset[str]) -> Iterator[str]:
    """The files of imported modules of these packages, and of all that are not installed; of ours, those in `ROOMS`."""
    installed_in = tuple(os.path.join(path, "") for path in present)
    passed = sys.stdlib_module_names | {"__main__"}
    for name, module in list(sys.modules.items()):
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        if not isinstance(file, str) or not os.path.isabs(file) or top in passed:
            continue
        ours = top == "zoo" and name.startswith(ROOMS)
        if top in packages or ours or (top != "zoo" and not file.startswith(installed_in)):
            yield file
