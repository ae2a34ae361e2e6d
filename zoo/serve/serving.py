"""A running server as an object: in this thread until a signal, or in a thread of its own until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType

from starlette.applications import Starlette

from zoo.base.text import printable, reason_of
from zoo.errors import ZooError
from zoo.serve.limits import Limits
from zoo.serve.server import make_server, url, was_whole


class Serving:
    """A model that is served; `zoo.serve` returns one. It is a context manager that stops the server at its end.

    Attributes:
        name: of the model. url: the address of the page, "http://127.0.0.1:8000/".
        whole: whether all requests under way were answered when it stopped; None until then.
    """

    def __init__(self, name: str, app: Starlette, listening: socket.socket, limits: Limits) -> None:
        self.name, self.url = name, url(listening)
        self.whole: bool | None = None
        self._listening, self._begun, self._ended = listening, Event(), Event()
        self._server = make_server(app, limits, self._begun.set)
        self._thread = Thread(target=self._work, name="zoo-serve", daemon=True)
        self._error: BaseException | None = None

    def run(self, started: Callable[[], None]) -> None:
        """Serve in this thread, until SIGINT or SIGTERM."""
        with self._listening:
            self._server.handle_signals, self._server.told = True, started
            self._server.run(sockets=[self._listening])
            self.whole = was_whole(self._server)

    def start(self) -> None:
        """Serve in a thread of its own; returns when requests are taken.

        Raises:
            ZooError: it did not start.
        """
        self._thread.start()
        while not self._begun.wait(0.05) and not self._ended.is_set():
            pass
        if not self._begun.is_set():
            reason = reason_of(self._error) if self._error else "the reason is in the log of uvicorn"
            raise ZooError(f"the server at {self.url} did not start: {reason}") from self._error

    @property
    def running(self) -> bool:
        """Whether requests are taken."""
        return self._begun.is_set() and not self._ended.is_set() and not self._server.should_exit

    def stop(self, *, at_once: bool = False) -> bool:
        """Take no more requests, answer those under way, and wait until the server's threads have ended.

        Args:
            at_once: do not answer what is under way.
        Returns:
            Whether all requests were answered; also when it had stopped before.
        """
        self._server.force_exit = self._server.force_exit or at_once
        self._server.should_exit = True
        self.wait()
        return bool(self.whole)

    def wait(self) -> None:
        """Wait until somebody stops the server."""
        if self._thread.ident is None:
            return
        # Not `join` at once: before Python 3.13, Ctrl-C in it lets the thread pass for ended. With a limit, so that
        # Ctrl-C comes through on every system.
        while not self._ended.wait(0.5):
            pass
        self._thread.join()

    def _work(self) -> None:
        try:
            with self._listening:
                self._server.run(sockets=[self._listening])
        except BaseException as error:
            self._error = error
        finally:
            self.whole = self._error is None and was_whole(self._server)
            self._ended.set()

    def __enter__(self) -> Serving:
        """The server itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def __repr__(self) -> str:
        """What is served where."""
        return printable(f"Serving({self.name}, {self.url if self.running else 'stopped'})")

    def _repr_html_(self) -> str:
        """The same with a link."""
        from html import escape

        where = f'<a href="{escape(self.url)}">{escape(self.url)}</a>' if self.running else "stopped"
        return f"<div>{escape(self.name)}: {where}</div>"
