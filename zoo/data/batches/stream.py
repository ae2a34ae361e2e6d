"""Batches of a split that does not lie on the device: read ahead, copied while the device computes.

Images are files that worker processes decode (`zoo.data.files.pool`), or an array, usually mapped from the
decoded cache, whose rows a thread gathers. A batch is a function of its row numbers and, where images
are cut at random, of (seed, epoch): how many workers there are changes nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from zoo.base.quiet_imports import ignoring
from zoo.data.augment.crop import Bounds, crop_key
from zoo.data.batches.ahead import Ahead, runs
from zoo.data.batches.resident import slices
from zoo.data.batches.windows import windows
from zoo.data.files.image_files import FileImages, forget
from zoo.data.files.pool import Pool
from zoo.data.files.worker import Cuts, Part
from zoo.data.shards.packed import ShardImages, part_ends
from zoo.data.split import Split
from zoo.data.types import Images, Labels
from zoo.errors import DataError, InputError


class _Begun(NamedTuple):
    """A batch that is being read: uint8 (B, 3, H, W) on the host, and what fills it."""

    images: Tensor
    parts: list[Future[None]]


class _Reader(Protocol):
    """Begins to read batches; `depth`: how many beside the one that is waited for."""

    depth: int

    def ahead(self, sequence: Labels, epoch: int | None) -> Ahead | None:
        """What reads the shards of a sequence of samples ahead, if there are any; `epoch`: of training."""

    def begin(self, rows: Labels, key: int | None, ahead: Ahead | None) -> _Begun:
        """Begin to read the next of these samples: row s % N each; `key` of the random crops, if there are any."""


class _FileReader:
    """Files, or parts of files, decoded by a pool."""

    def __init__(self, images: FileImages, pool: Pool, bounds: Bounds | None, pin: bool) -> None:
        self.images, self.pool, self.bounds, self.pin = images, pool, bounds, pin
        self.root = os.fsencode(os.path.join(images.files.root, ""))
        self.depth = 0

    def ahead(self, sequence: Labels, epoch: int | None) -> Ahead | None:
        del sequence, epoch  # a worker reads its files itself
        return None

    def begin(self, rows: Labels, key: int | None, ahead: Ahead | None) -> _Begun:
        # Enough parts are under way to keep every worker at work while its last answer is taken.
        self.depth = max(2, -(-2 * self.pool.workers * self.pool.part // len(rows))) if self.pool.workers else 0
        height, width = self.images.size
        host = torch.empty((len(rows), height, width, 3), dtype=torch.uint8, pin_memory=self.pin)
        pixels = host.numpy()
        parts = []
        for start in range(0, len(rows), self.pool.part):
            end = min(len(rows), start + self.pool.part)
            part = self._part(rows[start:end], key, ahead)
            parts.append(self.pool.submit(part, pixels[start:end]))
        return _Begun(host.permute(0, 3, 1, 2), parts)

    def _part(self, rows: Labels, key: int | None, ahead: Ahead | None) -> Part:
        del ahead
        files, chosen = self.images.files, self._chosen(rows)
        paths = [os.path.join(self.root, files.name(row)) for row in chosen]  # a table may name whole paths, too
        stamps = [files.stamp(row) for row in chosen]
        return Part(paths, stamps, self._cuts(rows, key))

    def _chosen(self, rows: Labels) -> list[int]:
        """The files of samples."""
        return self.images.rows[rows % len(self.images.rows)].tolist()

    def _cuts(self, rows: Labels, key: int | None) -> Cuts | None:
        return None if key is None or self.bounds is None else Cuts(key, rows.tolist(), self.bounds)


class _SpanReader(_FileReader):
    """Parts of tar files of this machine, which workers read themselves."""

    images: ShardImages

    def _part(self, rows: Labels, key: int | None, ahead: Ahead | None) -> Part:
        store, chosen = self.images.files.store, self._chosen(rows)
        names = [os.fsencode(store.where(row)) for row in chosen]
        return Part(names, [], self._cuts(rows, key), spans=[store.span(row) for row in chosen])


class _ShardReader(_FileReader):
    """Shards that are read block by block, before workers decode what they hold."""

    images: ShardImages

    def __init__(self, images: ShardImages, pool: Pool, bounds: Bounds | None, pin: bool, seed: int) -> None:
        super().__init__(images, pool, bounds, pin)
        self.seed = seed

    def ahead(self, sequence: Labels, epoch: int | None) -> Ahead:
        images = self.images
        rows = sequence % len(images)
        chosen = images.rows[rows]
        if epoch is None:
            ends = part_ends(images.files.blocks[chosen], images.files.sizes[chosen])
        else:
            ends = runs(windows(self.seed, epoch, images.blocks, images.sizes, images.shuffle).window[rows])
        return Ahead(images.files, chosen, ends)

    def _part(self, rows: Labels, key: int | None, ahead: Ahead | None) -> Part:
        assert ahead is not None
        names = [os.fsencode(self.images.files.where(row)) for row in self._chosen(rows)]
        return Part(names, [], self._cuts(rows, key), contents=ahead.take(len(rows)))


class _ArrayReader:
    """Rows of an array, gathered by a thread."""

    def __init__(self, images: Images, pool: Pool, pin: bool) -> None:
        with ignoring("The given NumPy array is not writable"):
            self.images = torch.from_numpy(images)  # nothing here writes to it
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="zoo-data") if pool.workers else None
        self.depth, self.pin = 2 if pool.workers else 0, pin

    def ahead(self, sequence: Labels, epoch: int | None) -> Ahead | None:
        del sequence, epoch  # the system reads what is mapped
        return None

    def begin(self, rows: Labels, key: int | None, ahead: Ahead | None) -> _Begun:
        del ahead
        # Evaluation's mode is that of its thread alone, and another thread writes this.
        with torch.inference_mode(False):
            host = torch.empty((len(rows), *self.images.shape[1:]), dtype=torch.uint8, pin_memory=self.pin)
        if self.thread is None:
            self._gather(torch.from_numpy(rows), host)
            return _Begun(host, [])
        return _Begun(host, [self.thread.submit(self._gather, torch.from_numpy(rows), host)])

    def _gather(self, rows: Tensor, host: Tensor) -> None:
        flat = self.images.view(len(self.images), -1)
        torch.index_select(flat, 0, rows % len(flat), out=host.view(len(rows), -1))


def _reader(images: FileImages, pool: Pool, bounds: Bounds | None, pin: bool, seed: int) -> _FileReader:
    """What reads files, or shards."""
    if not isinstance(images, ShardImages):
        return _FileReader(images, pool, bounds, pin)
    if images.files.store.is_local:
        return _SpanReader(images, pool, bounds, pin)
    return _ShardReader(images, pool, bounds, pin, seed)


class Streamed:
    """A split that is read batch by batch; see `zoo.data.batches.open.BatchSource`.

    Attributes:
        labels: int64 (N,), on the device. cropped: whether `steps` gives images that are cut already.
    """

    def __init__(
        self,
        split: Split,
        device: torch.device | str = "cpu",
        *,
        channels_last: bool = False,
        bounds: Bounds | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare a split; nothing is read yet.

        Args:
            split: with its `pool`. bounds, seed: of the random crops that `steps` cuts from files.
        Raises:
            InputError: the split has no pool.
        """
        if split.pool is None:
            raise InputError("only a split that was loaded for streaming can be streamed")
        self.device, self.seed = torch.device(device), seed
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.labels = torch.tensor(split.labels, device=self.device)
        pin = self.device.type == "cuda"
        self.side = torch.cuda.Stream(self.device) if pin else None
        self.reader: _Reader
        self.folder: Path | None = None
        if isinstance(split.images, FileImages):
            self.reader = _reader(split.images, split.pool, bounds, pin, seed)
            self.cropped, self.folder = bounds is not None, split.images.files.root
        else:
            self.reader = _ArrayReader(split.images, split.pool, pin)
            self.cropped = False

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def steps(self, batches: Tensor, start: int = 0, *, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Training batches (rows, images, labels), read ahead.

        Args:
            batches: int64 (steps, B), sample numbers: row s % N each (see `zoo.data.batches.sampler`). start: the
                first that is given.
            epoch: decides, with the seed and the sample numbers, what random crops cut out.
        Raises:
            DataError: a file that cannot be used, or a worker that died.
        """
        rows = batches[start:].to(self.device)
        key = crop_key(self.seed, epoch) if self.cropped else None
        wanted = batches[start:].cpu().numpy()
        yield from self._read(rows, wanted, key, self.reader.ahead(wanted.ravel(), epoch))

    def batches(
        self, batch_size: int, *, rows: Tensor | None = None, drop_last: bool = False, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches (rows, images, labels) in the order of `rows`, read ahead and never cut at random.

        Args, Raises: as `Resident.batches`; DataError as `steps`.
        """
        chosen = torch.arange(len(self)) if rows is None else rows.cpu()
        parts = list(slices(len(chosen), batch_size, drop_last=drop_last, start=start))
        sequence = chosen[parts[0][0] : parts[-1][1]] if parts else chosen[:0]
        yield from self._read(
            (chosen[begin:end].to(self.device) for begin, end in parts),
            (chosen[begin:end].numpy() for begin, end in parts),
            None,
            self.reader.ahead(sequence.numpy(), None),
        )

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The batch of these rows, read now and never cut at random."""
        wanted = indices.cpu().numpy()
        _, images, labels = next(self._read([indices], [wanted], None, self.reader.ahead(wanted, None)))
        return images, labels

    def _read(
        self, rows: Iterable[Tensor], wanted: Iterable[Labels], key: int | None, ahead: Ahead | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for numbers, host in zip(rows, self._ahead(wanted, key, ahead), strict=True):
            yield numbers, self._delivered(host), self.labels.index_select(0, numbers % len(self))

    def _ahead(self, wanted: Iterable[Labels], key: int | None, ahead: Ahead | None) -> Iterator[Tensor]:
        """Batches on the host, in order, `depth` of them under way; what is not needed is not begun."""
        pending: deque[_Begun] = deque()
        try:
            for rows in wanted:
                pending.append(self.reader.begin(rows, key, ahead))
                if len(pending) > self.reader.depth:
                    yield self._filled(pending.popleft())
            while pending:
                yield self._filled(pending.popleft())
        finally:
            for part in (part for begun in pending for part in begun.parts):
                part.cancel()
            if ahead is not None:
                ahead.close()

    def _filled(self, begun: _Begun) -> Tensor:
        try:
            for part in begun.parts:
                part.result()
        except DataError:
            if self.folder is not None:
                forget(self.folder)  # it may be what is wrong: the next start lists the folder anew
            raise
        return begun.images

    def _delivered(self, host: Tensor) -> Tensor:
        """The batch on the device, in the wanted layout."""
        if self.side is None:
            return host.to(self.device).contiguous(memory_format=self.format)
        # The copy runs beside the step before it, which the device is still busy with.
        with torch.cuda.stream(self.side):
            images = host.to(self.device, non_blocking=True)
        now = torch.cuda.current_stream(self.device)
        now.wait_stream(self.side)
        images.record_stream(now)
        return images.contiguous(memory_format=self.format)
