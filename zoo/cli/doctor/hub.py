"""Check of the Hub: whether it answers one HEAD request without the token."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from zoo.base.text import plural, reason_of
from zoo.cli.doctor.finding import Finding

PATIENCE: Final = 4.0
"""Time limit in seconds for name lookup, connection and answer together."""


def look(patience: float = PATIENCE) -> Iterator[Finding]:
    """Check the endpoint, and whether there is a token (it is neither shown nor sent)."""
    from huggingface_hub import constants, get_token

    endpoint = constants.ENDPOINT
    yield _token(bool(get_token()))
    if constants.HF_HUB_OFFLINE:
        text = "HF_HUB_OFFLINE is set: no request is made; only downloaded files are used"
        yield Finding("hub", "offline", "note", text, "to reach the Hub: unset HF_HUB_OFFLINE")
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        text = f"HF_ENDPOINT is {endpoint!r}, which is not a web address"
        yield Finding("hub", "endpoint", "error", text, "set it to https://..., or unset it")
        return
    yield _answer(endpoint, patience)


def _token(present: bool) -> Finding:
    if present:
        return Finding("hub", "token", "ok", "a token is set (it is neither shown nor tested)", data={"token": True})
    text = "no token: public packages can be used, but nothing can be published"
    return Finding("hub", "token", "note", text, "to publish: hf auth login", {"token": False})


def _answer(endpoint: str, patience: float) -> Finding:
    start = time.monotonic()
    status, problem = head(endpoint, patience)
    data = {"endpoint": endpoint, "status": status, "seconds": round(time.monotonic() - start, 2)}
    if status is not None and status < 500:
        text = f"{endpoint} answers ({data['seconds']:.1f} s)"
        return Finding("hub", "endpoint", "ok", text, data=data)
    text = f"{endpoint}: {problem or f'fails (HTTP {status})'}"
    fix = "check network, proxy (HTTPS_PROXY) and HF_ENDPOINT; HF_HUB_OFFLINE=1 uses downloaded files only"
    return Finding("hub", "endpoint", "warning", text, fix, data)


def head(endpoint: str, patience: float) -> tuple[int | None, str]:
    """The status of one HEAD request with the client's session (its proxies, its certificates), or why it failed.

    The request runs in a thread, since a server that sends a byte per second evades the client's time limit.
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
