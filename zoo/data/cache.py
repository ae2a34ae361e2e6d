"""Decoded images on disk: written once, opened memory-mapped ever after.

A cache entry is the folder `images/<key>` of the cache directory: four .npy files and `index.json`,
which is written last and makes the entry valid. It may be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from zoo.base.paths import cache_dir
from zoo.base.text import plural
from zoo.data.decoding import Decoding
from zoo.data.files.decode import MAX_PIXELS, Rule
from zoo.data.files.heif import decoders
from zoo.data.findings import Finding
from zoo.data.label_sets import has_sets
from zoo.data.origins import all_rows, write_origins
from zoo.data.sources.source import Opened, Show, Source
from zoo.data.split import Split
from zoo.data.types import Columns, SplitsFrom
from zoo.errors import BadImagesError, DataError, InputError

FORMAT = 3  # 1: images were not turned upright; 2: those of fractions were black
_FILES = ("train-images", "train-labels", "test-images", "test-labels")
_SIDES = ("train", "test")
UNNAMED_CLASSES = 100_000
"""Classes without names that a dataset of fewer images may have."""

_STALE = 24 * 3600  # seconds after which another process's temporary file is taken for abandoned


@dataclass(frozen=True)
class Cached:
    """A cache entry, opened: splits (read-only memory maps), class names and counts.

    Attributes:
        named: whether the names are the source's own; else they are the numbers of the labels.
        findings, splits_from: as of `zoo.data.sources.source.Opened`.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    skipped: int
    ignored: int
    key: str
    named: bool = True
    findings: tuple[Finding, ...] = ()
    splits_from: SplitsFrom = SplitsFrom()  # noqa: RUF009 - a named tuple does not change


def cache_key(identity: dict[str, Any], rule: Rule, skip_bad: bool) -> str:
    """Name of the entry for a source's identity and everything that changes the pixels, or which images there are."""
    parts: dict[str, Any] = {"format": FORMAT, "source": identity, "rule": rule.table(), "skip_bad": skip_bad}
    if skip_bad:  # what cannot be read today may be read with another library tomorrow
        parts["decoders"] = decoders()
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def cached(source: Source, rule: Rule, show: Show, *, name: str, skip_bad: bool = False) -> Cached:
    """Open the entry for this source, decoding the images first where there is none.

    Args:
        name: of the dataset, for progress and messages. skip_bad: leave unreadable images out.
    Raises:
        DataError: an image cannot be read, sizes differ, a label is out of range, the disk is full.
        InputError: an image would have more than `MAX_PIXELS` pixels.
    """
    height, width = rule.out_size() or (1, 1)
    if height * width > MAX_PIXELS:
        raise InputError(f"images of {width}x{height} pixels are refused (at most {MAX_PIXELS:,})")
    identity = source.identity()
    key = cache_key(identity, rule, skip_bad)
    folder = cache_dir() / "images" / key
    stored = _open(folder, key)
    if stored is not None:
        return stored
    opened = source.open()
    check_labels(opened, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_stale(folder)
        _build(folder, opened, rule, show, name, skip_bad, identity)
    except OSError as error:
        lacks_memory = error.errno == errno.ENOMEM
        advice = "raise the limit of memory (ulimit -v), or use a smaller --image-size"
        advice = advice if lacks_memory else "set ZOO_CACHE_DIR"
        raise DataError(f"cannot write the image cache {folder}: {error}; {advice}") from error
    again = _open(folder, key)
    if again is None:
        raise DataError(f"the image cache {folder} changed while it was written; try again")
    return again


# ---- reading ----------------------------------------------------------------------------------


def _open(folder: Path, key: str) -> Cached | None:
    """The entry, or None where it is absent, incomplete, damaged or of another format."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        columns: dict[str, list[str]] = index.get("columns", {})  # earlier entries have none
        stems = (*_FILES, *_column_stems(columns))
        arrays = {stem: np.load(folder / f"{stem}.npy", mmap_mode="r") for stem in stems}
        if index["format"] != FORMAT or not _fits(arrays):
            return None
        classes = tuple(index["classes"])
        splits = _splits(arrays, index["copies"], columns)
        beside = index.get("files")  # earlier entries do not say
        if beside and _stamps_of(map(Path, beside["paths"])) != beside["stamps"]:
            return None
        if index["skipped"] and not all(_origins(folder, side).is_file() for side in _SIDES):
            return None  # written when nobody noted which images were left out
        stamps = {stem: _stamp(folder / f"{stem}.npy") for stem in stems}
        # Hashing gigabytes at every start would cost seconds: only files that were touched are hashed.
        if stamps != index["stamps"] and fingerprint(*splits, classes) != index["fingerprint"]:
            return None
        named = index.get("named", not numbered(classes))  # earlier entries do not say
        counts = index["skipped"], index["ignored"]
        train, test = (
            replace(split, decoded_from=all_rows(_origins(folder, side), len(split)))
            for side, split in zip(_SIDES, splits, strict=True)
        )
        findings = msgspec.convert(index.get("findings", []), tuple[Finding, ...])
        splits_from = SplitsFrom(*index.get("splits_from", ()))
        return Cached(train, test, classes, index["fingerprint"], *counts, key, named, findings, splits_from)
    except (OSError, ValueError, KeyError, TypeError, EOFError, msgspec.MsgspecError):
        return None


def numbered(classes: Sequence[str]) -> bool:
    """Whether names are only the numbers of the labels: "0", "1", ..."""
    return tuple(classes) == tuple(map(str, range(len(classes))))


def _fits(arrays: dict[str, Any]) -> bool:
    shapes = [arrays[f"{stem.split('-')[0]}-images"].shape[0] == array.shape[0] for stem, array in arrays.items()]
    kinds = [arrays[stem].dtype == np.uint8 for stem in _FILES if "images" in stem]
    kinds += [arrays[stem].dtype == (np.uint8 if arrays[stem].ndim == 2 else np.int64) for stem in _FILES[1::2]]
    return all(shapes) and all(kinds) and arrays["train-images"].ndim == 4


def _column_stems(columns: Mapping[str, Iterable[str]]) -> list[str]:
    """Names of the files of the columns, by the names of the columns of each side."""
    return [f"{side}-column-{name}" for side, names in columns.items() for name in names]


def _splits(arrays: dict[str, Any], copies: Sequence[int], columns: Mapping[str, Iterable[str]]) -> tuple[Split, Split]:
    made = [
        Split(
            arrays[f"{side}-images"],
            np.asarray(arrays[f"{side}-labels"]),
            n,
            columns={name: np.asarray(arrays[f"{side}-column-{name}"]) for name in columns.get(side, ())},
        )
        for side, n in zip(_SIDES, copies, strict=True)
    ]
    return made[0], made[1]


def _stamps_of(paths: Iterable[Path]) -> str:
    """A hash over size and time of files; what is no file has neither."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(f"{_stamp(path)}\n".encode())
        except OSError:
            digest.update(b"none\n")
    return digest.hexdigest()


def _origins(folder: Path, side: str) -> Path:
    return folder / f"{side}-origins.txt"


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def fingerprint(train: Split, test: Split, classes: Sequence[str]) -> str:
    """The sha256 (hexadecimal) over class names and, per split, shapes, image bytes, labels and columns."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for split in (train, test):
        digest.update(json.dumps([split.images.shape, split.labels.shape]).encode())
        for start in range(0, len(split), 4096):
            digest.update(np.ascontiguousarray(split.images[start : start + 4096]).data)
        digest.update(np.ascontiguousarray(split.labels, dtype="<i8").data)
        digest.update(columns_digest(split.columns))
    return digest.hexdigest()


def columns_digest(columns: Columns) -> bytes:
    """What columns add to a fingerprint; nothing where there are none."""
    digest = hashlib.sha256()
    for name in sorted(columns):
        values = np.ascontiguousarray(columns[name])
        digest.update(json.dumps([name, values.dtype.str, values.shape]).encode())
        digest.update(values.data)
    return digest.digest() if columns else b""


# ---- writing ----------------------------------------------------------------------------------


def check_labels(opened: Opened, name: str) -> None:
    """Refuse labels that are no classes of a source, and splits without images.

    Raises:
        DataError: names the first such image.
    """
    classes = len(opened.classes)
    for side, rows in (("train", opened.train), ("test", opened.test)):
        if not len(rows.labels):
            raise DataError(f"{name}: the {side} split holds no images")
        if has_sets(rows.labels):
            _check_sets(rows.labels, classes, name)
            continue
        wrong = np.flatnonzero((rows.labels < 0) | (rows.labels >= (classes or np.iinfo(np.int64).max)))
        if len(wrong):
            row = int(wrong[0])
            allowed = f"0..{classes - 1}" if classes else "0 and above"
            raise DataError(f"{name}: {rows.where(row)}: label {rows.labels[row]}, allowed: {allowed}")
    _refuse_wild_label(opened, name)


def _check_sets(labels: NDArray[Any], classes: int, name: str) -> None:
    if labels.dtype != np.uint8 or (classes and labels.shape[1] != classes) or labels.max(initial=0) > 1:
        raise DataError(
            f"{name}: labels are {labels.dtype} of shape {labels.shape}; of {plural(classes, 'class')} they are uint8, "
            "0 or 1, with a column for each class"
        )


def _class_count(labels: NDArray[Any]) -> int:
    """Classes of labels without names."""
    return labels.shape[1] if has_sets(labels) else 1 + int(labels.max())


def _refuse_wild_label(opened: Opened, name: str) -> None:
    """Without names, each number up to the highest label is a class: one wild label would make millions."""
    sides = (opened.train, opened.test)
    most = max(UNNAMED_CLASSES, sum(len(rows.labels) for rows in sides))
    for rows in () if opened.classes or has_sets(opened.train.labels) else sides:
        row = int(rows.labels.argmax())
        label = int(rows.labels[row])
        if label >= most:
            raise DataError(
                f"{name}: {rows.where(row)}: label {label} would make {plural(label + 1, 'class')}; labels count the "
                f"classes from 0 (here at most {most - 1:,}), or give them names"
            )


def _clear_stale(folder: Path) -> None:
    for path in folder.glob("*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()


def _build(
    folder: Path, opened: Opened, rule: Rule, show: Show, name: str, skip_bad: bool, identity: dict[str, Any]
) -> None:
    """Decode both splits into temporary files, then move them into place, the index last."""
    decoded: dict[str, Path] = {}
    origins: dict[str, Path] = {}
    skipped, size = opened.skipped, rule.out_size()
    bad: list[str] = []
    before = _stamps_of((*opened.train.files, *opened.test.files))  # a file may change while it is decoded
    try:
        for side, rows in (("train", opened.train), ("test", opened.test)):
            job = Decoding(rows, rule, show, f"decoding {name} ({side})", skip_bad, size)
            decoded[f"{side}-images"] = _temporary(folder, f"{side}-images")
            readable = job.run(decoded[f"{side}-images"])
            bad += job.bad
            if not len(readable):
                break
            skipped, size = skipped + len(rows.labels) - len(readable), job.size
            decoded[f"{side}-labels"] = _temporary(folder, f"{side}-labels")
            _save(decoded[f"{side}-labels"], rows.labels[readable])
            for column, values in rows.columns.items():
                decoded[f"{side}-column-{column}"] = _temporary(folder, f"{side}-column-{column}")
                _save(decoded[f"{side}-column-{column}"], values[readable])
            origins[side] = _temporary(folder, f"{side}-origins")
            write_origins(origins[side], rows.where, readable)
        if bad and not skip_bad:
            raise BadImagesError(sorted(bad))
        columns = {side: list(getattr(opened, side).columns) for side in _SIDES}
        splits = _splits({k: np.load(p, mmap_mode="r") for k, p in decoded.items()}, _copies(opened), columns)
        classes = opened.classes or tuple(map(str, range(max(_class_count(s.labels) for s in splits))))
        beside = [str(path.absolute()) for path in (*opened.train.files, *opened.test.files)]
        files = {"files": {"paths": beside, "stamps": before}} if beside else {}
        index = {
            "format": FORMAT,
            "name": name,
            "source": identity,
            "rule": rule.table(),
            "classes": classes,
            "named": bool(opened.classes),
            "counts": [len(split) for split in splits],
            "copies": _copies(opened),
            "columns": columns,
            "fingerprint": fingerprint(*splits, classes),
            "skipped": skipped,
            "ignored": opened.ignored,
            "findings": msgspec.to_builtins(opened.findings),
            "splits_from": opened.splits_from,
            **files,
        }
        for side, path in origins.items():
            os.replace(path, _origins(folder, side))
        _publish(folder, decoded, index)
    finally:
        for path in (*decoded.values(), *origins.values()):
            path.unlink(missing_ok=True)


def _copies(opened: Opened) -> list[int]:
    return [opened.train.copies, opened.test.copies]


def _publish(folder: Path, decoded: dict[str, Path], index: dict[str, Any]) -> None:
    for stem, path in decoded.items():
        os.replace(path, folder / f"{stem}.npy")
    index["stamps"] = {stem: _stamp(folder / f"{stem}.npy") for stem in decoded}
    temporary = _temporary(folder, "index")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(index, file, default=str)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / "index.json")
    with suppress(OSError):  # not every system lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _temporary(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.{os.getpid()}.{time.monotonic_ns()}.tmp"


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())
