"""The CDN, and Xet's storage service (CAS): xorbs, shards, reconstructions.

What hf-xet asks for was found by running it: grants for xorbs (404 makes it post the xorb itself), global
deduplication (404: not known), then one shard that says which chunks of which xorbs make a file.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hub_server.store import Store

ENTRY = 48
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30
END = b"\xff" * 32


class Term(NamedTuple):
    """Some chunks of one xorb, in a file."""

    xorb: str
    length: int
    start: int
    end: int


@dataclass
class Cas:
    """Xorbs by hash, and files as lists of terms."""

    xorbs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, list[Term]] = field(default_factory=dict)


def hex_of(raw: bytes) -> str:
    """Xet's spelling of a hash: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))


def chunk_ends(xorb: bytes) -> list[tuple[int, int]]:
    """For each chunk of a xorb: where it begins and ends, its header included."""
    chunks, at = [], 0
    while at + 8 <= len(xorb) and not xorb.startswith(b"XETBLOB", at):
        length = int.from_bytes(xorb[at + 1 : at + 4], "little")
        chunks.append((at, at + 8 + length))
        at += 8 + length
    return chunks


def files_of(shard: bytes) -> Iterator[tuple[str, str | None, list[Term]]]:
    """The files that a shard describes: (Xet hash, sha256 or None, terms)."""
    at = 48
    while shard[at : at + 32] != END:
        name = hex_of(shard[at : at + 32])
        flags, count = struct.unpack_from("<II", shard, at + 32)
        at += ENTRY
        terms = []
        for _ in range(count):
            length, start, end = struct.unpack_from("<III", shard, at + 36)
            terms.append(Term(hex_of(shard[at : at + 32]), length, start, end))
            at += ENTRY
        at += ENTRY * count if flags & HAS_VERIFICATION else 0
        sha256 = None
        if flags & HAS_METADATA:
            sha256 = hex_of(shard[at : at + 32])
            at += ENTRY
        yield name, sha256, terms


def make_cdn(store: Store, cas: Cas, cdn: str) -> Starlette:
    """The routes of the second port."""

    async def put(request: Request) -> Response:
        data = await request.body()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != request.path_params["oid"]:
            return JSONResponse({"error": "content does not match its name"}, 400)
        store.objects[sha256] = data
        return Response()

    async def get(request: Request) -> Response:
        data = store.objects.get(request.path_params["oid"])
        return Response(status_code=404) if data is None else ranged(request, data)

    async def put_xorb(request: Request) -> Response:
        name = request.path_params["hash"]
        fresh = name not in cas.xorbs
        cas.xorbs[name] = await request.body()
        return JSONResponse({"was_inserted": fresh})

    async def get_xorb(request: Request) -> Response:
        return ranged(request, cas.xorbs[request.path_params["hash"]])

    async def put_shard(request: Request) -> Response:
        for name, sha256, terms in files_of(await request.body()):
            cas.files[name] = terms
            if sha256:
                store.xet[sha256] = name
        return JSONResponse({"result": 1})

    async def reconstruction(request: Request) -> Response:
        terms = cas.files.get(request.path_params["hash"])
        if terms is None:
            return Response(status_code=404)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        total = sum(t.length for t in terms)
        if asked and int(asked[1]) >= total:
            return Response(status_code=416)
        return JSONResponse(_reconstruction(cas, cdn, terms))

    async def telemetry(request: Request) -> Response:
        return JSONResponse({})

    routes = [
        Route("/upload/{oid}", put, methods=["PUT"]),
        Route("/cdn/{oid}", get),
        Route("/v1/xorbs/{prefix}/{hash}", put_xorb, methods=["POST"]),
        Route("/v1/shards", put_shard, methods=["POST"]),
        Route("/v1/reconstructions/{hash}", reconstruction),
        Route("/v1/telemetry", telemetry, methods=["POST"]),
        Route("/xorb-data/{hash}", get_xorb),
    ]
    return Starlette(routes=routes)


def _reconstruction(cas: Cas, cdn: str, terms: list[Term]) -> dict[str, Any]:
    fetch: dict[str, list[dict[str, Any]]] = {}
    for term in terms:
        ends = chunk_ends(cas.xorbs[term.xorb])
        first, last = ends[term.start][0], ends[term.end - 1][1]
        fetch.setdefault(term.xorb, []).append(
            {
                "range": {"start": term.start, "end": term.end},
                "url": f"{cdn}/xorb-data/{term.xorb}",
                "url_range": {"start": first, "end": last - 1},
            }
        )
    rows = [{"hash": t.xorb, "unpacked_length": t.length, "range": {"start": t.start, "end": t.end}} for t in terms]
    return {"offset_into_first_range": 0, "terms": rows, "fetch_info": fetch}


def ranged(request: Request, data: bytes) -> Response:
    """200, or 206 and 416 for a range."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not asked:
        return Response(data, media_type="application/octet-stream", headers={"Accept-Ranges": "bytes"})
    start, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
    if start >= len(data):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
    return Response(data[start : end + 1], 206, headers, "application/octet-stream")
