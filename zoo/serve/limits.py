"""What a client may do, and how it is told that it did more."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_CLIENTS = 10_000
"""Clients whose rate is remembered; the one that was quiet longest is forgotten first."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a server.

    Attributes:
        body: bytes of a request. pixels: of an image, before its pixels are read.
        rate: requests a second for each client over time, twice that at once; 0: any.
        queue: images that wait for the model or are in it. batch: images that it takes at once.
        connections: open ones, in all. buffered: bytes of bodies that are held at one time, in all.
        seconds: for a request's head to come, and then for its body. idle: between two requests.
        grace: for requests under way when the server is asked to stop.
    """

    body: int = 10 << 20
    pixels: int = 32_000_000
    rate: float = 100.0
    queue: int = 64
    batch: int = 16
    connections: int = 256
    buffered: int = 128 << 20
    head: int = 16 << 10
    seconds: float = 10.0
    idle: float = 10.0
    grace: float = 10.0


class Refused(Exception):
    """A request that is answered with an error: its status, one line for people, and more headers."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Rates:
    """Requests of each client: a bucket that fills at `rate` a second and holds twice that."""

    rate: float
    clock: Callable[[], float] = time.monotonic
    buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, client: str) -> float:
        """Take one request out of a client's bucket; seconds to wait where it is empty, else 0."""
        if not self.rate:
            return 0.0
        now, full = self.clock(), max(1.0, 2 * self.rate)
        filled, then = self.buckets.pop(client, (full, now))
        filled = min(full, filled + (now - then) * self.rate)
        enough = filled >= 1
        self.buckets[client] = (filled - enough, now)
        while len(self.buckets) > MAX_CLIENTS:
            self.buckets.popitem(last=False)
        return 0.0 if enough else (1 - filled) / self.rate
