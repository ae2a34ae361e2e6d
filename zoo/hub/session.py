"""One conversation with the Hub: time limits on every request, and errors that say what to do.

The Hub's client makes requests without a time limit, and waits as long as a server tells it to. Here every
request has a limit, so has a wait that the server asks for, and a conversation without any progress for
`PATIENCE` seconds ends, even if the client would try again.

The client's own errors are recognised by their public classes. It does not offer two other things. One is
the errors of its HTTP library (httpx in version 1.x, httpx2 in 2.x, neither re-exported): these are
recognised by the names of their classes. The other is the client factory in use (`set_client_factory` has
no counterpart that returns it): it is read from a private name, because a program's own factory must be in
use again afterwards. tests/test_hub_session.py fails when the client changes one of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.base.hub_settings import causes, endpoint_note, of_this_machine
from zoo.base.quiet_imports import without_advice
from zoo.base.version import __version__
from zoo.errors import (
    HubConflictError,
    HubConnectionError,
    HubError,
    HubGatedError,
    HubLoginError,
    HubNotFoundError,
    HubPermissionError,
    ZooError,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
LIBRARY = "hybrid-zoo"
"""Our name on the Hub: in the user agent of every request, and as the library of a model."""
REQUEST_SECONDS, COMMIT_SECONDS = 10.0, 30.0
MAX_WAIT = 8
"""The longest wait, in seconds, that a server's Retry-After may ask for."""
PATIENCE = 75.0
"""Seconds without a response or a byte after which a conversation ends."""
LAST = 100.0
"""The same for work outside of Python's HTTP client; longer, so that its own limits apply first."""
SLOWEST = 4096
"""Bytes in `PATIENCE` seconds; a slower download counts as stalled."""
WORK = "zoo-hub"
"""The name of the threads in which such work is done."""
FAREWELL = 1.0
"""Seconds in which work that was abandoned may end."""
TRIES, LONG = 4, 15.0
XET_LIMITS = (
    ("HF_XET_CLIENT_READ_TIMEOUT", "20s"),
    ("HF_XET_CLIENT_CONNECT_TIMEOUT", "10s"),
    ("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "3"),
    ("HF_XET_CLIENT_RETRY_MAX_DURATION", "60s"),
)
"""Limits of hf-xet's own client: environment variables, read when it starts. The user's values have priority."""

UNREACHABLE = frozenset({"TransportError", "NetworkError", "ConnectionError", "ProtocolError"})
"""Names of the classes of connection errors, in the client's HTTP library and in others."""

LATE = frozenset({"TimeoutException"})
"""The same for a response that did not arrive in time."""

XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3}) ")
"""The HTTP status in the text of hf-xet's errors, which have no response attached."""

XET_NETWORK = re.compile(r"timed? ?out|connection|network|sending request", re.IGNORECASE)


class Session:
    """The state of one conversation: when it last made progress, and how many bytes arrived since."""

    def __init__(self) -> None:
        self.moved, self.bytes = time.monotonic(), 0
        self.abandoned: set[threading.Thread] = set()
        """Threads for which nobody waits any more: they send nothing and read nothing."""

    def progress(self) -> None:
        """Note progress: the time of waiting starts again."""
        self.moved, self.bytes = time.monotonic(), 0

    def stalled(self) -> bool:
        """Whether there was no progress for too long."""
        return time.monotonic() - self.moved > PATIENCE

    def before(self, request: Any) -> None:
        """Set the request's time limits, or end the conversation (a hook of the HTTP client)."""
        self._go_on()
        if self.stalled():
            raise HubConnectionError(f"the Hub has not answered for {PATIENCE:.0f} seconds; try again later")
        ceiling = COMMIT_SECONDS if "/commit/" in request.url.path else REQUEST_SECONDS
        limits = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            key: min(limits.get(key) or ceiling, ceiling) for key in ("connect", "read", "write", "pool")
        }

    def after(self, response: Any) -> None:
        """Limit the wait that the server asks for, and watch the body (a hook of the HTTP client)."""
        for header in ("retry-after", "ratelimit"):
            value = response.headers.get(header)
            if value is None:
                continue
            if header == "retry-after" and value.strip().isdigit() and int(value) <= MAX_WAIT:
                continue
            del response.headers[header]
            if header == "retry-after" and value.strip().isdigit():
                response.headers[header] = str(MAX_WAIT)
        if response.status_code < 400:
            self.progress()
            response.stream = _watched(response.stream, self)

    def arrived(self, size: int) -> bool:
        """Add bytes that arrived; return whether they are enough to count as progress."""
        self.bytes += size
        if self.bytes < SLOWEST:
            return False
        self.progress()
        return True

    def count(self, size: int) -> None:
        """Add bytes of a body, or end a download that is too slow or was abandoned."""
        self._go_on()
        if not self.arrived(size) and self.stalled():
            raise HubConnectionError(
                f"the Hub sent less than {SLOWEST} bytes in {PATIENCE:.0f} seconds; try again later"
            )

    def _go_on(self) -> None:
        if threading.current_thread() in self.abandoned:
            raise HubConnectionError("nobody waits for this answer of the Hub any more")

    def bar(self) -> type[Any]:
        """The client's progress bar, which also reports bytes to this session (Xet's do not pass the hooks)."""
        from huggingface_hub.utils import tqdm

        session = self

        class Watching(tqdm):
            """A progress bar that reports to the session."""

            def update(self, n: float | None = 1) -> bool | None:
                """Show progress, and report it."""
                session.arrived(int(n or 0))
                return super().update(n)

        return Watching


def _watched(stream: Any, session: Session) -> Any:
    base: Any = next(c for c in type(stream).__mro__ if c.__name__ == "SyncByteStream")

    class Watched(base):
        """The body of a response, whose bytes are counted."""

        def __iter__(self) -> Iterator[bytes]:
            for chunk in stream:
                session.count(len(chunk))
                yield chunk

        def close(self) -> None:
            """Close the original stream."""
            stream.close()

    return Watched()


@contextlib.contextmanager
def talking(what: str) -> Iterator[Session]:
    """Limit the client's requests inside the block, and turn its errors into ours.

    Args:
        what: "OWNER/NAME@REVISION", for messages.
    Raises:
        HubError: or one of its subclasses, each with one line and an exit code of its own.
    """
    with without_advice():
        http = importlib.import_module("huggingface_hub.utils._http")  # see the docstring of this module
        from huggingface_hub import hf_hub_download, set_client_factory  # noqa: F401 - with all that it brings
        from huggingface_hub.utils import (
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
            logging,
        )

    session = Session()
    original: Callable[[], Any] = getattr(http, "_GLOBAL_CLIENT_FACTORY", http.default_client_factory)

    def client() -> Any:
        http_client = original()
        hooks = http_client.event_hooks
        http_client.event_hooks = {
            "request": [*hooks.get("request", []), session.before],
            "response": [session.after, *hooks.get("response", [])],
        }
        return http_client

    for name, value in XET_LIMITS:
        os.environ.setdefault(name, value)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the client's messages about each retry are not for users
    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    set_client_factory(client)
    try:
        yield session
    except ZooError:
        raise
    except Exception as error:
        raise explain(error, what) from error
    finally:
        set_client_factory(original)
        if quiet:
            enable_progress_bars()
        logging.set_verbosity(verbosity)


def hub_api() -> HfApi:
    """The client's interface to the Hub, with our name."""
    from huggingface_hub import HfApi

    return HfApi(library_name=LIBRARY, library_version=__version__)


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids every request."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def retrying(call: Callable[[], T]) -> T:
    """Call again if the Hub is busy or the connection fails; only for calls that may be repeated."""
    for attempt in range(1, TRIES + 1):
        start = time.monotonic()
        try:
            return call()
        except Exception as error:
            # In a long time the client has tried again itself; trying all of that again would take minutes.
            if attempt == TRIES or not is_transient(error) or time.monotonic() - start > LONG:
                raise
            time.sleep(min(MAX_WAIT, _retry_after(error) or 2 ** (attempt - 1)))
    raise AssertionError("unreachable")


def within(session: Session, call: Callable[[], T]) -> T:
    """Run a call in a separate thread, and abandon it when there is no progress any more.

    For work outside of Python's HTTP client (Xet), on which we can set no time limit.

    Raises:
        HubConnectionError: there was no progress for `LAST` seconds.
    """
    outcome: list[Any] = []
    done = threading.Event()  # Ctrl-C while a thread is joined would mark it as ended, though it is not

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))
        finally:
            done.set()

    session.progress()
    thread = threading.Thread(target=run, name=WORK, daemon=True)
    thread.start()
    try:
        while not done.wait(0.1):
            if time.monotonic() - session.moved > LAST:
                raise HubConnectionError(f"there was no progress for {LAST:.0f} seconds; try again later")
    except BaseException:  # also Ctrl-C and SIGTERM
        session.abandoned.add(thread)
        _abort_xet()
        _end(thread)
        done.wait(FAREWELL)
        raise
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def _end(thread: threading.Thread) -> None:
    """End a thread before its next request: the program may live on, and nobody waits for this work any more.

    The exception is lost where Python ignores exceptions (in a finalizer): then `Session.abandoned` ends a download.
    """
    identity, reason = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, reason)  # Python has no other way to end a thread


def _abort_xet() -> None:
    """Stop what Xet's client is still doing and release its locks, as Ctrl-C does."""
    with contextlib.suppress(Exception):  # there may be no Xet, or another version of it
        importlib.import_module("huggingface_hub.utils._xet").abort_xet_session()


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error of the client, or of one of its causes, if there is one."""
    for below in causes(error):
        status: int | None = getattr(getattr(below, "response", None), "status_code", None)
        if status is not None:
            return status
        if match := XET_STATUS.search(str(below)):
            return int(match[1])
    return None


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: after connection errors, timeouts and HTTP 408, 429 and 5xx."""
    status = status_of(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    if isinstance(error, ZooError):
        return False
    return bool(_names(error) & (UNREACHABLE | LATE)) or _is_damaged(error)


def _is_damaged(error: BaseException) -> bool:
    """Whether a response arrived that cannot be read (no JSON, no UTF-8, another name or address)."""
    from huggingface_hub.errors import HFValidationError

    if isinstance(error, ZooError | HFValidationError | OSError) or status_of(error) is not None:
        return False
    if of_this_machine(error, ""):
        return False
    return _has(error, ValueError, KeyError)


def _has(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Whether the error or one of its causes is an instance of one of these classes."""
    return any(isinstance(below, kinds) for below in causes(error))


def _names(error: BaseException) -> set[str]:
    return {c.__name__ for below in causes(error) for c in type(below).__mro__}


def _retry_after(error: BaseException) -> int | None:
    value = getattr(getattr(error, "response", None), "headers", {}).get("retry-after", "")
    return int(value) if value.strip().isdigit() else None


# ---- errors -----------------------------------------------------------------------------------


def explain(error: BaseException, what: str) -> HubError:
    """Turn an error of the client, of its HTTP library or of the system into one of ours."""
    from huggingface_hub import errors

    status, absent = status_of(error), _has(error, errors.RepositoryNotFoundError)
    if _has(error, errors.OfflineModeIsEnabled):
        return HubConnectionError(f"{what}: this needs the Hub, and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE")
    if status is None and (problem := of_this_machine(error, what)):
        return problem
    if _has(error, errors.GatedRepoError):
        return HubGatedError(f"{what} is gated; accept its terms on its page on the Hub, then run `hf auth login`")
    if _has(error, errors.RevisionNotFoundError):
        return HubNotFoundError(f"{what}: the repository has no such revision")
    if _has(error, errors.EntryNotFoundError) and not _has(error, errors.LocalEntryNotFoundError):
        return HubNotFoundError(f"{what}: the repository has no such file, so it is not a package of hybrid-zoo")
    if _has(error, errors.DisabledRepoError):
        return HubPermissionError(f"{what} was disabled by the Hub")
    if status == 401 and not absent:
        return HubLoginError(f"{what}: the Hub refuses the token; create a new one, then run `hf auth login`")
    if status == 404 and not absent and _is_elsewhere(error):
        return HubNotFoundError(f"{what}: the Hub's storage lacks one of its files; try again later")
    if absent or status == 404:
        return HubNotFoundError(
            f"{what}: there is no such repository (if it is private, run `hf auth login`){endpoint_note()}"
        )
    return _by_status(status, what) if status is not None else _without_status(error, what)


def _is_elsewhere(error: BaseException) -> bool:
    """Whether the response came from another host than the Hub's own, from its storage."""
    from huggingface_hub import constants

    urls = [getattr(getattr(below, "response", None), "url", None) for below in causes(error)]
    return any(url is not None and not str(url).startswith(f"{constants.ENDPOINT}/") for url in urls)


def _by_status(status: int, what: str) -> HubError:
    if status == 403:
        return HubPermissionError(f"{what}: the token does not allow this; use one with write access to the repository")
    if status in (409, 412):
        return HubConflictError(
            f"{what}: the Hub reports a conflict (HTTP {status}); look at the repository, then try again"
        )
    if status == 429:
        return HubConnectionError(f"{what}: the Hub has received too many requests; try again in a few minutes")
    if status >= 500:
        return HubConnectionError(f"{what}: the Hub has an internal error (HTTP {status}); try again later")
    return HubError(f"{what}: the Hub refused the request (HTTP {status})")


def _without_status(error: BaseException, what: str) -> HubError:
    from huggingface_hub.errors import LocalEntryNotFoundError

    chain, names = list(causes(error)), _names(error)
    if names & LATE:
        return HubConnectionError(f"{what}: the Hub did not respond in time; try again later{endpoint_note()}")
    if certificate := next((e for e in chain if isinstance(e, ssl.SSLCertVerificationError)), None):
        return HubConnectionError(
            f"{what}: the Hub's certificate is not accepted ({certificate.verify_message}); behind a proxy, set "
            f"SSL_CERT_FILE to a file with its certificates{endpoint_note()}"
        )
    if names & UNREACHABLE or _has(error, LocalEntryNotFoundError):
        return HubConnectionError(
            f"{what}: the connection to the Hub failed; check the network, or try again later{endpoint_note()}"
        )
    if any(XET_NETWORK.search(str(e)) for e in chain if isinstance(e, RuntimeError)):
        return HubConnectionError(f"{what}: the connection to the Hub's storage failed; try again later")
    if _is_damaged(error):
        return HubConnectionError(f"{what}: the Hub's response was damaged in transit; try again later")
    root_cause = chain[-1]
    if isinstance(root_cause, OSError) and root_cause.strerror:
        place = f"{root_cause.filename}: " if root_cause.filename else ""
        return HubError(f"{what}: {place}{root_cause.strerror}")
    if any("size" in str(e) and "Consistency" in str(e) for e in chain):
        return HubConnectionError(f"{what}: a download ended early several times; try again later")
    return HubError(f"{what}: unexpected response from the Hub ({type(error).__name__})")
