"""What we rely on in the Hub's client beyond its documentation: each test fails when the client changes."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import huggingface_hub as client
import pytest
from hub_server import Fault, HubServer
from huggingface_hub.utils import close_session, get_session
from huggingface_hub.utils._http import default_client_factory

from zoo.base.version import __version__
from zoo.errors import HubConnectionError, HubError, HubGatedError, HubLoginError, HubNotFoundError
from zoo.hub.session import hub_api, is_transient, talking


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxy stands between a test and its server, and no client is left behind."""
    monkeypatch.setenv("NO_PROXY", "*")
    close_session()
    yield
    close_session()


def test_a_programs_own_client_is_bounded_inside_and_in_use_again_afterwards() -> None:
    plain, made = type(get_session()), []

    def factory() -> Any:
        made.append(plain(headers={"x-program": "mine"}))
        return made[-1]

    client.set_client_factory(factory)
    try:
        with talking("me/x") as session:
            inside = get_session()
            assert inside is made[-1]
            assert session.before in inside.event_hooks["request"]
            assert session.after in inside.event_hooks["response"]
        outside = get_session()
        assert outside is made[-1]
        assert outside is not inside
        assert not outside.event_hooks["request"]
    finally:
        client.set_client_factory(default_client_factory)


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A server that answers one request with these bytes and hangs up (None: it never answers)."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                if answer is None:
                    over.wait(30)
                else:
                    connection.sendall(answer)

        over, thread = threading.Event(), threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "did not respond in time"),
        (b"", "connection to the Hub failed"),
        (b"nonsense\r\n\r\n", "connection to the Hub failed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", "connection to the Hub failed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{", "damaged in transit"),
    ],
)
def test_each_failure_of_the_connection_is_known_and_may_be_tried_again(
    answer: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.hub.session.REQUEST_SECONDS", 0.5)
    with listening(answer) as endpoint, pytest.raises(HubConnectionError, match=message) as caught, talking("me/x"):
        client.HfApi(endpoint=endpoint).model_info("me/x", timeout=1)
    assert caught.value.__cause__ is not None
    assert is_transient(caught.value.__cause__)


def test_a_port_where_nobody_listens_is_a_connection_that_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(HubConnectionError, match="connection to the Hub failed") as caught, talking("me/x"):
        client.HfApi(endpoint=f"http://127.0.0.1:{port}").model_info("me/x")
    assert is_transient(caught.value.__cause__ or caught.value)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("401:Invalid credentials in Authorization header", HubLoginError, "token"),
        ("403:GatedRepo", HubGatedError, "gated"),
        ("404:RepoNotFound", HubNotFoundError, "no such repository"),
        ("404:RevisionNotFound", HubNotFoundError, "no such revision"),
        ("404:EntryNotFound", HubNotFoundError, "no such file"),
    ],
)
def test_each_refusal_of_the_hub_is_known_and_final(fault: str, kind: type[HubError], message: str) -> None:
    with HubServer() as hub:
        hub.store.put("me/x", {"a.txt": b"a"})
        hub.faults.append(Fault("info", fault))
        with pytest.raises(kind, match=message) as caught, talking("me/x"):
            client.HfApi(endpoint=hub.endpoint).model_info("me/x")
    assert type(caught.value) is kind
    assert not is_transient(caught.value.__cause__ or caught.value)


def test_a_wrong_name_and_the_offline_mode_are_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError) as caught, talking("me//x"):
        client.HfApi().model_info("me//x")
    assert not is_transient(caught.value.__cause__ or caught.value)
    monkeypatch.setattr(client.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubConnectionError, match="HF_HUB_OFFLINE"), talking("me/x"):
        client.HfApi(endpoint="http://127.0.0.1:1").model_info("me/x")


@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1", HubConnectionError, "ALL_PROXY names a SOCKS proxy.*pip install socksio"),
        ("HTTPS_PROXY", "nonsense://x", HubConnectionError, "HTTPS_PROXY is not the address of a proxy"),
        ("SSL_CERT_FILE", "/no/such.pem", HubConnectionError, "SSL_CERT_FILE names /no/such.pem, which does not exist"),
        ("HF_TOKEN", "hf_täst", HubLoginError, "token has characters that no token has"),
    ],
)
def test_a_wrong_setting_of_this_machine_is_named_at_once(
    name: str, value: str, kind: type[HubError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    for variable in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv(name, value)
    if name == "ALL_PROXY" and importlib.util.find_spec("socksio"):
        pytest.skip("this environment has socksio")
    close_session()
    with pytest.raises(kind, match=message) as caught, talking("me/x"):
        client.HfApi(endpoint="https://127.0.0.1:1").model_info("me/x")
    assert not is_transient(caught.value.__cause__ or caught.value)


def test_an_address_that_a_setting_gives_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubConnectionError, match=r"HF_ENDPOINT is set to http://127\.0\.0\.1:1"), talking("me/x"):
        client.HfApi(endpoint="http://127.0.0.1:1").model_info("me/x")


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(HubError, match="me/x: /home/me/cache: Permission denied"), talking("me/x"):
        raise PermissionError(13, "Permission denied", "/home/me/cache")


def test_our_name_and_version_are_in_every_request() -> None:
    assert hub_api().library_version == __version__
    assert hub_api().library_name == "hybrid-zoo"


def test_a_file_that_the_storage_lacks_is_no_missing_repository() -> None:
    class Lost(Exception):
        response = SimpleNamespace(status_code=404, url="https://cdn.example/blob", headers={})

    with pytest.raises(HubNotFoundError, match="storage lacks one of its files"), talking("me/x"):
        raise Lost


def test_xets_client_can_be_ended_from_outside() -> None:
    from huggingface_hub.utils import _xet

    assert callable(_xet.abort_xet_session)
