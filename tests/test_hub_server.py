"""The test Hub itself: it speaks the genuine client's language, and it never outlives its test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hub_server import Fault, HubServer
from hub_server.faults import KINDS, kind_of

TESTS = Path(__file__).parent

CLIENT = """
import hashlib, os, sys
import huggingface_hub as hub
api = hub.HfApi()
assert api.whoami()["name"] == "me"
api.create_repo("me/thing", private=True)
try:
    api.create_repo("me/thing")
except hub.errors.HfHubHTTPError as error:
    assert error.response.status_code == 409
head = api.model_info("me/thing").sha
large = os.urandom(int(sys.argv[1]))
adds = [hub.CommitOperationAdd("README.md", b"---\\nlicense: mit\\n---\\n")]
adds.append(hub.CommitOperationAdd("m.safetensors", large))
made = api.create_commit("me/thing", adds, commit_message="one", parent_commit=head)
try:
    other = [hub.CommitOperationAdd("x.txt", b"x")]
    api.create_commit("me/thing", other, commit_message="two", parent_commit=head)
    raise SystemExit("a stale parent was taken")
except hub.errors.HfHubHTTPError as error:
    assert error.response.status_code == 412
found = {f.path for f in api.list_repo_tree("me/thing", recursive=True)}
assert found == {".gitattributes", "README.md", "m.safetensors"}
path = hub.hf_hub_download("me/thing", "m.safetensors", revision=made.oid)
assert open(path, "rb").read() == large
api.create_tag("me/thing", tag="v1")
assert [t.name for t in api.list_repo_refs("me/thing").tags] == ["v1"]
for wrong in (dict(repo_id="me/nothing"), dict(repo_id="me/thing", revision="nowhere")):
    try:
        api.model_info(**wrong)
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize(("xet", "size"), [(False, 300_000), (True, 300_000), (False, 26_000_000)])
def test_the_genuine_client_is_served(xet: bool, size: int, tmp_path: Path) -> None:
    with HubServer(xet=xet) as hub:
        hub.store.users["hf_token"] = ("me", "write")
        if size > 25_000_000:
            hub.faults.append(Fault("cdn-get", "truncate", times=1))  # the client goes on by a Range
        env = {**os.environ, **hub.env(tmp_path, "hf_token"), "HF_HUB_DISABLE_XET": "0" if xet else "1"}
        command = [sys.executable, "-c", CLIENT, str(size)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.split() == ["RepositoryNotFoundError", "RevisionNotFoundError"]
        kinds = [r.kind for r in hub.log]
        assert ("xorb-put" in kinds, "lfs-put" in kinds) == (xet, not xet)
        assert ("reconstruction" in kinds, "cdn-get" in kinds) == (xet, not xet)
        if size > 25_000_000:
            assert [r.headers.get("range", "")[:6] for r in hub.log if r.kind == "cdn-get"][1] == "bytes="


def test_every_kind_has_a_request_that_is_named_so() -> None:
    names = [name for name, _, _ in KINDS]
    assert len(names) == len(set(names))
    assert kind_of("POST", "/api/models/a/b/commit/main") == "commit"
    assert kind_of("GET", "/api/models/a/b") == kind_of("GET", "/api/models/a/b/revision/x") == "info"
    assert kind_of("HEAD", "/a/b/resolve/main/f") == "resolve-head"
    assert kind_of("GET", "/favicon.ico") == "other"


def ask(url: str) -> bytes:
    # An opener of its own: urllib keeps the first one it makes, with the proxies that were set at that time.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=5) as answer:
        return answer.read()


@pytest.mark.parametrize("action", ["500", "drop", "lost", "truncate"])
def test_a_fault_is_met_once_and_then_over(action: str) -> None:
    with HubServer() as hub:
        hub.store.put("me/x", {"a.txt": b"a"})
        hub.faults.append(Fault("info", action, times=1))
        with pytest.raises((OSError, EOFError, urllib.error.HTTPError, __import__("http.client").client.HTTPException)):
            ask(f"{hub.endpoint}/api/models/me/x")
        assert b'"me/x"' in ask(f"{hub.endpoint}/api/models/me/x")


def test_a_wrong_bit_keeps_the_size() -> None:
    with HubServer() as hub:
        hub.store.put("me/x", {"a.txt": b"0123456789"})
        whole = ask(f"{hub.endpoint}/me/x/resolve/main/a.txt")
        hub.faults.append(Fault("resolve-get", "flip"))
        wrong = ask(f"{hub.endpoint}/me/x/resolve/main/a.txt")
    assert len(wrong) == len(whole) == 10
    assert sum(a != b for a, b in zip(wrong, whole, strict=True)) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_hub_ends_with_its_process_even_when_that_is_killed() -> None:
    code = "import time, hub_server\nh = hub_server.HubServer().__enter__()\nprint(h.endpoint, flush=True)"
    code += "\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=TESTS, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        socket.create_connection(("127.0.0.1", port), 5).close()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError("the port still answers")


def test_nothing_in_the_product_knows_of_the_test_hub() -> None:
    for path in (TESTS.parent / "zoo").rglob("*.py"):
        text = path.read_text("utf-8")
        assert "hub_server" not in text
        if "serve" not in path.as_posix():  # a server of ours says where it listens
            assert "127.0.0.1" not in text
        # These say which setting is wrong; the client alone goes by it.
        if path.parent.name != "doctor" and path.name != "hub_settings.py":
            assert "HF_ENDPOINT" not in text
