"""uvicorn with limits on what a connection may do before a request is there, and an orderly stop."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from zoo.base.text import plural
from zoo.errors import InputError
from zoo.serve.limits import Limits


class LimitedProtocol(H11Protocol):
    """One connection: a request's head must come in time, and there are only so many connections."""

    def __init__(self, *args: Any, limits: Limits, **more: Any) -> None:
        super().__init__(*args, **more)
        self.limits = limits
        self.waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._say(503, "busy: too many connections; try again", "retry-after: 1\r\n")
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Once a whole head is there, the application takes the time; until then, this does."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._in_request() or self.transport.is_closing():
            self._stop_waiting()
        elif self.waiting is None:
            self._wait()

    def on_response_complete(self) -> None:
        """The next request's head may come at leisure; its first byte starts the clock."""
        super().on_response_complete()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """No clock for a connection that is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets one line of JSON as well."""
        self._say(400, "this is not a valid HTTP request, or its head is too large")

    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self.waiting = self.loop.call_later(self.limits.seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing() and not self._in_request():
            self._say(408, f"the request's head did not come within {plural(self.limits.seconds, 'second')}")

    def _say(self, status: int, message: str, header: str = "") -> None:
        """Answer without the application, and close."""
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            body = json.dumps({"error": message}) + "\n"
            self.transport.write(
                f"HTTP/1.1 {status} Error\r\ncontent-type: application/json\r\n{header}"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
            )
        self.transport.close()


class Server(uvicorn.Server):
    """Stops with the requests under way answered; on signals too where it handles them, and at once on a second.

    Attributes:
        told: called when requests are taken. handle_signals: only in the main thread.
    """

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self.told, self.handle_signals = started, False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say when requests are taken."""
        await super().startup(sockets)
        if self.started:
            self.told()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As uvicorn, without sending itself the signal again at the end: a stop that was asked for is no failure."""
        numbers = (signal.SIGINT, signal.SIGTERM) if self.handle_signals else ()
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: any free one.

    Raises:
        InputError: no such address here, the port is taken or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=256)
        # What it accepts inherits this; else a small answer's second packet waits 40 ms for the first one's receipt.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        advice = "; give another --port, or --port 0 for any free one" if error.errno == errno.EADDRINUSE else ""
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror or error}{advice}") from None
    except (UnicodeError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}") from None


def url(listening: socket.socket) -> str:
    """The address of the page."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def is_local(listening: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def make_server(app: Starlette, limits: Limits, started: Callable[[], None]) -> Server:
    """The server of an application, which does not run yet."""
    config = uvicorn.Config(
        app,
        http=partial(LimitedProtocol, limits=limits),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, round(limits.idle)),
        timeout_graceful_shutdown=max(1, round(limits.grace)),
        h11_max_incomplete_event_size=limits.head,
    )
    return Server(config, started)


def was_whole(server: Server) -> bool:
    """Whether a server that has stopped answered all requests that were under way."""
    return not (server.force_exit or server.server_state.tasks)
