"""The order of a dataset's classes: by their names, in natural order, or as a file lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.base.paths import local_path
from zoo.data.files.image_files import Listing
from zoo.data.label_sets import moved
from zoo.data.sources.labels import composed
from zoo.errors import DataError, InputError

ORDERS = ("text", "natural")
FEW = 5


@dataclass(frozen=True)
class ClassOrder:
    """How the classes of a source are numbered.

    Attributes:
        natural: numbers in names count as numbers: 1, 2, 10. listed: all classes, in their order; empty: those that
            have images, sorted. source: the file that lists them.
    """

    natural: bool = False
    listed: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def asked(cls, options: Mapping[str, Any], beside: Path, where: str) -> ClassOrder:
        """The order that the options `classes` and `order` ask for.

        Args:
            beside: the folder that the file of `classes` may lie in. where: the SPEC, for messages.
        Raises:
            InputError: an unknown order, both options, or no such file. DataError: the file is no list of names.
        """
        order, classes = str(options.get("order", "text")), options.get("classes")
        if order not in ORDERS:
            raise InputError(f"{where}: ?order={order} is not known; allowed: {', '.join(ORDERS)}")
        if not classes:
            return cls(order == "natural")
        if "order" in options:
            raise InputError(f"{where}: ?classes=FILE is an order of its own; leave out ?order={order}")
        path = file_beside(str(classes), beside, where, "classes")
        return cls(listed=_names(path), source=str(path))

    def sorted(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names in the order of their classes, where no file lists them."""
        return tuple(sorted(names, key=natural_key) if self.natural else sorted(names))

    def of(self, listing: Listing) -> Listing:
        """A listing of class folders with the classes in this order.

        Raises:
            DataError: a folder is none of the listed classes.
        """
        if not self.listed and not self.natural:
            return listing
        spelled = {composed(name): name for name in listing.classes}
        names = tuple(spelled.get(name, name) for name in self.listed or map(composed, self.sorted(spelled)))
        place = {name: number for number, name in enumerate(names)}
        missing = [name for name in listing.classes if name not in place]
        if missing:
            shown = ", ".join(missing[:FEW]) + (", ..." if len(missing) > FEW else "")
            raise DataError(
                f"{listing.folder}: {self.source} does not list the class {shown}; add it, or move its folder away"
            )
        places = np.array([place[name] for name in listing.classes], np.int64)
        return replace(listing, labels=moved(listing.labels, places, len(names)), classes=names)


BY_TEXT = ClassOrder()
"""The order of torchvision's `ImageFolder`."""


def natural_key(name: str) -> tuple[tuple[int | str, ...], str]:
    """A key for sorting by which numbers in names count as numbers, and capitals as small letters."""
    parts = re.split(r"([0-9]+)", name.casefold())  # each second one is a number
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


def file_beside(name: str, folder: Path, where: str, option: str) -> Path:
    """A file that an option names: below a folder, or below the working directory.

    Raises:
        InputError: there is none, or there are two.
    """
    given = local_path(name)
    found = {path.resolve() for path in (folder / given, given) if path.is_file()}
    if len(found) == 1:
        return found.pop()
    if found:
        both = " and ".join(sorted(map(str, found)))
        raise InputError(f"{where}: ?{option}={name} may be {both}; give the whole path")
    raise InputError(f"{where}: ?{option}={name}: no such file in {folder} or in the working directory")


def _names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of classes in UTF-8: {error}") from None
    names = tuple(composed(line.strip()) for line in lines if line.strip())
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if not names or twice:
        what = f"lists the class {twice[0]!r} twice" if twice else "lists no class"
        raise DataError(f"{path} {what}; needed is the name of each class once, one per line")
    return names
