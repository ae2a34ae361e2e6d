"""Clients that ask `zoo serve` for one image again and again; prints how many requests were answered.

    python benchmarks/http_clients.py PORT IMAGE CLIENTS SECONDS

For `inference.py`, in a process of its own that imports nothing heavy.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path


async def _client(port: int, request: bytes, end: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = 0
    while time.perf_counter() < end:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(size)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        answered += 1
    writer.close()
    return answered


async def _clients(port: int, image: bytes, count: int, seconds: float) -> int:
    head = (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    end = time.perf_counter() + seconds
    return sum(await asyncio.gather(*(_client(port, head.encode() + image, end) for _ in range(count))))


def load(words: list[str]) -> None:
    """The clients, in a process of their own; prints how many requests were answered."""
    port, image, count, seconds = words
    print(asyncio.run(_clients(int(port), Path(image).read_bytes(), int(count), float(seconds))))


if __name__ == "__main__":
    load(sys.argv[1:])
