"""What a source offers whose images are files: they can be streamed, as none has to be decoded before it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from zoo.data.files.image_files import Listing
from zoo.data.findings import Finding
from zoo.data.sources.source import Rows, Source, item_rows
from zoo.data.types import CHUNK, VALIDATES, Chunk, Columns, Labels, SplitsFrom


class Part(NamedTuple):
    """A split whose images are files.

    Attributes:
        listing: of the files; both splits may have the same one. rows: int64 (N,), which of them are the split.
        columns: what else is known of each image of the split.
    """

    listing: Listing
    rows: Labels
    columns: Columns

    @property
    def labels(self) -> Labels:
        """int64 (N,)."""
        return self.listing.labels[self.rows]

    @property
    def validates(self) -> NDArray[np.bool_]:
        """Which images only validate: bool (N,)."""
        return self.columns.get(VALIDATES, np.zeros(len(self.rows), bool))

    def select(self, chosen: Labels, listing: Listing) -> Part:
        """Some of the images, by their places in the split; `listing` has the same files."""
        return Part(listing, self.rows[chosen], {name: values[chosen] for name, values in self.columns.items()})

    def opened(self) -> Rows:
        """The split, to be decoded into the cache."""
        files, rows = self.listing.files, self.rows

        def chunks() -> Iterator[Chunk]:
            for start in range(0, len(rows), CHUNK):
                yield files.items(rows[start : start + CHUNK])

        opened = item_rows((), self.labels, lambda i: files.where(int(rows[i])))
        return Rows(opened.labels, chunks, opened.where, columns=self.columns)


@runtime_checkable
class FileSource(Source, Protocol):
    """A source that lists files."""

    def parts(self) -> tuple[Part, Part]:
        """Training and test images; what was listed before may be trusted.

        Raises:
            DataError: as `Source.open`.
        """

    def splits_from(self) -> SplitsFrom:
        """Where the validation and the test images came from."""

    def findings(self, listings: Sequence[Listing] | None = None) -> tuple[Finding, ...]:
        """What was seen while the files were listed; in `listings`, if they are given."""

    def content(self, listings: Sequence[Listing] | None = None) -> tuple[str, Iterator[Chunk]]:
        """What the pixels of all files depend on, and the files, undecoded."""
