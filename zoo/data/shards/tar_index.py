"""The samples of one tar file in the layout of WebDataset: where each image is, and its label.

Files that follow one another and have one name up to its first dot are a sample: `0001.jpg`, `0001.cls`, `0001.json`.
The headers are read once; what they say is kept in the cache directory, until the tar changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zipfile
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.base.text import first_line
from zoo.data.files.formats import ENDINGS
from zoo.data.files.image_files import is_visible
from zoo.data.shards.remote import RemoteFile
from zoo.data.types import Labels
from zoo.errors import DataError, InputError

FORMAT = 2

MOST_LABEL = 16 << 20
"""Bytes of a file that holds a label, at most."""

PACKED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
"""How compressed files begin."""


class Fields(NamedTuple):
    """Which files of a sample are the image and the label.

    Attributes:
        image: ending of the image's file; "": the one with an ending of images. label: ending of the label's file.
        key: of a label in a JSON file, the names that lead to it; () where the file is the label.
    """

    image: str = ""
    label: str = "cls"
    key: tuple[str, ...] = ()

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Fields:
        """The fields that the options `image` and `label` name: `?label=json.meta.class`."""
        ending, _, key = str(options.get("label", "cls")).partition(".")
        if ending.lower() != "json":
            ending, key = str(options.get("label", "cls")), ""
        image = str(options.get("image", "")).lower().removeprefix(".")
        return cls(image, ending.lower(), tuple(key.split(".")) if key else ())


@dataclass(frozen=True)
class TarIndex:
    """The samples of a tar that have an image and a label.

    Attributes:
        names: uint8, the names of the images one after another. ends: int64 (N,), where each ends.
        offsets, sizes: int64 (N,), of the images' bytes. codes: int64 (N,), the label of each, a place in `labels`.
        labels: the different labels, as texts. unlabelled, imageless: samples that have no label, or no image.
    """

    names: NDArray[np.uint8] = field(repr=False)
    ends: Labels = field(repr=False)
    offsets: Labels = field(repr=False)
    sizes: Labels = field(repr=False)
    codes: Labels = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    unlabelled: int = 0
    imageless: int = 0

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.ends)

    def name(self, row: int) -> str:
        """The name of one image in the tar."""
        start = int(self.ends[row - 1]) if row else 0
        return self.names[start : int(self.ends[row])].tobytes().decode("utf-8", "replace")


class _Sample:
    """What is known of the sample that is being read."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.image: tuple[str, int, int] | None = None
        self.label: str | None = None
        self.endings: list[str] = []


class _Samples:
    """Collects the samples of a tar in arrays."""

    def __init__(self, where: str, fields: Fields) -> None:
        self.where, self.fields = where, fields
        self.names, self.codes = bytearray(), array("q")
        self.ends, self.offsets, self.sizes = array("q"), array("q"), array("q")
        self.labels: dict[str, int] = {}
        self.without: Counter[str] = Counter()
        self.unlabelled: list[str] = []
        self.sample: _Sample | None = None

    def see(self, member: tarfile.TarInfo, read: Callable[[], bytes]) -> None:
        """Take one file of the tar."""
        folder, slash, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if not stem or not ending or not is_visible(base) or base.startswith("__"):
            return
        key = f"{folder}{slash}{stem}"
        if self.sample is None or self.sample.key != key:
            self.end()
            self.sample = _Sample(key)
        self._take(self.sample, member, ending.lower(), read)

    def _take(self, sample: _Sample, member: tarfile.TarInfo, ending: str, read: Callable[[], bytes]) -> None:
        where, fields = f"{self.where}: {member.name}", self.fields
        if ending in sample.endings:
            raise DataError(f"{where}: the sample {sample.key!r} has two files .{ending}; each ending stands once")
        sample.endings.append(ending)
        if ending == fields.image or (not fields.image and f".{ending}" in ENDINGS):
            if sample.image is not None:
                raise InputError(f"{where}: the sample has several images; choose one by ?image={ending}")
            sample.image = (member.name, member.offset_data, member.size)
        elif ending == fields.label:
            if member.size > MOST_LABEL:
                raise DataError(f"{where}: {member.size:,} bytes are no label")
            sample.label = _label(read(), fields.key, where)

    def end(self) -> None:
        """The sample is whole."""
        sample, self.sample = self.sample, None
        if sample is None:
            return
        if sample.image is None or sample.label is None:
            self.without["label" if sample.image else "image"] += 1
            if sample.image:
                self.unlabelled = self.unlabelled or [sample.key, *sample.endings]
            return
        name, offset, size = sample.image
        self.names.extend(name.encode("utf-8", "surrogateescape"))
        self.ends.append(len(self.names))
        self.offsets.append(offset)
        self.sizes.append(size)
        self.codes.append(self.labels.setdefault(sample.label, len(self.labels)))

    def index(self) -> TarIndex:
        """What was collected.

        Raises:
            DataError: no sample has both an image and a label.
        """
        self.end()
        if not len(self.ends):
            raise DataError(f"{self.where}: {self._why()}")
        return TarIndex(
            np.frombuffer(bytes(self.names), np.uint8),
            np.array(self.ends, np.int64),
            np.array(self.offsets, np.int64),
            np.array(self.sizes, np.int64),
            np.array(self.codes, np.int64),
            tuple(self.labels),
            self.without["label"],
            self.without["image"],
        )

    def _why(self) -> str:
        fields = self.fields
        if not self.unlabelled:
            image = f" (.{fields.image})" if fields.image else ""
            return f"no sample has an image{image}; a sample is files of one name: 0001.jpg and 0001.cls"
        key, *endings = self.unlabelled
        label = f"value {'.'.join(fields.key)} in its .json" if fields.key else f"file .{fields.label}"
        return (
            f"no sample with an image has a label: the sample {key!r} has no {label} (its files: "
            f"{', '.join(f'.{ending}' for ending in endings)}); name it by ?label=ENDING or ?label=json.FIELD"
        )


class _StrictHeader(tarfile.TarInfo):
    """A header that `tarfile` does not take for the end of the tar when it is damaged or missing."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictHeader:
        """Read the next header.

        Raises:
            tarfile.ReadError: the tar does not end as one does (with a block of zeros), or a header is damaged.
        """
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            why = f"it is cut short after {tarfile_.offset:,} bytes; get it again" if tarfile_.offset else error
            raise tarfile.ReadError(str(why)) from None
        except tarfile.HeaderError as error:
            place = f" at byte {tarfile_.offset:,}; get it again" if tarfile_.offset else ""
            raise tarfile.ReadError(f"{error}{place}") from None


def _label(content: bytes, key: tuple[str, ...], where: str) -> str | None:
    """The text of a label; None where a JSON file has no such value, or the text is empty."""
    try:
        text = content.decode("utf-8-sig").strip()
        if not key:
            return text or None
        value = json.loads(text)
    except (UnicodeDecodeError, ValueError) as error:
        kind = "JSON" if key else "a label in UTF-8"
        raise DataError(f"{where}: cannot be read as {kind} ({first_line(error, 80)})") from None
    for name in key:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return None
    if isinstance(value, bool | list | dict | float):
        raise DataError(
            f"{where}: the value {'.'.join(key)} is {json.dumps(value)[:60]}; a label is a text or a number"
        )
    return str(value).strip() or None


def read_tar(file: IO[bytes], where: str, fields: Fields, *, length: int = 0) -> TarIndex:
    """Read the headers of a tar, and its labels.

    Args:
        file: read from its beginning to its end; it is sought in where it can be. where: what messages call it.
        length: its bytes, if they are known.
    Raises:
        DataError: it is damaged or compressed, a label cannot be read, or no sample has an image and a label.
        InputError: a sample has several images.
    """
    samples = _Samples(where, fields)
    try:
        with tarfile.open(fileobj=file, mode="r:" if file.seekable() else "r|", tarinfo=_StrictHeader) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # which would grow with the file
                if not member.isreg():
                    continue
                if length and member.offset_data + member.size > length:
                    raise DataError(f"{where}: is cut short in {member.name}; get it again")

                def read(member: tarfile.TarInfo = member) -> bytes:
                    inner = tar.extractfile(member)
                    return inner.read() if inner else b""

                samples.see(member, read)
    except tarfile.TarError as error:
        raise DataError(f"{where}: cannot be read as a tar file ({first_line(error, 80)})") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or first_line(error, 80)})") from None
    return samples.index()


# ---- the kept index ---------------------------------------------------------------------------


def kept(key: str, make: Callable[[], TarIndex]) -> TarIndex:
    """The index of a tar as it was read before, or as it is read now.

    Args:
        key: what it depends on: the tar's place, size and time, and the fields.
    """
    path = cache_dir() / "shards" / f"{hashlib.sha256(f'{FORMAT} {key}'.encode()).hexdigest()[:24]}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return _stored(path)
    made = make()
    with suppress(WriteError), replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            names=made.names,
            ends=made.ends,
            offsets=made.offsets,
            sizes=made.sizes,
            codes=made.codes,
            labels=np.frombuffer("\0".join(made.labels).encode("utf-8", "surrogateescape"), np.uint8),
            without=np.array([made.unlabelled, made.imageless]),
        )
    return made


def _stored(path: Path) -> TarIndex:
    with np.load(path, allow_pickle=False) as arrays:
        labels = arrays["labels"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        columns = {name: arrays[name] for name in ("names", "ends", "offsets", "sizes", "codes")}
        unlabelled, imageless = arrays["without"].tolist()
        return TarIndex(**columns, labels=tuple(labels), unlabelled=unlabelled, imageless=imageless)


def local_index(path: str, fields: Fields) -> TarIndex:
    """The index of a tar on this machine.

    Raises:
        DataError, InputError: as `read_tar`.
    """
    try:
        status = os.stat(path)
        with open(path, "rb") as file:
            refuse_compressed(file.read(8), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None

    def make() -> TarIndex:
        with open(path, "rb") as file:
            return read_tar(file, path, fields, length=status.st_size)

    return kept(f"{path} {status.st_size} {status.st_mtime_ns} {fields}", make)


def remote_index(file: RemoteFile, fields: Fields) -> TarIndex:
    """The index of a tar at an address: it is read once from its beginning to its end, whose images are not kept.

    Raises:
        DataError, InputError: as `read_tar`.
    """

    def make() -> TarIndex:
        refuse_compressed(file.read_range(0, min(8, file.size)), file.label)
        return file.tried(read)

    def read() -> TarIndex:
        with file.streamed() as body:
            return read_tar(body, file.label, fields, length=file.size)

    return kept(f"{file.url} {file.size} {file.version} {fields}", make)


def refuse_compressed(head: bytes, where: str) -> None:
    """Refuse a tar that is compressed as a whole.

    Raises:
        DataError: says what to do.
    """
    for magic, kind in PACKED:
        if head.startswith(magic):
            raise DataError(
                f"{where}: is compressed ({kind}), and images are read from any place of a tar; decompress it "
                "(images hardly shrink by it)"
            )
