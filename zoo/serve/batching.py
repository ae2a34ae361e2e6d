"""Requests that come together go through the model together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

from zoo.base.text import plural
from zoo.data.types import Images
from zoo.serve.limits import Refused

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[R]):
    """One thread with the model, and before it a queue: while a batch is computed, the next one gathers.

    An image is never kept waiting for company: a lone request costs what it costs alone, and the busier
    the server, the larger its batches.

    Args:
        compute: uint8 (B, 3, H, W) to one answer for each image. most: images of one batch.
        queue: images that may wait or be computed. told: gets each batch's size.
    """

    def __init__(
        self, compute: Callable[[Images], Sequence[R]], *, most: int, queue: int, told: Callable[[int], None]
    ) -> None:
        self.compute, self.most, self.limit, self.told = compute, most, queue, told
        self.under_way = 0
        self.waiting: asyncio.Queue[tuple[Images, asyncio.Future[R]]] = asyncio.Queue()
        self.model = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")

    def admit(self) -> None:
        """Take a place in the queue; `leave` gives it back.

        Raises:
            Refused: 503, there is none.
        """
        if self.under_way >= self.limit:
            raise Refused(
                503, f"busy: {plural(self.limit, 'image is', 'images are')} waiting already; try again", Retry_After="1"
            )
        self.under_way += 1

    def leave(self) -> None:
        """Give a place back."""
        self.under_way -= 1

    async def decoded(self, decode: Callable[[], T]) -> T:
        """Run the decoding of one image in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, decode)

    async def computed(self, pixels: Images) -> R:
        """The answer for uint8 (3, H, W)."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((pixels, future))
        return await future

    async def work(self) -> None:
        """Compute batch after batch, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self.waiting.get()]
            while len(batch) < self.most and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            batch = [one for one in batch if not one[1].done()]  # whose client gave up
            if not batch:
                continue
            self.told(len(batch))
            stacked = np.stack([pixels for pixels, _ in batch])
            try:
                rows = await loop.run_in_executor(self.model, self.compute, stacked)
            except Exception as error:  # of the model: the requests of this batch get it, the server goes on
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    def close(self) -> None:
        """End the threads, at once where nothing is under way; what was given up is not waited for."""
        for pool in (self.model, self.decoders):
            pool.shutdown(wait=self.under_way == 0, cancel_futures=True)
