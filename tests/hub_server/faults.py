"""Faults that can be switched on for every request, and the names of the requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KINDS = (
    ("create", "POST", r"/api/repos/create"),
    ("delete", "DELETE", r"/api/repos/delete"),
    ("validate-yaml", "POST", r"/api/validate-yaml"),
    ("whoami", "GET", r"/api/whoami-v2"),
    ("search", "GET", r"/api/models"),
    ("collections", "(GET|POST)", r"/api/collections.*"),
    ("preupload", "POST", r"/api/(?:models|spaces)/[^/]+/[^/]+/preupload/.+"),
    ("lfs-batch", "POST", r"(?:/spaces)?/[^/]+/[^/]+\.git/info/lfs/objects/batch"),
    ("lfs-put", "PUT", r"/upload/.+"),
    ("lfs-verify", "POST", r"/lfs-verify/.+"),
    ("commit", "POST", r"/api/(?:models|spaces)/[^/]+/[^/]+/commit/.+"),
    ("branch", "POST", r"/api/(?:models|spaces)/[^/]+/[^/]+/branch/.+"),
    ("tag", "POST", r"/api/(?:models|spaces)/[^/]+/[^/]+/tag/.+"),
    ("refs", "GET", r"/api/(?:models|spaces)/[^/]+/[^/]+/refs"),
    ("commits", "GET", r"/api/(?:models|spaces)/[^/]+/[^/]+/commits/.+"),
    ("tree", "GET", r"/api/(?:models|spaces)/[^/]+/[^/]+/tree/.+"),
    ("paths-info", "POST", r"/api/(?:models|spaces)/[^/]+/[^/]+/paths-info/.+"),
    ("xet-write-token", "GET", r"/api/(?:models|spaces)/[^/]+/[^/]+/xet-write-token/.+"),
    ("xet-read-token", "GET", r"/api/(?:models|spaces)/[^/]+/[^/]+/xet-read-token/.+"),
    ("info", "GET", r"/api/(?:models|spaces)/[^/]+/[^/]+(/revision/.+)?"),
    ("resolve-head", "HEAD", r"(?:/spaces)?/[^/]+/[^/]+/resolve/.+"),
    ("resolve-get", "GET", r"(?:/spaces)?/[^/]+/[^/]+/resolve/.+"),
    ("cdn-get", "GET", r"/cdn/.+"),
    ("xet-dedup", "GET", r"/v1/chunks/.+"),
    ("xorb-put", "(POST|PUT)", r"/v[12]/xorbs/.+"),
    ("xorb-get", "GET", r"/xorb-data/.+"),
    ("xorb-grant", "POST", r"/v1/xorb-grants/.+"),
    ("xet-telemetry", "POST", r"/v1/telemetry"),
    ("harnesses", "GET", r"/api/agent-harnesses"),
    ("shard-put", "POST", r"/v[12]/shards?"),
    ("reconstruction", "GET", r"/v[12]/reconstructions.*"),
)


def kind_of(method: str, path: str) -> str:
    """The name of a request; "other" where it has none."""
    for name, verb, pattern in KINDS:
        if re.fullmatch(verb, method) and re.fullmatch(pattern, path):
            return name
    return "other"


@dataclass
class Fault:
    """Something that goes wrong at requests of one kind.

    Attributes:
        kind: a name of `KINDS`, or "*". action: a status ("500", "429", "401:Invalid token"...), "drop"
            (the connection ends before an answer), "stall" (no answer), "drip" (a byte a second),
            "flip" (one wrong bit, right size), "truncate", "lost" (done, and the answer is lost),
            "moved" (somebody commits to main just before).
        times: how many requests meet it; None: all. skip: how many pass first. path: a regex it must match.
        at: where in the answer "flip" turns a bit, as a share of its length, or right after this text.
        bit: which one, 0 to 7.
    """

    kind: str
    action: str
    times: int | None = None
    skip: int = 0
    path: str = ".*"
    retry_after: str | None = None
    at: float | bytes = 0.5
    bit: int = 0
    met: int = 0

    def take(self, kind: str, path: str) -> bool:
        """Whether this request meets the fault; counts it."""
        if self.kind not in ("*", kind) or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.met >= self.times:
            return False
        self.met += 1
        return True


@dataclass
class Recorded:
    """One request as it came."""

    kind: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Faulty:
    """ASGI middleware: records each request, and makes the fault that it meets happen."""

    app: Any
    moved: Callable[[str], None]
    faults: list[Fault] = field(default_factory=list)
    log: list[Recorded] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        kind = kind_of(method, path)
        fault = next((f for f in self.faults if f.take(kind, path)), None)
        body = await _body(receive)
        headers = {k.decode(): v.decode("latin-1") for k, v in scope["headers"]}
        self.log.append(Recorded(kind, method, path, headers, body))
        if fault is None:
            await self.app(scope, _replay(body), send)
        else:
            await self._fail(fault, scope, receive, send, body)

    async def _fail(self, fault: Fault, scope: Any, receive: Any, send: Any, body: bytes) -> None:
        transport = receive.__self__.transport
        action, _, message = fault.action.partition(":")
        if action == "drop":
            transport.abort()
        elif action == "stall":
            while fault in self.faults and not transport.is_closing():
                await asyncio.sleep(0.05)
            transport.abort()
        elif action.isdigit():
            await _refuse(int(action), message, fault.retry_after, send)
        elif action == "moved":
            self.moved(scope["path"])
            await self.app(scope, _replay(body), send)
        else:
            messages: list[dict[str, Any]] = []

            async def keep(message: dict[str, Any]) -> None:
                messages.append(message)

            await self.app(scope, _replay(body), keep)
            await _spoil(fault, messages, send, transport)


async def _spoil(fault: Fault, messages: list[dict[str, Any]], send: Any, transport: Any) -> None:
    action = fault.action
    data = b"".join(m.get("body", b"") for m in messages[1:])
    if action == "lost":
        transport.abort()
        return
    if action == "flip" and data:
        at = fault.at
        place = data.index(at) + len(at) if isinstance(at, bytes) else int(len(data) * at)
        data = data[:place] + bytes([data[place] ^ 1 << fault.bit]) + data[place + 1 :]
    await send(messages[0])
    if action == "truncate":
        await send({"type": "http.response.body", "body": data[: len(data) // 2], "more_body": True})
        await asyncio.sleep(0.02)
        transport.close()
    elif action == "drip":
        for n in range(len(data)):
            if transport.is_closing():
                return
            await send({"type": "http.response.body", "body": data[n : n + 1], "more_body": True})
            await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.body", "body": data})


async def _refuse(status: int, message: str, retry_after: str | None, send: Any) -> None:
    codes = {404: b"RepoNotFound", 403: b"", 401: b""}
    code = message.encode() if message in ("GatedRepo", "RevisionNotFound", "EntryNotFound", "RepoNotFound") else b""
    answer = b'{"error": "no"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    if code or codes.get(status):
        headers.append((b"x-error-code", code or codes[status]))
    if message and not code:
        headers.append((b"x-error-message", message.encode()))
    if retry_after is not None:
        headers.append((b"retry-after", retry_after.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes) -> Any:
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.sleep(3600)
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
