"""The Hub: whether it answers, by one HEAD without the token."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from zoo.base.text import plural, reason_of
from zoo.cli.doctor.finding import Finding

PATIENCE: Final = 4.0
"""Seconds that it may take, names, connection and answer together."""


def look(patience: float = PATIENCE) -> Iterator[Finding]:
    """The endpoint, and whether there is a token (it is neither shown nor sent)."""
    from huggingface_hub import constants, get_token

    endpoint = constants.ENDPOINT
    yield _token(bool(get_token()))
    if constants.HF_HUB_OFFLINE:
        said = "HF_HUB_OFFLINE is set: no request is made; what was fetched before is used"
        yield Finding("hub", "offline", "note", said, "to reach the Hub: unset HF_HUB_OFFLINE")
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        said = f"HF_ENDPOINT is {endpoint!r}, which is no address"
        yield Finding("hub", "endpoint", "error", said, "set it to https://..., or unset it")
        return
    yield _answer(endpoint, patience)


def _token(there: bool) -> Finding:
    if there:
        return Finding("hub", "token", "ok", "a token is here (not shown, not tried)", data={"token": True})
    said = "no token: public packages can be used, nothing can be published"
    return Finding("hub", "token", "note", said, "to publish: hf auth login", {"token": False})


def _answer(endpoint: str, patience: float) -> Finding:
    start = time.monotonic()
    status, problem = head(endpoint, patience)
    data = {"endpoint": endpoint, "status": status, "seconds": round(time.monotonic() - start, 2)}
    if status is not None and status < 500:
        said = f"{endpoint} answers ({data['seconds']:.1f} s)"
        return Finding("hub", "endpoint", "ok", said, data=data)
    said = f"{endpoint}: {problem or f'fails (HTTP {status})'}"
    fix = "check network, proxy (HTTPS_PROXY) and HF_ENDPOINT; HF_HUB_OFFLINE=1 uses what was fetched"
    return Finding("hub", "endpoint", "warning", said, fix, data)


def head(endpoint: str, patience: float) -> tuple[int | None, str]:
    """The status of one HEAD by the client's own session (its proxies, its certificates), or why there is none.

    It runs in a thread of its own: a server that sends a byte a second keeps no promise of a time limit.
    """
    box: list[tuple[int | None, str]] = []

    def ask() -> None:
        from huggingface_hub.utils import get_session

        try:
            session: Any = get_session()
            box.append((session.head(endpoint, timeout=patience).status_code, ""))
        except Exception as error:
            box.append((None, _reason(error, patience)))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience + 0.5)
    return box[0] if box else (None, f"does not answer within {plural(patience, 'second')}")


def _reason(error: Exception, patience: float) -> str:
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"TimeoutException", "Timeout"}:
        return f"does not answer within {plural(patience, 'second')}"
    return f"cannot be reached ({reason_of(error, 200)})"
