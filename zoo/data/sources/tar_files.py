"""Which tar files a `wds:` SPEC names: a folder, patterns with braces or wildcards, or addresses."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate, combinations
from typing import Any, NamedTuple

from zoo.base.paths import local_path
from zoo.data.sources.parquet_files import choose_files
from zoo.data.types import CARVED, SplitsFrom
from zoo.errors import InputError

REMOTE = ("http://", "https://")

MOST = 1_000_000
"""Files that braces stand for, at most."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


class ChosenTars(NamedTuple):
    """The tars of a dataset, as whole paths or addresses; `test` is empty where it is to be drawn from `train`.

    Attributes:
        root: the folder or the address that all lie below. splits_from: the names of the splits that are validation and
            test. unread: names of splits that are not read.
    """

    root: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    splits_from: SplitsFrom
    unread: tuple[str, ...] = ()


def is_remote(path: str) -> bool:
    """Whether a path is an address."""
    return path.startswith(REMOTE)


def expanded(pattern: str) -> list[str]:
    """What the braces of a pattern stand for: `{a,b}` each of several texts, `{000..012}` numbers of as many digits.

    Raises:
        InputError: the braces are no such list, or stand for more than a million files.
    """
    waiting = [pattern]
    done: list[str] = []
    while waiting:
        text = waiting.pop()
        if len(waiting) + len(done) > MOST:
            raise InputError(f"{pattern}: the braces stand for more than {MOST:,} files")
        found = _BRACES.search(text)
        if found is None:
            done.append(text)
            continue
        waiting += [
            f"{text[: found.start()]}{one}{text[found.end() :]}" for one in reversed(_alternatives(found[1], pattern))
        ]
    return done


def _alternatives(inside: str, pattern: str) -> Sequence[str]:
    numbers = _NUMBERS.fullmatch(inside)
    if numbers is None:
        if ".." in inside or "," not in inside:
            raise InputError(f"{pattern}: {{{inside}}} is no list; expected {{a,b}} or {{000..012}}")
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if last < first or last - first >= MOST:
        raise InputError(f"{pattern}: {{{inside}}} must count upwards, to {MOST:,} files at most")
    return [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]


def tars_at(pattern: str) -> list[str]:
    """The tars that a pattern names: whole paths, or addresses.

    Raises:
        InputError: there are none, or one that is named is not there.
    """
    if not is_remote(pattern) and (folder := local_path(pattern)).is_dir():
        paths = sorted(str(path.resolve()) for path in folder.rglob("*.tar"))
        if not paths:
            raise InputError(f"no tar files in {folder}; wds:PATH needs a folder of .tar files, or a pattern of them")
        return paths
    paths = []
    for one in expanded(pattern):
        if is_remote(one):
            paths.append(one)
            continue
        place = str(local_path(one))
        found = sorted(glob.glob(place, recursive=True)) if glob.has_magic(place) else [place]
        if not found or not os.path.isfile(found[0]):
            raise InputError(f"no tar file {place}; wds:PATTERN names files, such as data/train-{{000000..000012}}.tar")
        paths += [os.path.realpath(path) for path in found]
    return [*dict.fromkeys(paths)]


def chosen_tars(
    pattern: str, options: Mapping[str, Any], where: str, *, whole: bool = False, earlier: bool = False
) -> ChosenTars:
    """The tars of each split: by their names, as those of parquet files are; or as options name them.

    Args:
        options: `train`, `validation` and `test` each name a split, or a pattern of tars.
    Raises:
        InputError: no such files, or a split has none. DataError: shards are missing.
    """
    patterns = {side: str(options[side]) for side in ("validation", "test") if _is_pattern(options.get(side))}
    named = {side: tuple(tars_at(given)) for side, given in patterns.items()}
    tars = tars_at(pattern)
    root = _root([*tars, *(path for paths in named.values() for path in paths)])
    if named:
        return _of_patterns(root, tuple(tars), named, patterns, where, whole=whole)
    relative = {path.removeprefix(root).lstrip("/\\").replace(os.sep, "/"): path for path in tars}
    split_options = {key: value for key, value in options.items() if key in ("train", "validation", "test", "config")}
    separate = not is_remote(pattern) and local_path(pattern).is_dir()
    chosen = choose_files(
        list(relative), split_options, where, whole=whole, earlier=earlier, separate=separate, kind="tar"
    )
    sides = (tuple(relative[name] for name in side) for side in (chosen.train, chosen.validation, chosen.test))
    train, validation, test = sides
    return ChosenTars(root, train, validation, test, chosen.splits_from, chosen.unread)


def _is_pattern(given: object) -> bool:
    return isinstance(given, str) and (given.endswith(".tar") or "/" in given)


def _of_patterns(
    root: str,
    train: tuple[str, ...],
    named: Mapping[str, tuple[str, ...]],
    patterns: Mapping[str, str],
    where: str,
    *,
    whole: bool,
) -> ChosenTars:
    sides = {"train": train, **named}
    for one, other in combinations(sides, 2):
        if shared := set(sides[one]) & set(sides[other]):
            raise InputError(f"{where}: {one} and {other} are the same images: both have {min(shared)}")
    validation, test = named.get("validation", ()), named.get("test", ())
    if whole:
        return ChosenTars(root, train, (), test or validation, SplitsFrom(test="test"))
    words = {side: os.path.basename(given) for side, given in patterns.items()}
    return ChosenTars(root, train, validation, test, SplitsFrom(words.get("validation", ""), words.get("test", CARVED)))


def _root(paths: Sequence[str]) -> str:
    """The folder or the address that all paths lie below."""
    folders = [path.rpartition("/")[0] for path in paths]
    if any(map(is_remote, paths)):
        first, *others = (folder.split("/") for folder in dict.fromkeys(folders))
        same = (len(set(parts)) == 1 for parts in zip(first, *others, strict=False))
        return "/".join(part for part, alike in zip(first, accumulate(same, min), strict=False) if alike)
    return os.path.commonpath([os.path.dirname(path) for path in paths])
