"""Which folders hold the training, validation and test images: known by their names, in any case, or one level down."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from zoo.data.files.image_files import is_image, visible
from zoo.errors import DataError

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training", "trainval", "trn"),
        "test": ("test", "testing", "tests", "tst", "eval", "evaluation", "holdout"),
        "val": ("val", "valid", "validation", "dev", "validate"),
    }
)
"""Kind of split to the words that stand for it; of two folders of a kind the one with the earlier word is read."""

_FILLERS = frozenset({"set", "data", "image", "images", "img", "imgs", "split", "folder", "dataset"})

KNOWN = "train, training, trainval; test, testing, eval, holdout; val, valid, validation, dev; in any case"


class Role(NamedTuple):
    """What a folder's name says: the kind of split, how usual the word is (0: most), and the other words."""

    kind: str
    rank: int
    rest: tuple[str, ...]


@dataclass(frozen=True)
class Division:
    """The folders of the splits.

    Attributes:
        test, validation: None where there is none. unread: folders beside them that hold images and are not read.
    """

    train: Path
    test: Path | None
    validation: Path | None = None
    unread: tuple[Path, ...] = ()

    @property
    def read(self) -> tuple[Path, ...]:
        """The folders that are read."""
        return tuple(folder for folder in (self.train, self.validation, self.test) if folder is not None)


def role(name: str) -> Role | None:
    """The split that a folder's name stands for: of "Training_Set", train; None where it stands for none."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", " ", name)
    words = [w.removesuffix("set") or w for w in re.split(r"[\W_]+", spaced.casefold()) if w]
    places = {word: (kind, known.index(word)) for kind, known in NAMES.items() for word in words if word in known}
    if len(places) != 1 or words.count(next(iter(places))) != 1:
        return None
    word, (kind, rank) = next(iter(places.items()))
    rest = (w for w in words if w != word and w not in _FILLERS and not w.isdecimal())
    return Role(kind, rank, tuple(rest))


def division(root: Path, *, whole: bool = False) -> Division | None:
    """The folders of training, validation and test images below `root`; None where its folders are classes.

    A pair is a folder of training and one of test or validation images whose names are otherwise equal
    ("seg_train" and "seg_test"). It is looked for in `root`, then in each of its folders, and further down where
    there is but one folder.

    Args:
        whole: for an evaluation, one of the folders is enough: it is then both training and test.
    Raises:
        DataError: what the names say is not certain: one of the pair is missing, or there are several pairs.
    """
    folders = _inside(root)
    own = _pair(root, folders)
    if own is not None:
        return own
    below = [pair for folder in folders if (pair := _pair(folder, _folders(folder))) is not None]
    below = [pair for pair in below if _holds_images(pair.train)]  # beside them may lie folders of annotations
    if below:
        return _only(root, folders, below)
    half = _half(root, folders, whole)
    if half is not None:
        return Division(half, half)
    if len(folders) == 1 and not _has_image(folders[0]):
        return division(folders[0], whole=whole)  # an archive in an archive
    return None


def _only(root: Path, folders: Sequence[Path], below: Sequence[Division]) -> Division:
    """The one pair that is a level down."""
    places = [pair.train.parent for pair in below]
    if len(below) > 1:
        names = ", ".join(f"{place.name}/" for place in places[:3])
        raise DataError(
            f"{root}: {len(below)} folders hold training and test folders of their own ({names}); name one of "
            f"them (folder:{places[0]}), or put the folders of the classes into one train/ and one test/"
        )
    beside = [folder for folder in folders if folder != places[0] and _holds_images(folder)]
    if beside:
        raise DataError(
            f"{root}: {places[0].name}/ holds training and test folders, and {beside[0].name}/ beside it holds "
            f"images too; name the folder that is meant (folder:{places[0]}), or move the other one away"
        )
    return below[0]


def _inside(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in visible(folder) if entry.is_dir()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder; none where it holds an image itself, as the folder of a class does."""
    return [] if _has_image(folder) else _inside(folder)


def _has_image(folder: Path) -> bool:
    """Whether an image lies in the folder itself; ends at the first one."""
    try:
        with os.scandir(folder) as entries:
            return any(is_image(e.name) and not e.name.startswith(".") and not e.is_dir() for e in entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


def _holds_images(folder: Path, depth: int = 3) -> bool:
    return _has_image(folder) or (depth > 0 and any(_holds_images(f, depth - 1) for f in _folders(folder)))


def _pair(parent: Path, folders: Sequence[Path]) -> Division | None:
    """The folders of the splits among folders beside each other."""
    roles = {folder: found for folder in folders if (found := role(folder.name)) is not None}
    rests = sorted({found.rest for found in roles.values()}, key=len)
    pairs = [pair for rest in rests if (pair := _matching(roles, rest)) is not None]
    if len(pairs) > 1 and roles[pairs[0].train].rest:
        names = "; ".join(" and ".join(f"{folder.name}/" for folder in pair.read[:2]) for pair in pairs)
        raise DataError(f"{parent} holds several pairs of splits ({names}); leave one of them there")
    if not pairs:
        return None
    unread = (f for f in folders if f not in pairs[0].read and _holds_images(f))
    return replace(pairs[0], unread=tuple(unread))


def _matching(roles: Mapping[Path, Role], rest: tuple[str, ...]) -> Division | None:
    """The folders of the splits among those whose names have these other words."""
    train, test, validation = (_best(roles, rest, kind) for kind in ("train", "test", "val"))
    other = test or validation
    if train is None or other is None or (rest and _has_image(train) and _has_image(other)):
        return None  # "training shoe" and "testing shoe", with images in them, are classes
    return Division(train, test, validation)


def _best(roles: Mapping[Path, Role], rest: tuple[str, ...], kind: str) -> Path | None:
    """The folder of a kind with the most usual name."""
    of_kind = sorted((f for f, r in roles.items() if (r.kind, r.rest) == (kind, rest)), key=lambda f: roles[f].rank)
    if len(of_kind) > 1 and roles[of_kind[0]].rank == roles[of_kind[1]].rank:
        first, second = of_kind[:2]
        raise DataError(f"{first.parent} has {first.name}/ and {second.name}/: which one is meant? Rename one")
    return of_kind[0] if of_kind else None


def _half(root: Path, folders: Sequence[Path], whole: bool) -> Path | None:
    """Refuse half a pair, which would become a class: a folder named as a split that holds folders of classes.

    A folder named as a split that holds images itself is a class: trains, beside cars.

    Returns:
        The folder, where it is `whole` what is wanted: the test images, if there are several.
    """
    roles = {f: found for f in folders if (found := role(f.name)) is not None and not _has_image(f)}
    inside = {f: sum(map(_holds_images, _folders(f))) for f in roles}
    missing = ""
    for folder, found in roles.items():
        partner = next((f for f, r in roles.items() if (r.kind == "train") != (found.kind == "train")), None)
        if partner is not None and inside[folder] and inside[partner]:
            missing = f"{partner.name}/ beside it is named otherwise"
        elif not found.rest and found.kind == "train" and inside[folder]:
            missing = "neither test/ nor val/"
        elif not found.rest and found.kind != "train" and inside[folder] > 1:
            missing = "no train/"
        if missing and whole and partner is None:
            return min((f for f in roles if inside[f]), key=lambda f: ("test", "val", "train").index(roles[f].kind))
        if missing:
            raise DataError(
                f"{root} has {folder.name}/ but {missing}; add it or rename what is meant to be it (known names: "
                f"{KNOWN}), or give the one folder of classes: folder:{folder}"
            )
    return None
