"""Image files by the million: their paths, sizes and times in a few flat arrays, and the images as an array.

The index of a folder is kept in the cache directory. It is used again while no directory below the
folder changed (each one's modification time is compared); a file that is rewritten in place is noticed
when it is read, by its size and time.
"""

from __future__ import annotations

import hashlib
import os
import time
import unicodedata
import zipfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.data.files.decode import Rule
from zoo.data.files.formats import ENDINGS
from zoo.data.files.reading import Stamp, decode_file
from zoo.data.types import Images, Item, Labels
from zoo.errors import BadImagesError, DataError, SizesError

FORMAT = 3  # 1: thumbnails of storage devices were listed; 2: no photographs of phones (HEIC) were
SETTLED = 2_000_000_000
"""A directory that changed less than this (ns) before it was read may change again within the same tick
of its clock, and no comparison would show it: such an index is not kept."""


SYSTEM = frozenset(
    {
        "__macosx",
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)
"""Folders that file systems, archives and storage devices make: thumbnails and waste, never anybody's images."""


def is_image(name: str) -> bool:
    """Whether a file's name ends as those of images that are read."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def is_visible(name: str) -> bool:
    """Whether a file or folder is a person's: no hidden one, and none of `SYSTEM`."""
    return not name.startswith(".") and name.casefold() not in SYSTEM


@dataclass(frozen=True)
class Files(Sequence[Path]):
    """Files below a folder, about 40 bytes each beside the text of their paths.

    Attributes:
        root: the folder. names: uint8, all relative paths one after another, in the file system's
            encoding. ends: int64 (N,), where each path ends. sizes, times: int64 (N,), see `Stamp`.
    """

    root: Path
    names: NDArray[np.uint8] = field(repr=False)
    ends: Labels = field(repr=False)
    sizes: Labels = field(repr=False)
    times: Labels = field(repr=False)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.ends)

    @overload
    def __getitem__(self, key: int) -> Path: ...
    @overload
    def __getitem__(self, key: slice) -> list[Path]: ...
    def __getitem__(self, key: int | slice) -> Path | list[Path]:
        """The path of one file, or of several."""
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        return self.root / os.fsdecode(self.name(key if key >= 0 else key + len(self)))

    def name(self, row: int) -> bytes:
        """The relative path of one file."""
        start = int(self.ends[row - 1]) if row else 0
        return self.names[start : int(self.ends[row])].tobytes()

    def stamp(self, row: int) -> Stamp:
        """Size and time of one file, as indexed."""
        return Stamp(int(self.sizes[row]), int(self.times[row]))

    def where(self, row: int) -> str:
        """What messages call one image."""
        return str(self[row])

    def items(self, rows: Labels) -> Sequence[Item]:
        """Several images, undecoded."""
        return [self[row] for row in rows.tolist()]


@dataclass(frozen=True)
class Listing:
    """The image files of one folder of class folders, classes and files in sorted order; or of a table, in its order.

    Attributes:
        labels: int64 (N,), or sets of classes (N, K), see `zoo.data.label_sets`.
        folders: relative path to modification time (ns) of every directory.
        ignored: visible files that are no images, or rows without a label. left_out: how many have each ending.
        loose: images beside the class folders, which belong to no class.
        validates: how many of the last files are validation images, of a listing of training images.
        skipped: rows of a table that cannot be used. named: whether the classes have names, or numbers alone.
    """

    files: Files
    labels: NDArray[Any] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    ignored: int
    folders: dict[str, int] = field(repr=False, default_factory=dict)
    left_out: dict[str, int] = field(repr=False, default_factory=dict)
    loose: int = 0
    validates: int = 0
    skipped: int = 0
    named: bool = True

    @property
    def held(self) -> NDArray[np.bool_]:
        """Which files are validation images: bool (N,)."""
        count = len(self.labels)
        return np.arange(count) >= count - self.validates

    @property
    def folder(self) -> Path:
        """The folder of class folders."""
        return self.files.root

    def digest(self, *, times: bool) -> str:
        """A sha256 (hexadecimal) over class names, relative paths, labels and sizes, and `times` if wanted.

        No file is opened: other content of the same size and name gives the same digest.
        """
        digest = hashlib.sha256("\0".join(self.classes).encode("utf-8", "surrogateescape"))
        parts: list[NDArray[Any]] = [self.files.names, self.files.ends, self.labels, self.files.sizes]
        for part in (*parts, self.files.times) if times else parts:
            digest.update(f"|{len(part)}|".encode())
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()


# ---- reading a folder -------------------------------------------------------------------------


class _Found(NamedTuple):
    """What `_walk` collects, in arrays: lists of numbers would take five times their memory."""

    names: bytearray
    ends: array[int]
    sizes: array[int]
    times: array[int]
    folders: dict[str, int]
    left_out: Counter[str]


def visible(folder: Path | str) -> list[os.DirEntry[str]]:
    """The entries of a folder that are a person's (see `is_visible`), sorted by name."""
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if is_visible(e.name)), key=lambda e: e.name)


def _walk(folder: str, prefix: str, entries: _Found, above: tuple[tuple[int, int], ...] = ()) -> None:
    """Collect all image files below a folder, in order, and count the other visible files by their endings.

    Args:
        above: the folders that it lies in, by device and inode: a link back to one of them is no folder.
    """
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        entries.left_out["a link back"] += 1
        return
    entries.folders[prefix.rstrip("/")] = status.st_mtime_ns
    for entry in visible(folder):
        if entry.is_dir():
            _walk(entry.path, f"{prefix}{entry.name}/", entries, (*above, here))
        elif is_image(entry.name):
            entries.names.extend(os.fsencode(prefix + entry.name))
            entries.ends.append(len(entries.names))
            try:
                status = entry.stat()
            except FileNotFoundError:  # a link to nothing: an image that cannot be read, as others
                status = entry.stat(follow_symlinks=False)
            entries.sizes.append(status.st_size)
            entries.times.append(status.st_mtime_ns)
        else:
            entries.left_out[os.path.splitext(entry.name)[1].lower() or "no ending"] += 1


def read_folder(folder: Path) -> Listing:
    """List a folder of class folders, looking at every entry; a class may be without images.

    Raises:
        DataError: no class folders, or what cannot be listed.
    """
    entries = _Found(bytearray(), array("q"), array("q"), array("q"), {"": 0}, Counter())
    counts: list[int] = []
    before = time.time_ns()
    try:
        entries.folders[""] = folder.stat().st_mtime_ns
        inside = visible(folder)
        classes = [entry.name for entry in inside if entry.is_dir()]
        loose = sum(is_image(entry.name) and not entry.is_dir() for entry in inside)
        for name in classes:
            _walk(os.path.join(folder, name), f"{name}/", entries)
            counts.append(len(entries.ends) - sum(counts))
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be listed: {error.strerror}") from error
    if not classes:
        raise DataError(f"{folder} holds no class folders; expected one folder with images per class")
    _refuse_names(folder, classes)
    names = np.frombuffer(bytes(entries.names), np.uint8)
    ends, sizes, times = (np.array(x, np.int64) for x in (entries.ends, entries.sizes, entries.times))
    labels = np.repeat(np.arange(len(classes)), counts)
    settled = before - max(entries.folders.values()) > SETTLED
    folders = entries.folders if settled else {}
    ignored, left_out = entries.left_out.total(), dict(entries.left_out)
    files = Files(folder, names, ends, sizes, times)
    return Listing(files, labels, tuple(classes), ignored, folders, left_out, loose)


def _refuse_names(folder: Path, classes: Sequence[str]) -> None:
    """Refuse class folders whose names no file of a run could hold, or that look the same."""
    seen: dict[str, str] = {}
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{folder}: the name of the class folder {os.fsencode(name)!r} is not UTF-8; rename it"
            ) from None
        if seen.setdefault(unicodedata.normalize("NFC", name), name) != name:
            raise DataError(
                f"{folder} holds two class folders named {name!r}, one with composed and one with decomposed "
                "characters (NFC and NFD); put their images into one, or rename one"
            )


# ---- the kept index ---------------------------------------------------------------------------


def list_folder(folder: Path) -> Listing:
    """`read_folder`, or what it gave before where no directory changed since.

    Raises:
        DataError: as `read_folder`.
    """
    path = index_path(folder)
    indexed = _stored_index(path, folder)
    if indexed is not None:
        return indexed
    made = read_folder(folder)
    if made.folders:
        with suppress(WriteError), replacing(path) as temporary:
            _write(temporary, made)
    return made


def index_path(folder: Path) -> Path:
    """Where the index of a folder is kept; it may be deleted at any time."""
    return cache_dir() / "files" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]}.npz"


def _write(path: Path, listing: Listing) -> None:
    files = listing.files
    arrays = {"names": files.names, "ends": files.ends, "sizes": files.sizes, "times": files.times}
    with path.open("wb") as file:
        np.savez(
            file,
            head=np.array([FORMAT, listing.ignored, listing.loose]),
            left_out=_packed(listing.left_out),
            left_counts=np.array(list(listing.left_out.values()), np.int64),
            labels=listing.labels,
            classes=_packed(listing.classes),
            folders=_packed(listing.folders),
            changed=np.array(list(listing.folders.values()), np.int64),
            **arrays,  # type: ignore[arg-type]
        )


def _packed(texts: Sequence[str] | dict[str, int]) -> NDArray[np.uint8]:
    return np.frombuffer(os.fsencode("\0".join(texts)), np.uint8)


def _unpacked(array: NDArray[np.uint8]) -> list[str]:
    return os.fsdecode(array.tobytes()).split("\0")


def _stored_index(path: Path, folder: Path) -> Listing | None:
    """The kept index, or None where it is absent, damaged or no longer true."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            folders = dict(zip(_unpacked(arrays["folders"]), arrays["changed"].tolist(), strict=True))
            if arrays["head"][0] != FORMAT or any(_changed(folder / n) != t for n, t in folders.items()):
                return None
            files = Files(folder, arrays["names"], arrays["ends"], arrays["sizes"], arrays["times"])
            classes = tuple(_unpacked(arrays["classes"]))
            counts = arrays["left_counts"].tolist()
            left_out = dict(zip(_unpacked(arrays["left_out"])[: len(counts)], counts, strict=True))
            _, ignored, loose = arrays["head"].tolist()
            return Listing(files, arrays["labels"], classes, ignored, folders, left_out, loose)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def forget(folder: Path) -> None:
    """Remove the kept indices of a folder and of those in it, such as train/ and val/, so that they are listed anew."""
    with suppress(OSError):
        for place in (folder, *(Path(entry.path) for entry in visible(folder) if entry.is_dir())):
            index_path(place).unlink(missing_ok=True)


def _changed(folder: Path) -> int:
    return folder.stat().st_mtime_ns


# ---- images that are still files --------------------------------------------------------------


@dataclass(frozen=True)
class FileImages:
    """The images of a split as an array that decodes what is read from it: uint8 (N, 3, H, W).

    Attributes:
        rows: int64 (N,), which of the files. size: (height, width) of every image.
    """

    files: Files
    rows: Labels = field(repr=False)
    rule: Rule
    size: tuple[int, int]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As of an array."""
        return (len(self.rows), 3, *self.size)

    @property
    def nbytes(self) -> int:
        """What the decoded images would take."""
        return int(np.prod(self.shape))

    def __getitem__(self, key: int | slice | Labels) -> Images:
        """Decode one image, or several, in this process.

        Raises:
            DataError: as `decode_file`.
        """
        if isinstance(key, int | np.integer):
            return self._decoded(int(key))
        chosen = np.arange(len(self))[key]
        out = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for place, row in enumerate(chosen):
            out[place] = self._decoded(int(row))
        return out

    def __iter__(self) -> Iterator[Images]:
        """Decode one after another."""
        return (self[i] for i in range(len(self)))

    def select(self, rows: Labels) -> FileImages:
        """Some of the images, still files."""
        return replace(self, rows=self.rows[rows])

    def path(self, row: int) -> Path:
        """The file of one image."""
        return self.files[int(self.rows[row])]

    def where(self, row: int) -> str:
        """What messages call one image."""
        return self.files.where(int(self.rows[row]))

    def several(self, rows: Labels) -> Images:
        """Decode several images in threads: uint8 (n, 3, H, W).

        Raises:
            DataError: as `decode_file`.
        """
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            return np.stack(list(threads.map(self._decoded, rows.tolist())))

    def stamp(self, row: int) -> Stamp:
        """The file of one image as it was indexed."""
        return self.files.stamp(int(self.rows[row]))

    def _decoded(self, row: int) -> Images:
        try:
            return decode_file(str(self.path(row)), self.stamp(row), self.rule, self.size, self.rule.colours)
        except (BadImagesError, SizesError):
            raise
        except DataError:  # the file is another one than the index says: the next start lists the folder anew
            forget(self.files.root)
            raise
