"""`zoo serve` as a real process on 127.0.0.1, asked by sockets and by a real browser."""

from __future__ import annotations

import html
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import chromium
import numpy as np
import pytest
from hub_server.runs import own_caches, threads, untrained_run
from PIL import ExifTags, Image

import zoo
from zoo.errors import InputError
from zoo.serve.body import decode
from zoo.serve.limits import MAX_CLIENTS, Limits, Rates
from zoo.serve.page import make_page
from zoo.serve.server import listen

OPTIONS = ("--port", "0", "--timeout", "1.5", "--max-mib", "1", "--max-pixels", "100000", "--rate", "0")
OPTIONS += ("--allow-host", "Photos.example")


class Server:
    """A running server and what was read from it."""

    def __init__(self, process: subprocess.Popen[str], url: str, folder: Path) -> None:
        self.process, self.url, self.folder = process, url, folder
        parts = urlsplit(url)
        self.place = (parts.hostname or "", parts.port or 0)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(*self.place, timeout=30)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        found = (answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def send(self, data: bytes, wait: float = 0.0) -> bytes:
        """Raw bytes (one by one, where `wait` is the pause between them); all that comes back."""
        with socket.create_connection(self.place, timeout=20) as client:
            for i in range(len(data) if wait else 1):
                client.sendall(data[i : i + 1] if wait else data)
                time.sleep(wait)
            found = b""
            while block := client.recv(65536):
                found += block
            return found


@contextmanager
def serving(run: Path, folder: Path, *options: str) -> Iterator[Server]:
    """A server in a folder of its own; killed at the end if it did not end by itself."""
    command = [sys.executable, "-m", "zoo", "serve", str(run), *options]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=threads()
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, process.communicate()[1]
        yield Server(process, url, folder)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("served")
    with own_caches(base):
        return untrained_run(base / "run", "cnn-baseline", limit_train=64, limit_test=32)


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with own_caches(run.parent), serving(run, tmp_path_factory.mktemp("here"), *OPTIONS) as found:
        yield found
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(20) == 0


def png(side: int = 8, seed: int = 0) -> bytes:
    values = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def form(*files: tuple[str, bytes], field: str = "image") -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


IMAGE = {"Content-Type": "image/png"}


def test_an_image_is_answered_as_zoo_predict_answers(server: Server, run: Path) -> None:
    classifier = zoo.load(run)
    expected = classifier.best(classifier.probabilities(classifier.decode(png(9), "x")[None])[0], 3)
    body, headers = form(("../../etc/<b>x</b>.png", png(9)))
    for path, data, kind in (("/predict?top=3", png(9), IMAGE), ("/predict?top=3", body, headers)):
        status, answered, text = server.ask("POST", path, data, kind)
        assert status == 200
        assert answered["content-type"] == "application/json"
        answer = json.loads(text)
        assert [c["name"] for c in answer["classes"]] == [name for name, _ in expected]
        assert [c["probability"] for c in answer["classes"]] == pytest.approx([p for _, p in expected], abs=1e-5)
        assert answer["image"]["width"] == 9
    assert answer["image"]["name"] == "../../etc/<b>x</b>.png"


def test_a_photograph_is_answered_upright(server: Server) -> None:
    values = np.random.default_rng(3).integers(0, 255, (10, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    answers = []
    for pixels, orientation in ((values, 1), (np.rot90(values), 6)):  # 6: to be turned right once
        exif[ExifTags.Base.Orientation] = orientation
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", exif=exif)
        status, _, text = server.ask("POST", "/predict", file.getvalue(), IMAGE)
        assert status == 200
        answers.append(json.loads(text))
    assert answers[1]["classes"] == answers[0]["classes"]
    assert (answers[1]["image"]["width"], answers[1]["image"]["height"]) == (16, 10)


CUT = form(("cut.png", png()))[0][:-20]
MULTIPART = form()[1]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/predict", b"", IMAGE, 400),
        ("POST", "/predict", b"GIF89a and nothing", IMAGE, 415),
        ("POST", "/predict", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", IMAGE, 415),
        ("POST", "/predict", png(64)[:900], IMAGE, 422),
        ("POST", "/predict", png(400), IMAGE, 413),
        ("POST", "/predict", b"\0" * 1_100_000, IMAGE, 413),
        ("POST", "/predict", iter([b"\0" * 100_000] * 20), IMAGE, 413),
        ("POST", "/predict", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/predict", CUT, MULTIPART, 400),
        ("POST", "/predict", png(), {"Content-Type": "multipart/form-data"}, 400),
        ("POST", "/predict", png(), {"Content-Type": "multipart/form-data; boundary=" + "x" * 999}, 400),
        ("POST", "/predict", form(("a", png()), ("b", png()))[0], MULTIPART, 400),
        ("POST", "/predict", form(*[(str(n), b"x") for n in range(20)])[0], MULTIPART, 400),
        ("POST", "/predict?top=none", png(), IMAGE, 400),
        ("POST", "/predict?top=-1", png(), IMAGE, 400),
        ("POST", "/predict", png(), IMAGE | {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/predict", None, {}, 405),
        ("GET", "/../../etc/passwd", None, {}, 404),
        ("GET", "/%2e%2e/run.toml", None, {}, 404),
        ("GET", "//etc/passwd", None, {}, 404),
        ("GET", "/", None, {"Host": "rebound.example"}, 421),
        ("GET", "/", None, {"Host": "example"}, 421),
    ],
)
def test_bad_input_is_one_line_of_json(
    method: str, path: str, body: Any, headers: dict[str, str], status: int, server: Server
) -> None:
    found, answered, text = server.ask(method, path, body, headers)
    assert found == status
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert list(json.loads(text)) == ["error"]
    assert answered["x-content-type-options"] == "nosniff"
    assert server.ask("POST", "/predict", png(), IMAGE)[0] == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000, 400),
        (b"GET / HTTP/1.1\r\nHost: loc", 408),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc", 408),
    ],
)
def test_what_is_no_request_or_never_whole_is_answered_and_closed(data: bytes, status: int, server: Server) -> None:
    begun = time.monotonic()
    head, _, body = server.send(data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert list(json.loads(body)) == ["error"]
    assert time.monotonic() - begun < 12


@pytest.mark.parametrize("host", ["photos.example", "PHOTOS.example.:443", "localhost:1", "127.0.0.1", "[::1]:9"])
def test_a_proxy_that_keeps_an_allowed_host_name_is_answered(host: str, server: Server) -> None:
    assert server.ask("GET", "/healthz", None, {"Host": host})[0] == 200


def test_a_health_check_in_http_1_0_without_a_host_is_answered(server: Server) -> None:
    assert server.send(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert server.send(b"GET /healthz HTTP/1.0\r\nHost: rebound.example\r\n\r\n").startswith(b"HTTP/1.1 421")


def test_a_whole_address_in_place_of_a_path_is_understood_and_its_name_counts(server: Server) -> None:
    def ask(target: str, host: str = "localhost") -> bytes:
        return server.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert ask("http://localhost:1/healthz").startswith(b"HTTP/1.1 200")
    assert ask("http://127.0.0.1").startswith(b"HTTP/1.1 200")
    assert ask("HTTP://photos.example/healthz").startswith(b"HTTP/1.1 200")
    assert ask("http://rebound.example/healthz").startswith(b"HTTP/1.1 421")
    assert ask("http://localhost/healthz", "rebound.example").startswith(b"HTTP/1.1 200")
    assert ask("http://localhost/nothing").startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(("count", "status"), [(1, 200), (1200, 431)])
def test_a_head_is_limited_although_it_comes_in_one_piece(server: Server, count: int, status: int) -> None:
    many = b"".join(b"x-%d: aaaaaaaaaa\r\n" % i for i in range(count))
    found = server.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + many + b"\r\n")
    assert found.startswith(f"HTTP/1.1 {status}".encode())
    assert status == 200 or b"at most 16,384 are allowed" in found


def test_a_client_that_sends_byte_by_byte_is_cut_off(server: Server) -> None:
    begun = time.monotonic()
    with pytest.raises((ConnectionError, BrokenPipeError)):
        server.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 1000, wait=0.05)
    assert time.monotonic() - begun < 15


def test_concurrent_requests_share_batches_and_are_not_mixed_up(server: Server) -> None:
    images = [png(8, seed) for seed in range(40)]
    alone = [server.ask("POST", "/predict", data, IMAGE)[2] for data in images]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda data: server.ask("POST", "/predict", data, IMAGE)[2], images))
    for one, other in zip(alone, together, strict=True):
        first, second = json.loads(one)["classes"], json.loads(other)["classes"]
        assert [c["probability"] for c in first] == pytest.approx([c["probability"] for c in second], abs=1e-4)
    assert len(set(alone)) > 30


def test_health_and_metrics(server: Server) -> None:
    status, _, text = server.ask("GET", "/healthz")
    assert (status, json.loads(text)["model"]) == (200, "cnn-baseline")
    server.ask("GET", "/strange/" + "x" * 50)
    server.ask("POST", "/predict", png(), IMAGE)
    status, answered, text = server.ask("GET", "/metrics")
    assert status == 200
    assert answered["content-type"].startswith("text/plain; version=0.0.4")
    said = text.decode()
    assert re.search(r'^zoo_requests_total\{method="POST",path="/predict",status="200"\} \d', said, re.M)
    assert re.search(r'^zoo_requests_total\{method="GET",path="other",status="404"\} \d', said, re.M)
    assert "zoo_under_way 0.0" in said
    assert "strange" not in said


def test_nothing_is_written(server: Server) -> None:
    large = png(150)
    assert server.ask("POST", "/predict", *form(("large.png", large)))[0] == 200
    assert list(server.folder.iterdir()) == []
    if Path("/proc/self/fd").is_dir():
        held = [os.readlink(p) for p in Path(f"/proc/{server.process.pid}/fd").iterdir() if p.is_symlink()]
        assert not [path for path in held if path.startswith(("/tmp/tmp", "/var/tmp"))]


@pytest.mark.parametrize("name", ["</title><script>alert(1)</script>", "a\"b'c&d", "{{ script }}{% for %}"])
def test_names_are_text_on_the_page(name: str) -> None:
    facts = {"model": name, "dataset": name, "classes": 10, "width": 8, "height": 8}
    page = make_page(facts, Limits()).html
    assert page.count("<script>") == 1
    (title,) = re.findall(r"<h1>(.*)</h1>", page)
    assert html.unescape(title) == f"{name} on {name}"
    assert not set("<>\"'") & set(title)


def test_the_page_in_a_browser(server: Server, tmp_path: Path) -> None:
    named = tmp_path / "<img src=x onerror=alert(1)>.png"
    named.write_bytes(png(8))
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with chromium.opened(tmp_path / "profile") as page:
        page.view(390, 800, touch=True)
        page.open(server.url)
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        page.call("DOM.setFileInputFiles", files=[str(tmp_path / "bad.png"), str(named)], nodeId=node)
        page.wait("document.querySelectorAll('#answers tr').length === 5")
        page.wait("document.querySelector('#answers li:last-child .error')")
        assert page.run("document.querySelector('#answers h2').textContent") == named.name
        assert page.run("document.querySelectorAll('#answers img').length") == 2
        assert "known format" in page.run("document.querySelector('#answers li:last-child .error').textContent")
        assert page.run("document.documentElement.scrollWidth") <= 390
        drop(page, named)
        page.wait("document.querySelectorAll('#answers tr').length === 10")
        page.run("document.activeElement.blur()")
        page.key("Tab", code=9)
        assert page.run("document.activeElement.id") == "file"
        assert page.run("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
        page.view(1200, dark=True)
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 25)"
        wrong = [line for line in page.complaints() if "415" not in line]  # the bad image's own status
        assert wrong == []
        assert page.requests()
        assert all(url.startswith(server.url) for url in page.requests())


def drop(page: chromium.Page, path: Path) -> None:
    """Let go of a file over the middle of the page, as the system's file manager does."""
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=150, y=150, data=data)


def test_a_signal_lets_requests_under_way_be_answered(run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path, "--port", "0", "--queue", "1", "--rate", "0.5") as server:
        client = socket.create_connection(server.place, timeout=20)
        data = png()
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(data)}"
        client.sendall(head.encode() + b"\r\n\r\n" + data[:20])
        server.ask("GET", "/healthz")  # the head was read by now
        refused = server.ask("POST", "/predict", data, IMAGE)
        assert refused[0] == 429
        assert int(refused[1]["retry-after"]) >= 1
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.place, timeout=5).close()
        client.sendall(data[20:])
        answer = b""
        while block := client.recv(65536):
            answer += block
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(20) == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read().splitlines()[-1] == "stopped"


def test_no_image_makes_python_look_for_a_library(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them are installed is asked where one is needed: to ask takes longer than to decode a small image."""
    model, sought = zoo.load(run), []

    class Seen:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            sought.append(name)

    image = png()
    decode(model, image, Limits())  # what Pillow imports with the first one
    monkeypatch.setattr(sys, "meta_path", [Seen(), *sys.meta_path])
    pixels, size = decode(model, image, Limits())
    assert (pixels.shape, size) == ((3, 8, 8), (8, 8))
    assert sought == []


def test_a_full_queue_is_refused_and_a_failing_model_answered() -> None:
    import asyncio

    from zoo.serve.batching import Batcher
    from zoo.serve.limits import Refused

    async def scenario() -> list[int]:
        sizes: list[int] = []

        def compute(images: Any) -> Any:
            time.sleep(0.05)
            if images.max() > 200:
                raise RuntimeError("out of memory")
            return images[:, 0, 0]

        batcher = Batcher(compute, most=4, queue=5, told=sizes.append)
        for _ in range(5):
            batcher.admit()
        with pytest.raises(Refused) as refused:
            batcher.admit()
        assert refused.value.status == 503
        assert "Retry-After" in refused.value.headers
        work = asyncio.create_task(batcher.work())
        images = [np.full((3, 2, 2), n, np.uint8) for n in range(6)]
        rows = await asyncio.gather(*map(batcher.computed, images))
        assert [int(row[0]) for row in rows] == list(range(6))
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.computed(np.full((3, 2, 2), 255, np.uint8))
        await batcher.computed(images[0])
        work.cancel()
        batcher.close()
        return sizes

    sizes = asyncio.run(scenario())
    assert sum(sizes) == 8
    assert max(sizes) == 4


def test_a_bucket_fills_with_time_and_clients_are_forgotten() -> None:
    now = [0.0]
    rates = Rates(2.0, clock=lambda: now[0])
    assert [rates.take("a") for _ in range(4)] == [0.0] * 4
    assert rates.take("a") == pytest.approx(0.5)
    assert rates.take("b") == 0.0
    now[0] = 0.6
    assert rates.take("a") == 0.0
    for number in range(MAX_CLIENTS + 5):
        rates.take(str(number))
    assert len(rates.buckets) == MAX_CLIENTS
    assert Rates(0).take("a") == 0.0


def test_a_small_answer_waits_for_no_receipt() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_and_an_address_that_is_not_here_are_one_line() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match="give another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match=r"cannot listen on 203\.0\.113\.7:0"):
        listen("203.0.113.7", 0)
