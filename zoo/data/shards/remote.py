"""Files at an address, read by ranges of bytes; of a server without ranges, whole files that the cache keeps."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.base.quiet_imports import without_advice
from zoo.base.text import first_line
from zoo.data.files.reading import Stamp
from zoo.errors import AbsentDataError, DataError

TRIES = 5
"""How often a request is made before its error is told."""

PATIENCE = 60.0
"""Seconds that a server may be silent."""

WHOLE = 64 << 20
"""A larger file is not read whole for a part of it."""

KEPT = 1 << 20
"""Bytes of a range that is kept on disk, at most: footers and labels, never images."""

APART = 64 << 10
"""Bytes between two parts that are read along: a request of its own takes longer."""

T = TypeVar("T")

Stretch = tuple[int, int]
"""Offset and size."""


class _AgainError(Exception):
    """A request that may succeed another time."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address, as it was when it was looked at.

    Attributes:
        label: what messages call it. size: bytes. version: what the server says changes with the content: ETag or
            time; "" where the address stands for one content for ever. ranges: whether parts of it can be asked for.
        headers: of every request. keeps: whether small ranges are kept in the cache directory.
    """

    url: str
    label: str
    size: int = 0
    version: str = ""
    ranges: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    keeps: bool = False

    is_local = False

    def __str__(self) -> str:
        """What messages call it."""
        return self.label

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.label.rpartition("/")[2]

    @property
    def path(self) -> str:
        """What messages call it."""
        return self.label

    @property
    def stamp(self) -> Stamp:
        """Its size, and a number that stands for its version."""
        return Stamp(self.size, int(hashlib.sha256(self.version.encode()).hexdigest()[:12], 16))

    def looked_at(self) -> RemoteFile:
        """The file with its size and version, which the server says.

        Raises:
            DataError: it cannot be had.
        """

        def ask() -> RemoteFile:
            with self._asked({"Range": "bytes=0-0"}) as response:
                told = response.headers
                total = re.fullmatch(r"bytes \d+-\d+/(\d+)", told.get("content-range", ""))
                ranges = response.status_code == 206 and total is not None
                size = int(total[1]) if total and ranges else int(told.get("content-length") or 0)
                version = told.get("etag") or told.get("last-modified") or ""
                return replace(self, size=size, version=version, ranges=ranges)

        return self.tried(ask)

    def read_range(self, start: int, size: int) -> bytes:
        """A part of it.

        Raises:
            DataError: it cannot be had, or the file was changed.
        """
        if not size:
            return b""

        def ask() -> bytes:
            with self._asked({"Range": f"bytes={start}-{start + size - 1}"}) as response:
                whole = response.status_code != 206
                if whole and self.size > WHOLE:
                    raise DataError(f"{self.label}: the server does not give parts of a file")
                now = response.headers.get("etag") or response.headers.get("last-modified") or ""
                if self.version and now and now != self.version:
                    raise DataError(f"{self.label}: was changed after it was listed; start again")
                content: bytes = response.read()
                content = content[start : start + size] if whole else content
                if len(content) != size:
                    raise _AgainError(f"{len(content):,} bytes came in place of {size:,}")
                return content

        if not self.keeps or size > KEPT:
            return self.tried(ask)
        path = cache_dir() / "shards" / f"part-{self._key(start, size)}"
        with suppress(OSError):
            content = path.read_bytes()
            if len(content) == size:
                return content
        content = self.tried(ask)
        with suppress(WriteError), replacing(path) as temporary:
            temporary.write_bytes(content)
        return content

    def read(self, stretches: Sequence[Stretch]) -> list[bytes]:
        """Several parts of it, ascending; near ones by one request.

        Raises:
            DataError: as `read_range`.
        """
        contents = []
        for run in runs_of(stretches):
            first, end = run[0][0], sum(run[-1])
            content = self.read_range(first, end - first)
            contents += [content[start - first : start - first + size] for start, size in run]
        return contents

    @contextmanager
    def streamed(self) -> Iterator[IO[bytes]]:
        """The whole file from its beginning to its end; it cannot be sought in."""
        with self._asked({}) as response:
            yield cast(IO[bytes], _Body(response.iter_bytes()))

    def fetched(self) -> Path:
        """A copy of the whole file in the cache directory, where it stays.

        Raises:
            DataError: it cannot be had, or not be kept.
        """
        path = cache_dir() / "shards" / f"whole-{self._key()}-{self.name}"
        if path.is_file() and (not self.size or path.stat().st_size == self.size):
            return path

        def ask() -> None:
            with self._asked({}) as response, replacing(path) as temporary, temporary.open("wb") as file:
                for part in response.iter_bytes():
                    file.write(part)
                if self.size and file.tell() != self.size:
                    raise _AgainError(f"{file.tell():,} bytes came in place of {self.size:,}")

        self.tried(ask)
        return path

    def opened(self) -> io.BufferedIOBase:
        """The file as Python opens one, read by ranges."""
        return cast(io.BufferedIOBase, _Ranges(self))

    def _key(self, *parts: int) -> str:
        text = f"{self.url} {self.size} {self.version} {parts}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @contextmanager
    def _asked(self, headers: Mapping[str, str]) -> Iterator[Any]:
        """The server's response to a request, which is not read yet.

        Raises:
            DataError: the server refuses. _AgainError: it may not, another time.
        """
        with without_advice():
            from huggingface_hub.utils import get_session

        more = {"Accept-Encoding": "identity", **self.headers, **headers}
        with get_session().stream("GET", self.url, headers=more, follow_redirects=True, timeout=PATIENCE) as response:
            status = response.status_code
            if status == 429 or status >= 500:
                raise _AgainError(f"status {status}")
            if status >= 400:
                raise AbsentDataError(f"{self.label}: the server refuses it (status {status})", "check the address")
            yield response

    def tried(self, ask: Callable[[], T]) -> T:
        """The answer of a request that is made again where it fails by chance.

        Raises:
            DataError: it fails each time, or is refused.
        """
        reason: Exception | None = None
        for turn in range(TRIES):
            try:
                return ask()
            except (DataError, WriteError):
                raise
            except Exception as error:  # the client's and its transport's own
                reason = error
                if turn + 1 < TRIES:
                    time.sleep(min(8.0, 0.25 * 3**turn))
        why = first_line(reason, 120) if reason else ""
        raise AbsentDataError(f"{self.label} cannot be read ({why}); check the address and the network") from reason


def runs_of(stretches: Sequence[Stretch], apart: int = APART) -> list[list[Stretch]]:
    """Parts of a file, ascending, in runs that are read at once: with `apart` bytes between two at most."""
    runs: list[list[Stretch]] = []
    for part in stretches:
        if runs and part[0] - sum(runs[-1][-1]) <= apart:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


class _Body(io.RawIOBase):
    """What a server sends, as a file that is read once."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts, self.rest = parts, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        taken = [self.rest]
        held = len(self.rest)
        while size < 0 or held < size:
            part = next(self.parts, None)
            if part is None:
                break
            taken.append(part)
            held += len(part)
        content = b"".join(taken)
        end = len(content) if size < 0 else size
        self.rest = content[end:]
        return content[:end]


class _Ranges(io.RawIOBase):
    """A remote file that is sought and read in; each read is one request."""

    def __init__(self, file: RemoteFile) -> None:
        self.file, self.place = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self.place, self.file.size)[whence]
        self.place = max(0, base + offset)
        return self.place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.file.size - self.place)
        content = self.file.read_range(self.place, left if size < 0 else min(size, left))
        self.place += len(content)
        return content
