"""The ASGI application: four paths, JSON answers of one line, errors too."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from zoo.base.plain_json import json_text
from zoo.base.text import one_line, plural
from zoo.data.types import Images
from zoo.evaluate.classifier import Classifier, Ranking
from zoo.serve.batching import Batcher
from zoo.serve.body import Buffers, Held, decode, image_bytes, read_body
from zoo.serve.limits import Limits, Rates, Refused
from zoo.serve.metrics import CONTENT_TYPE, Metrics
from zoo.serve.page import Page, make_page

PATHS = ("/", "/predict", "/healthz", "/metrics")
HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
)
STRICT = "default-src 'none'; frame-ancestors 'none'"


def _facts(classifier: Classifier) -> dict[str, Any]:
    """What the model is, as plain data."""
    return {
        "model": classifier.name,
        "dataset": classifier.dataset.partition("?")[0].rpartition("/")[2],
        "height": classifier.sizes.height,
        "width": classifier.sizes.width,
        "classes": classifier.sizes.num_classes,
    }


class Service:
    """What the paths share: the model, its queue, the counts, the limits.

    Args:
        top: classes of an answer that asks for no number. local: served on this machine only, so that
            a request under another name is some web page's attempt to pass for this one.
        hosts: names under which a proxy on this machine passes requests on.
    """

    def __init__(
        self, classifier: Classifier, limits: Limits, *, top: int = 5, local: bool = True, hosts: Collection[str] = ()
    ) -> None:
        self.classifier, self.limits, self.top, self.local, self.hosts = classifier, limits, top, local, hosts
        self.facts = _facts(classifier)
        self.rates, self.buffers = Rates(limits.rate), Buffers(limits.buffered)
        self.batcher = Batcher(self._computed, most=limits.batch, queue=limits.queue, told=self._batch)
        self.metrics = Metrics(self.facts["model"], lambda: self.batcher.under_way)
        self.page: Page = make_page(self.facts, limits)

    def _computed(self, pixels: Images) -> list[tuple[Tensor, Ranking]]:
        """The probabilities of each image of a batch, and its classes in order."""
        rows = self.classifier.probabilities(pixels)
        return list(zip(rows, self.classifier.rankings(rows), strict=True))

    def _batch(self, size: int) -> None:
        self.metrics.batches.observe(size)

    async def predict(self, request: Request) -> Response:
        """POST /predict: the classes of one image."""
        begun = time.perf_counter()
        self._check_origin(request)
        if wait := self.rates.take(request.client.host if request.client else ""):
            raise Refused(
                429,
                f"more than {plural(self.limits.rate, 'request')} a second; wait {wait:.2f} seconds",
                Retry_After=str(max(1, round(wait + 0.5))),
                Connection="close",
            )
        top = self._top(request)
        with self.buffers.account() as held:
            answer = await self._answer(request, held, top)
        self.metrics.seconds.observe(time.perf_counter() - begun)
        return _json(200, answer)

    async def _answer(self, request: Request, held: Held, top: int) -> dict[str, Any]:
        body = await read_body(request, self.limits, held)
        kind = request.headers.get("content-type", "")
        self.batcher.admit()
        try:
            name, pixels, size = await self.batcher.decoded(lambda: self._decoded(kind, body))
            row, ranking = await self.batcher.computed(pixels)
        finally:
            self.batcher.leave()
        classes = [{"name": c, "probability": p} for c, p in self.classifier.scores(ranking, top)]
        image = {"name": name, "width": size[0], "height": size[1]}
        answer = {"model": self.facts["model"], "image": image}
        if self.classifier.thresholds:
            answer["labels"] = [{"name": c, "probability": p} for c, p in self.classifier.labels(row)]
        return {**answer, "classes": classes}

    def _decoded(self, kind: str, body: bytes) -> tuple[str | None, Any, tuple[int, int]]:
        name, data = image_bytes(kind, body)
        return (name, *decode(self.classifier, data, self.limits))

    def _check_origin(self, request: Request) -> None:
        if request.headers.get("sec-fetch-site", "") in ("cross-site", "same-site"):
            raise Refused(403, "requests from pages of other sites are refused", Connection="close")

    def _top(self, request: Request) -> int:
        told, most = request.query_params.get("top", str(self.top)), self.classifier.sizes.num_classes
        if not (told.isascii() and told.isdecimal() and 0 < len(told) < 8 and int(told) > 0):
            raise Refused(400, f"top must be a number from 1 to {most}", Connection="close")
        return min(int(told), most)

    async def show(self, request: Request) -> Response:
        """GET /: the page."""
        return HTMLResponse(self.page.html, headers={"content-security-policy": self.page.policy})

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: that it serves, and what."""
        return _json(200, {"status": "ok", **self.facts})

    async def count(self, request: Request) -> Response:
        """GET /metrics: for Prometheus."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def refused(self, request: Request, error: Exception) -> Response:
        """An error of the client's, in one line."""
        assert isinstance(error, Refused)
        return _json(error.status, {"error": error.message}, error.headers)

    async def unknown(self, request: Request, error: Exception) -> Response:
        """No such path or method."""
        assert isinstance(error, HTTPException)
        known = "known are GET /, POST /predict, GET /healthz and GET /metrics"
        what = "no such path" if error.status_code == 404 else error.detail.lower()
        headers = {**(error.headers or {}), "Connection": "close"}
        return _json(error.status_code, {"error": f"{what}; {known}"}, headers)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """The model's thread works while the server runs."""
        working = asyncio.create_task(self.batcher.work())
        yield
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        self.batcher.close()


class Guard:
    """Around every request: its name for the server, headers of every answer, a count, and no traceback."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = [0]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS:
                    headers[name] = value
                headers.setdefault("content-security-policy", STRICT)
            await send(message)

        try:
            scope, host = with_plain_path(scope)
            if (size := head_size(scope)) > self.service.limits.head:
                problem = f"the request's head has {size:,} bytes; at most {self.service.limits.head:,} are allowed"
                await _json(431, {"error": problem}, {"Connection": "close"})(scope, receive, answer)
            elif self.service.local and not is_known(host, self.service.hosts):
                problem = "this server answers to localhost and to its address only; see --host and --allow-host"
                await _json(421, {"error": problem}, {"Connection": "close"})(scope, receive, answer)
            else:
                await self.app(scope, receive, answer)
        except Exception as error:
            # Where nobody has set up logging, such a line is printed on stderr as it is.
            logging.getLogger("zoo").error("error: %s: %s", type(error).__name__, one_line(error, 300))
            if status[0]:
                raise
            broken = _json(500, {"error": "the model failed on this image"}, {"Connection": "close"})
            await broken(scope, receive, answer)
        finally:
            self._count(scope, status[0])

    def _count(self, scope: Scope, status: int) -> None:
        path = scope["path"] if scope["path"] in PATHS else "other"  # no labels by strangers
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
        self.service.metrics.requests.labels(path, method, str(status)).inc()


def make_app(service: Service) -> Starlette:
    """The application of a service."""
    routes = [
        Route("/", service.show),
        Route("/predict", service.predict, methods=["POST"]),
        Route("/healthz", service.healthz),
        Route("/metrics", service.count),
    ]
    app = Starlette(
        routes=routes,
        lifespan=service.lifespan,
        exception_handlers={Refused: service.refused, HTTPException: service.unknown},
        middleware=[Middleware(Guard, service=service)],
    )
    app.router.redirect_slashes = False
    return app


def with_plain_path(scope: Scope) -> tuple[Scope, str | None]:
    """The request with a path alone, and the name that it was sent to.

    A client that takes this server for a proxy sends a whole address ("GET http://host/path"); HTTP wants that to be
    understood, and the name in it to be taken in place of the Host header.
    """
    scheme, mark, rest = scope["path"].partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        return scope, Request(scope).headers.get("host")
    host, _, path = rest.partition("/")
    return {**scope, "path": f"/{path}"}, host


def head_size(scope: Scope) -> int:
    """Bytes of a request's first line and headers; the parser limits only what comes in several pieces."""
    line = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return line + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def is_known(host: str | None, hosts: Collection[str] = ()) -> bool:
    """Whether a Host header names this machine as itself, or by one of the names that were allowed.

    Without the header (HTTP/1.0, such as a health check of a proxy) no web page asks: browsers always send it.
    """
    if host is None:
        return True
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    plain = name.lower().rstrip(".")
    if plain == "localhost" or plain in {allowed.lower().rstrip(".") for allowed in hosts}:
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _json(status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """One line of JSON."""
    return Response(json_text(value) + "\n", status, headers, "application/json")
