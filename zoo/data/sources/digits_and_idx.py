"""Datasets that need no download: scikit-learn's digits, and IDX files that already lie somewhere."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.base.paths import local_path
from zoo.base.text import plural
from zoo.data.sources.source import Opened, Request, array_rows
from zoo.data.split import stratified
from zoo.errors import DataError, InputError

DIGITS_TEST = 360
DIGITS_SEED = 0


@dataclass(frozen=True)
class DigitsSource:
    """scikit-learn's 1,797 handwritten digits, 8x8, values 0..16 scaled to 0..255.

    They have no split of their own: 360 stratified images (20%), always the same, are the test split.
    """

    @classmethod
    def make(cls, request: Request) -> DigitsSource:
        """The source for `sklearn:digits`."""
        if request.rest != "digits":
            raise InputError(f"sklearn:{request.rest}: only sklearn:digits is known")
        return cls()

    def identity(self) -> dict[str, Any]:
        """Fixed: the images come with scikit-learn and do not change."""
        return {"scheme": "sklearn", "name": "digits", "test": DIGITS_TEST, "seed": DIGITS_SEED}

    def open(self) -> Opened:
        """Both splits, in memory."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        labels = digits.target.astype(np.int64)
        test = stratified(labels, DIGITS_TEST, DIGITS_SEED)
        train = np.setdiff1d(np.arange(len(labels)), test)
        return Opened(array_rows(images, labels, "digits", train), array_rows(images, labels, "digits", test))


def idx_array(path: Path) -> np.ndarray:
    """Read one IDX file (of MNIST's format), gzipped or not.

    Returns:
        uint8, the shape that the file's header gives.
    Raises:
        DataError: not an IDX file of bytes, or truncated.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
            raise DataError(f"{path} is not an IDX file of bytes")
        shape = np.frombuffer(data, ">u4", data[3], 4).tolist()
        return np.frombuffer(data, np.uint8, int(np.prod(shape)), 4 + 4 * data[3]).reshape(shape)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


_IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def idx_files(folder: Path) -> list[Path]:
    """The four IDX files of a folder, or an empty list where one is missing."""
    paths = [
        next((p for end in ("-ubyte", "-ubyte.gz") if (p := folder / f"{stem}{end}").is_file()), None) for stem in _IDX
    ]
    present = [path for path in paths if path is not None]
    return present if len(present) == len(_IDX) else []


@dataclass(frozen=True)
class IdxSource:
    """The four files of MNIST's layout in one folder."""

    files: tuple[Path, ...]

    @classmethod
    def make(cls, request: Request) -> IdxSource:
        """The source for `idx:PATH`."""
        files = idx_files(local_path(request.rest))
        if not files:
            raise InputError(f"idx:{request.rest}: expected the files {', '.join(s + '-ubyte[.gz]' for s in _IDX)}")
        return cls(tuple(files))

    def identity(self) -> dict[str, Any]:
        """Each file's path, size and time."""
        stamps = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in self.files]
        return {"scheme": "idx", "files": stamps}

    def open(self) -> Opened:
        """Both splits, in memory."""
        images, labels, test_images, test_labels = (idx_array(path) for path in self.files)
        for path, some, many in ((self.files[0], images, labels), (self.files[2], test_images, test_labels)):
            if len(some) != len(many):
                raise DataError(f"{path} holds {plural(len(some), 'image')} for {plural(len(many), 'label')}")
        name = str(self.files[0].parent)
        return Opened(
            array_rows(images, labels, f"{name} (train)"), array_rows(test_images, test_labels, f"{name} (test)")
        )
