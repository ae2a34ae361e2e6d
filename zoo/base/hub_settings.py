"""Settings of this machine on which requests to the Hub fail: proxy, certificates, token and address."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from zoo.errors import HubConnectionError, HubError, HubLoginError

PROXIES = ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def of_this_machine(error: BaseException, what: str) -> HubError | None:
    """What a setting of this machine explains of a request without a response; None where none does."""
    from huggingface_hub import get_token

    proxies = _proxies()
    if any(isinstance(e, ImportError) and "socks" in str(e).lower() for e in causes(error)):
        socks = [name for name in proxies if os.environ[name].startswith("socks")]
        return HubConnectionError(
            f"{what}: {' and '.join(socks) or 'a setting'} names a SOCKS proxy, which needs the package socksio; "
            "`pip install socksio`, or unset the variable"
        )
    if proxies and any(type(e) is ValueError and "proxy" in str(e).lower() for e in causes(error)):
        return HubConnectionError(f"{what}: {' or '.join(proxies)} is not the address of a proxy; correct or unset it")
    for name in CERTIFICATES:
        path = os.environ.get(name, "")
        if path and not os.path.exists(path) and any(isinstance(e, OSError) for e in causes(error)):
            return HubConnectionError(f"{what}: {name} names {path}, which does not exist; correct or unset it")
    token = get_token() or ""
    names = {type(e).__name__ for e in causes(error)}
    is_unsendable = names & {"UnicodeEncodeError", "LocalProtocolError"}
    if is_unsendable and token and not re.fullmatch(r"[!-~]+", token):
        return HubLoginError(f"{what}: the Hub token has characters that no token has; run `hf auth login`")
    return None


def endpoint_note() -> str:
    """Where requests are sent, and through which proxies, if settings of this machine say so."""
    endpoint, proxies = os.environ.get("HF_ENDPOINT", ""), _proxies()
    notes = [f"HF_ENDPOINT is set to {endpoint}"] if endpoint else []
    notes += [f"{' and '.join(proxies)} {'is' if len(proxies) == 1 else 'are'} set"] if proxies else []
    return "".join(f"; {note}" for note in notes)


def _proxies() -> list[str]:
    """The environment variables that name a proxy; their values may hold a password."""
    return [name for key in PROXIES for name in (key, key.lower()) if os.environ.get(name)]


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, the last one first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
