"""The test Hub as threads of the test process: it ends with it, whatever happens."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from types import TracebackType
from typing import Any

import uvicorn

from hub_server.api import make_api
from hub_server.cas import Cas, make_cdn
from hub_server.faults import Fault, Faulty, Recorded
from hub_server.store import Store


class HubServer:
    """The Hub on one port, its CDN (and Xet's storage service) on another."""

    def __init__(self, *, xet: bool = False) -> None:
        self.store, self.cas = Store(), Cas()
        self.sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [s.getsockname()[1] for s in self.sockets]
        # Two names, as on the Hub: clients follow redirects within a host differently.
        self.endpoint, self.cdn = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"
        api = make_api(self.store, self.cas, self.endpoint, self.cdn, xet=xet)
        self.apps = [Faulty(app, self._move_main) for app in (api, make_cdn(self.store, self.cas, self.cdn))]
        for app in self.apps:  # one list of faults and one log for both
            app.faults, app.log = self.apps[0].faults, self.apps[0].log
        self.servers = [
            uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
            for app in self.apps
        ]
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def faults(self) -> list[Fault]:
        """The faults that are on."""
        return self.apps[0].faults

    @property
    def log(self) -> list[Recorded]:
        """Every request so far."""
        return self.apps[0].log

    def env(self, home: Any, token: str | None = None) -> dict[str, str]:
        """The variables that lead the genuine client here; all that the product ever learns."""
        variables = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost"}
        return variables | ({"HF_TOKEN": token} if token else {})

    def _run(self) -> None:
        async def serve() -> None:
            await asyncio.gather(*(s.serve(sockets=[k]) for s, k in zip(self.servers, self.sockets, strict=True)))

        asyncio.run(serve())

    def _move_main(self, path: str) -> None:
        """Somebody commits: to the repository that the path names, or to all where it names none."""
        owner, _, rest = path.removeprefix("/api/models").strip("/").partition("/")
        named = f"{owner}/{rest.partition('/')[0].removesuffix('.git')}"
        with self.store.lock:
            for repo in (named,) if named in self.store.repos else tuple(self.store.repos):
                self.store.put(repo, {"note.txt": str(time.monotonic()).encode()}, "somebody else's commit")

    def __enter__(self) -> HubServer:
        """Start both ports."""
        self.thread.start()
        deadline = time.monotonic() + 20
        while not all(s.started for s in self.servers):
            if time.monotonic() > deadline:
                raise TimeoutError("the test Hub did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Stop both ports."""
        self.faults.clear()
        for server in self.servers:
            server.should_exit = True
        self.thread.join(10)
