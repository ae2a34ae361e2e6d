"""Any number of images through a model in bounded memory: threads decode while it computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from torch import Tensor

from zoo.data.types import Images
from zoo.errors import DataError
from zoo.evaluate.classifier import Classifier, Ranking
from zoo.predict.inputs import Given


@dataclass(frozen=True)
class Predicted:
    """One image's outcome.

    Attributes:
        pixels: uint8 (3, H, W), what the model saw. probabilities: float32 (K,). ranking: its classes in order.
    """

    name: str
    pixels: Images = field(repr=False)
    probabilities: Tensor = field(repr=False)
    ranking: Ranking = field(repr=False)


Decoded = tuple[str, Images] | DataError


def default_threads() -> int:
    """Threads that decode: one for each CPU, four at most."""
    return min(4, os.cpu_count() or 1)


def predict(
    classifier: Classifier, images: Iterable[Given | DataError], *, batch_size: int = 64, threads: int = 0
) -> Generator[Predicted | DataError, None, None]:
    """Classify images, in their order; what cannot be read comes out as the error in its place.

    At most two batches of images at the model's size are held, and one image at its own size a thread.

    Args:
        threads: decoding threads; 0: `default_threads`.
    """
    ready = decoded(classifier, images, 2 * batch_size, threads or default_threads())
    while batch := list(islice(ready, batch_size)):
        good = [one for one in batch if not isinstance(one, DataError)]
        rows: Iterator[tuple[Tensor, Ranking]] = iter(())
        if good:
            found = classifier.probabilities(np.stack([pixels for _, pixels in good]))
            rows = zip(found, classifier.rankings(found), strict=True)
        for one in batch:
            yield one if isinstance(one, DataError) else Predicted(*one, *next(rows))


def decoded(
    classifier: Classifier, images: Iterable[Given | DataError], ahead: int, threads: int
) -> Generator[Decoded, None, None]:
    """Images decoded in their order, up to `ahead` of them before they are asked for; an error in an image's place."""

    def decode(given: Given | DataError) -> Decoded:
        if isinstance(given, DataError):
            return given
        try:
            return given.name, classifier.decode(given.data, given.name)
        except DataError as error:
            return error

    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: deque[Future[Decoded]] = deque()
    try:
        for given in images:
            waiting.append(pool.submit(decode, given))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
