"""Which split each parquet file belongs to, by its name: after the rules of the Hub's `datasets` library.

A file `NAME-00000-of-00003.parquet` is a shard of the split NAME, whatever NAME is: `train_small` is not `train`.
Other files belong to the split whose keyword stands in their name, or in the name of a folder above them. A folder
above the splits is a configuration: a dataset of its own.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from zoo.base.paths import local_path
from zoo.base.text import plural
from zoo.data.findings import Finding
from zoo.data.types import CARVED, SplitsFrom
from zoo.errors import DataError, InputError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "eval", "evaluation")
VALIDATION_NAMES = ("validation", "valid", "val", "dev")
"""Names of splits that may be the training, the test and the validation images, the preferred one first."""

_UNFIT = frozenset({"unlabeled", "unlabelled", "unsupervised", "partial"})
"""A split with such a word in its name is never taken unless the user names it."""

_SHARD = re.compile(r"(?P<name>.*?)[-_.]?(?P<place>\d+)-of-(?P<total>\d+)(?:[-.].*)?")
_SHOWN = 8


@dataclass(frozen=True)
class ParquetFile:
    """One file by its path.

    Attributes:
        path: below the dataset's folder, with "/". split: its split's name, lower case.
        folder: its configuration: the folders above the split; "" where there are none.
        place, total: of a shard: which of how many; total is 0 of other files.
    """

    path: str
    split: str
    folder: str
    place: int = 0
    total: int = 0


class Chosen(NamedTuple):
    """The files of a dataset; `test` is empty where it is to be drawn from `train`.

    Attributes:
        splits: names of all splits there are. unread: those that nobody named, and that are none of the three.
        splits_from: the names of the splits that are validation and test.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    splits: tuple[str, ...]
    unread: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    splits_from: SplitsFrom = SplitsFrom(test=CARVED)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-._ 0-9]+", name.lower()) if word]


def _names_a_split(name: str) -> bool:
    return not {*TRAIN_NAMES, *TEST_NAMES, *VALIDATION_NAMES}.isdisjoint(_words(name))


def parquet_file(path: str) -> ParquetFile:
    """What a file's path below the dataset's folder tells: split, configuration, shard."""
    *folders, name = path.split("/")
    stem = re.sub(r"\.(parquet|tar)$", "", name)
    shard = _SHARD.fullmatch(stem)
    base = (shard["name"] if shard else re.sub(r"[-._ ]*\d+$", "", stem)).lower()
    named = [i for i, folder in enumerate(folders) if _names_a_split(folder)]
    if base and (_names_a_split(base) or not named):
        split = base
    else:
        split = folders[named[-1] if named else -1].lower() if folders else ""
    end = named[0] if named else len(folders) - (not base)
    where = "/".join(folders[: max(0, end)])
    return ParquetFile(path, split, where, *(map(int, (shard["place"], shard["total"])) if shard else ()))


def split_of(path: str) -> str:
    """The split that a file's path tells: "train" of "data/train-00000-of-00001.parquet"."""
    return parquet_file(path).split


def choose_files(
    paths: Sequence[str],
    options: dict[str, Any],
    where: str,
    *,
    whole: bool = False,
    earlier: bool = False,
    separate: bool = True,
    exists: Callable[[str], bool] = lambda path: False,
    kind: str = "parquet",
) -> Chosen:
    """Sort the files of a dataset into train, validation and test.

    Args:
        paths: below the dataset's folder. options: `train`, `validation`, `test` (splits, with commas between several)
            and `config`; with `split_column`, all files are one table.
        whole: files without training images are taken as well, for an evaluation: they are both splits.
        earlier: as of `zoo.data.sources.source.Request`.
        separate: refuse files of several configurations; the user did not name each file.
        exists: whether a shard that is not among the paths was left out on purpose. kind: of files, for messages.
    Raises:
        InputError: a split has no file, several could be meant, or train and test are the same.
        DataError: shards are missing.
    """
    for key in ("config", "split_column", *_Names._fields):
        if options.get(key) == "":
            raise InputError(f"{where}: ?{key.replace('_', '-')}= names nothing; leave it out")
    files = [parquet_file(path) for path in sorted(paths)]
    if config := options.get("config"):
        files = _of_config(files, str(config), where)
    names = sorted({file.split for file in files})
    if column := options.get("split_column"):
        sides = _one_table(names, options, where, str(column))
    else:
        sides = _split_names(names, options, where, own=not (whole or earlier), whole=whole, kind=kind)
    chosen = [[file for file in files if file.split in side] for side in sides]
    for side, group in zip(sides, chosen, strict=True):
        if separate:
            _check_configs(group, where)
        _check_shards(group, where, ", ".join(side), exists)
    first, held, second = (tuple(file.path for file in group) for group in chosen)
    named = whole or all(options.get(side) for side in ("train", "test"))
    unread = () if named else tuple(name for name in names if not any(name in side for side in sides))
    splits_from = SplitsFrom(",".join(sides.validation), ",".join(sides.test) or CARVED)
    return Chosen(first, second, tuple(names), unread, held, splits_from)


class _Names(NamedTuple):
    """The names of the splits that are each part; none of validation or test where there is none."""

    train: list[str]
    validation: list[str]
    test: list[str]


def _one_table(names: list[str], options: dict[str, Any], where: str, column: str) -> _Names:
    """All files as one split, whose rows a column divides."""
    given = [side for side in _Names._fields if options.get(side)]
    if given:
        raise InputError(f"{where}: ?split-column={column} says which row is what; leave out ?{given[0]}=")
    return _Names(names, [], [])


def _of_config(files: list[ParquetFile], config: str, where: str) -> list[ParquetFile]:
    chosen = [file for file in files if f"{file.path}/".startswith(f"{config}/")]
    if not chosen:
        known = _listed(file.folder for file in files)
        raise InputError(f"{where}: no configuration {config!r}; configurations: {known}")
    return chosen


def _listed(names: Iterable[str]) -> str:
    listed = sorted(set(names) - {""})
    return (", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")) or "none"


def _split_names(names: list[str], options: dict[str, Any], where: str, *, own: bool, whole: bool, kind: str) -> _Names:
    """The splits that are train, validation and test.

    There is no test where there is one split alone, or validation beside training, and the user named none.

    Args:
        own: whether a validation split selects; else it is the test where there is no other.
    """
    given = _Names(*(_given(names, options.get(side), side, where, kind) for side in _Names._fields))
    if len(names) == 1 and not (given.train and (given.test or given.validation)):
        return _Names(names, [], [])
    train = given.train or _usual(names, TRAIN_NAMES, "train", where)
    rest = names if given.train else [name for name in names if name not in train]
    free = [name for name in rest if name not in given.test]
    validation = given.validation or (_usual(free, VALIDATION_NAMES, "validation", where) if own else [])
    rest = [name for name in rest if name not in validation]
    test = given.test or _usual(rest, TEST_NAMES if own else (*TEST_NAMES, *VALIDATION_NAMES), "test", where)
    if whole:
        train, validation, test = train or test or validation, [], test or validation or train
    for side, chosen in (("train", train), ("test", test or validation)):
        if not chosen:
            raise InputError(
                f"{where}: no {kind} file of split {side!r}; splits: {_listed(names)}; name it by ?{side}=SPLIT"
            )
    if not whole:
        _refuse_shared(_Names(train, validation, test), where)
    return _Names(train, validation, test)


def _refuse_shared(sides: _Names, where: str) -> None:
    for one, other in combinations(_Names._fields, 2):
        shared = set(getattr(sides, one)) & set(getattr(sides, other))
        if shared:
            raise InputError(
                f"{where}: {one} and {other} are the same images (split {min(shared)!r}); name another split by "
                f"?{one}=SPLIT or ?{other}=SPLIT, or give the files of this split alone, which are then divided by "
                "chance"
            )


def _given(names: list[str], given: str | None, side: str, where: str, kind: str) -> list[str]:
    """The splits that the user named."""
    wanted = [word.strip().lower() for word in str(given).split(",")] if given else []
    for name in wanted:
        if name not in names:
            raise InputError(
                f"{where}: no {kind} file of split {name!r}; splits: {_listed(names)}; name it by ?{side}=SPLIT"
            )
    return wanted


def _usual(names: list[str], keywords: tuple[str, ...], side: str, where: str) -> list[str]:
    """The split that is called by a keyword, else the only one that has a keyword in its name."""
    for keyword in keywords:
        if keyword in names:
            return [keyword]
    for keyword in keywords:
        like = [name for name in names if keyword in _words(name) and _UNFIT.isdisjoint(_words(name))]
        if len(like) > 1:
            raise InputError(
                f"{where}: several splits could be {side}: {_listed(like)}; name one by ?{side}=SPLIT, "
                "or several with commas between"
            )
        if like:
            return like
    return []


def _check_configs(files: list[ParquetFile], where: str) -> None:
    folders = {file.folder for file in files}
    if len(folders) > 1:
        plain = "" if "" not in folders else "; files that lie above them belong to none"
        raise InputError(f"{where} has several configurations: {_listed(folders)}{plain}; choose by ?config=NAME")


def _check_shards(files: list[ParquetFile], where: str, split: str, exists: Callable[[str], bool]) -> None:
    """Shards are all there, once.

    Raises:
        DataError: names the first that is missing, or what is there twice.
    """
    groups: dict[tuple[str, str], list[ParquetFile]] = {}
    for file in files:
        groups.setdefault((file.path.rpartition("/")[0], file.split), []).append(file)
    for group in groups.values():
        totals = sorted({file.total for file in group})
        if len(totals) > 1:
            sets = " and ".join(f"a set of {total}" if total else "files without a number" for total in totals)
            raise DataError(f"{where}: the files of split {split!r} are not one set: {sets}; remove one")
        places = sorted(file.place for file in group)
        if totals[0]:
            _check_places(group, places, where, exists)


def _check_places(group: list[ParquetFile], places: list[int], where: str, exists: Callable[[str], bool]) -> None:
    total, first = group[0].total, group[0]
    start = int(places[-1] == total)  # some count from 1
    if len(set(places)) < len(places) or places[-1] > total:
        raise DataError(
            f"{where}: the shards of split {first.split!r} do not fit their numbers ({_listed(f.path for f in group)})"
        )
    missing = [_path_of(first, place) for place in sorted(set(range(start, start + total)) - set(places))]
    missing = [path for path in missing if not exists(path)]
    if missing:
        raise DataError(
            f"{where}: {missing[0]} is missing ({plural(len(missing), 'file')} of {total}); "
            "put it there, or rename the others where they are all of the split"
        )


def _path_of(shard: ParquetFile, place: int) -> str:
    """The path of another shard of the same set."""
    folder, slash, name = shard.path.rpartition("/")
    number = re.compile(r"\d+(?=-of-\d)")
    return f"{folder}{slash}{number.sub(lambda old: f'{place:0{len(old[0])}d}', name, count=1)}"


def local_files(
    path: str, options: dict[str, Any], where: str, *, whole: bool = False, earlier: bool = False
) -> Chosen:
    """The parquet files of a folder (searched below), of a file pattern, or one file; as absolute paths.

    Raises:
        InputError: no such files. Else as `choose_files`.
    """
    place = local_path(path)
    pattern = str(place) if not place.is_dir() else f"{glob.escape(str(place))}/**/*.parquet"
    paths = [Path(found) for found in glob.glob(pattern, recursive=True) if found.endswith(".parquet")]
    if not paths:
        raise InputError(f"no parquet files in {place}; parquet:PATH needs a folder or a pattern of them")
    root = place if place.is_dir() else _before_pattern(place)
    relative = {file.relative_to(root).as_posix(): file for file in paths}
    chosen = choose_files(
        list(relative),
        options,
        where,
        whole=whole,
        earlier=earlier,
        separate=place.is_dir(),
        exists=lambda name: not place.is_dir() and (root / name).is_file(),
    )
    sides = {side: [str(relative[name].resolve()) for name in getattr(chosen, side)] for side in _Names._fields}
    for one, other in combinations(sides, 2):
        shared = set(sides[one]) & set(sides[other])
        if shared and not whole:
            raise InputError(f"{where}: {one} and {other} are the same images: both have {min(shared)}")
    train, held, test = (tuple(paths) for paths in sides.values())
    return chosen._replace(train=train, validation=held, test=test)


def unread_splits(unread: Sequence[str]) -> tuple[Finding, ...]:
    """The finding of splits that are not read."""
    if not unread:
        return ()
    text = f"{plural(len(unread), 'split')} of the files not read; ?train=SPLIT and ?test=SPLIT choose others"
    return (Finding(level="note", kind="unread-split", message=text, count=len(unread), examples=(*unread[:5],)),)


def _before_pattern(pattern: Path) -> Path:
    """The folder that a pattern begins with."""
    folder = pattern.parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return folder
