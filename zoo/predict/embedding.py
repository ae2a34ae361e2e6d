"""Features of images as a file: what is in it, and how it is read. Light to import: nothing here needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.paths import SteadyPath, local_path
from zoo.base.text import plural, printable
from zoo.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER = b"zoo.features"
"""The key of the metadata of a Parquet file under which its header stands, as JSON."""

FEATURES = "features"
"""The column, or the field of a structured array, that holds the vectors."""

SUFFIXES = (".parquet", ".npy")


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Features of images, a row each, in a file.

    Attributes:
        path: the file, Parquet or npy; it is read when something of it is asked for.
        header: `model`, `feature`, `width`, `dataset`, `fingerprint`, `counts`, `classes`, `transform`, `colours`,
            `weights_sha256`, `build` and `versions`: what the metadata of a Parquet file say.
        computed: images whose features this call computed; the others were there already.
    """

    path: Path
    header: Mapping[str, Any]
    computed: int = 0

    @property
    def feature(self) -> str:
        """What the vectors are: "pre_logits", or the name of a layer."""
        return str(self.header["feature"])

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self.header["width"])

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """float32 (N, width); of an npy file mapped from the disk."""
        if self.path.suffix == ".npy":
            mapped: NDArray[np.float32] = self._array[FEATURES]
            return mapped
        column = self._column(FEATURES)
        vectors: NDArray[np.float32] = column.combine_chunks().flatten().to_numpy().reshape(-1, self.width)
        return vectors

    @cached_property
    def images(self) -> list[str]:
        """Where each image came from: its file, or the row of a file."""
        return self._list("image")

    @cached_property
    def splits(self) -> list[str] | None:
        """The split of each image: "train", "validation" or "test"; None for images that are of no dataset."""
        return self._list("split") if "split" in self.columns else None

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """int64 (N,), the class of each image; None for images without one, or with several labels."""
        import numpy as np

        return np.asarray(self._list("label"), np.int64) if "label" in self.columns else None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        if self.path.suffix == ".npy":
            return tuple(self._array.dtype.names or ())
        from pyarrow import parquet

        return tuple(parquet.read_schema(self.path).names)

    def __len__(self) -> int:
        """How many images there are."""
        if self.path.suffix == ".npy":
            return len(self._array)
        from pyarrow import parquet

        return int(parquet.read_metadata(self.path).num_rows)

    def __repr__(self) -> str:
        """The file, what is in it, and of how many images."""
        what = f"{self.feature} of width {self.width}"
        return printable(f"Embeddings({str(self.path)!r}: {what}, {plural(len(self), 'image')})")

    @cached_property
    def _array(self) -> NDArray[Any]:
        import numpy as np

        array: NDArray[Any] = np.load(self.path, mmap_mode="r")
        return array

    def _column(self, name: str) -> Any:
        from pyarrow import parquet

        return parquet.read_table(self.path, columns=[name]).column(name)

    def _list(self, name: str) -> list[Any]:
        return list(self._array[name].tolist() if self.path.suffix == ".npy" else self._column(name).to_pylist())


Embeddings.path = SteadyPath("path")  # type: ignore[assignment]  # a program may change its own folder


def checked_output(path: str | Path) -> Path:
    """The path of a file of features.

    Raises:
        InputError: its name does not say the format.
    """
    output = local_path(path)
    if output.suffix not in SUFFIXES:
        raise InputError(f"--output {path}: the name must end with {' or '.join(SUFFIXES)}")
    return output


def read_header(path: Path) -> dict[str, Any] | None:
    """What a file of features says of itself; None where it is another file.

    An npy file says the name of the feature, as the title of its field, and the width.
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    try:
        if path.suffix == ".npy":
            kind = np.load(path, mmap_mode="r").dtype
            entry = (kind.fields or {})[FEATURES]
            return {"feature": str(entry[2]), "width": int(entry[0].shape[0])}
        header: dict[str, Any] = json.loads((parquet.read_schema(path).metadata or {})[HEADER])
        return header
    except (OSError, ValueError, KeyError, IndexError, pa.ArrowException):
        return None
