"""`zoo doctor`: real breakage is named with what mends it, and nothing crashes it."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_site import Site, components
from safetensors.numpy import save_file

from zoo.cli.doctor import folders, hub, parts
from zoo.cli.doctor.examine import _guarded
from zoo.cli.doctor.folders import disk, measure, unmappable, unwritable
from zoo.cli.doctor.libraries import EXTRAS
from zoo.cli.doctor.machine import Probe
from zoo.runs.folder import damage_of_weights
from zoo.runs.record import RECORD

SECRET = "hf_abcdefghijklmnopqrstuvwxyz012345"
NMS = "operator torchvision::nms does not exist"


@contextmanager
def stalling() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def answering(status: int, seen: list[Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append((self.command, dict(self.headers)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def damaged_runs(root: Path) -> None:
    """One run with half a record, and what an interrupted write leaves."""
    (root / "half").mkdir(parents=True)
    (root / "half" / RECORD).write_text('format = 1\nmodel = "hyb')
    (root / "half" / ".zoo-tmp-1234-model.safetensors").write_bytes(b"half")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Everything at once: torch, a plugin, the cache, the Hub, a run, a variable's name."""
    base = tmp_path_factory.mktemp("broken")
    site = Site(base / "site", base / "work")
    site.add("bad", "import nothing_of_this_name\n")
    site.add("good", components("same"))
    (site.folder / "torch.py").write_text("raise ImportError('libtorch_cpu.so: undefined symbol: iJIT')\n")
    damaged_runs(site.work / "runs")
    (base / "file").write_text("no folder")
    with stalling() as address:
        return site.run(
            "doctor",
            "--json",
            "--timeout",
            "0.5",
            ZOO_CACHE_DIR=str(base / "file" / "cache"),
            ZOO_CACHEDIR="/tmp",
            HF_ENDPOINT=address,
            HF_TOKEN=SECRET,
            HF_HOME=str(base / "hf"),
            HF_HUB_OFFLINE="0",
        )


@pytest.fixture
def findings(broken: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    document = json.loads(broken.stdout)
    assert document["ok"] is False
    return {(f["area"], f["what"]): f for f in document["findings"]}


def test_what_stops_work_is_exit_code_1_without_a_traceback(broken: subprocess.CompletedProcess[str]) -> None:
    assert broken.returncode == 1
    assert "Traceback" not in broken.stdout + broken.stderr
    assert "fix the errors first" in broken.stderr


@pytest.mark.parametrize(
    ("key", "level", "said", "fix"),
    [
        (("versions", "torch"), "error", "undefined symbol: iJIT", "pip install --force-reinstall torch"),
        (("plugins", "bad"), "warning", "No module named 'nothing_of_this_name'", "reinstall zoo-bad"),
        (("folders", "cache"), "error", "is a file; decoded images", "set ZOO_CACHE_DIR"),
        (("settings", "ZOO_CACHEDIR"), "warning", "no such setting exists", "did you mean ZOO_CACHE_DIR?"),
        (("hub", "endpoint"), "warning", "does not answer within 0.5 seconds", "HF_HUB_OFFLINE=1"),
        (("runs", "damaged"), "warning", "half/run.toml: damaged", "remove its folder"),
        (("runs", "temporary"), "note", ".zoo-tmp-1234", "find runs"),
    ],
)
def test_each_breakage_is_named_with_what_mends_it(
    findings: dict[tuple[str, str], dict[str, Any]], key: tuple[str, str], level: str, said: str, fix: str
) -> None:
    found = findings[key]
    assert found["level"] == level
    assert said in found["said"]
    assert fix in found["fix"]


def test_what_works_is_said_beside_what_does_not(findings: dict[tuple[str, str], dict[str, Any]]) -> None:
    catalogue = findings["plugins", "catalogue"]
    assert catalogue["level"] == "ok"
    assert "good" in catalogue["data"]["loaded"]
    assert findings["data", "here"]["data"]["digits"] == "embedded"
    assert "cifar10" in findings["data", "absent"]["data"]["absent"]


def test_the_token_is_there_and_never_shown(
    broken: subprocess.CompletedProcess[str], findings: dict[tuple[str, str], dict[str, Any]]
) -> None:
    assert findings["hub", "token"]["data"] == {"token": True}
    assert SECRET not in broken.stdout + broken.stderr


# ---- torch ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mismatch(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A real torch beside a torchvision of another one, which is how it fails; all else is well."""
    base = tmp_path_factory.mktemp("mismatch")
    site = Site(base / "site", base / "work")
    site.folder.mkdir()
    (site.folder / "torchvision.py").write_text(f"raise RuntimeError({NMS!r})\n")
    homes = {f"ZOO_{name}_DIR": str(base / name) for name in ("CACHE", "CONFIG", "DATA")}
    return site.run("doctor", HF_HUB_OFFLINE="1", HF_HOME=str(base / "hf"), **homes)


def test_a_torchvision_of_another_torch_is_reported_and_torch_is_looked_at_nevertheless(
    mismatch: subprocess.CompletedProcess[str],
) -> None:
    assert mismatch.returncode == 1, mismatch.stderr
    text = " ".join(mismatch.stdout.split())
    assert re.search(rf"error torchvision cannot be used with torch 2\S+: RuntimeError: {NMS}", text)
    assert "-> reinstall both from one index: pip install --force-reinstall torch torchvision" in text
    assert re.search(r"ok torch 2\S+ works", text)
    assert "ok cpu: " in text
    assert "note HF_HUB_OFFLINE is set: no request is made" in text


def test_the_page_fits_80_columns_and_has_no_colour(mismatch: subprocess.CompletedProcess[str]) -> None:
    assert "\033" not in mismatch.stdout
    long = [line for line in mismatch.stdout.splitlines() if len(line) > 80]
    assert all(len(line.split()) == 1 for line in long), long  # a path is left whole, to be copied


def test_a_torch_that_kills_its_process_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import os\nprint('about to die', flush=True)\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    probe = Probe()
    try:
        (found,) = probe.versions()
        assert list(probe.devices()) == []
    finally:
        probe.stop()
    assert found.level == "error"
    assert "ended with code -6" in found.said


def test_every_extra_for_users_is_known_with_its_purpose() -> None:
    ours = set(metadata("hybrid-zoo").get_all("Provides-Extra") or ())
    assert {name for name, _ in EXTRAS} == ours - {"dev", "docs", "test"}


def test_doctor_itself_imports_no_torch() -> None:
    script = (
        "import sys, zoo.cli.doctor, zoo.cli.doctor.command, zoo.cli.doctor.probe\n"
        "assert not {'torch', 'torchvision', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


# ---- the Hub ----------------------------------------------------------------------------------


def test_a_hub_that_stalls_costs_its_patience_and_no_more() -> None:
    start = time.monotonic()
    with stalling() as address:
        assert hub.head(address, 0.5) == (None, "does not answer within 0.5 seconds")
    assert time.monotonic() - start < 20


def test_a_hub_is_asked_once_by_head_and_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    seen: list[Any] = []
    with answering(200, seen) as address:
        found = hub._answer(address, 10)
    assert (found.level, found.data["status"]) == ("ok", 200)
    ((method, headers),) = seen
    assert method == "HEAD"
    assert SECRET not in str(headers)


def test_a_hub_that_fails_or_refuses_the_connection_is_a_warning() -> None:
    with answering(503, []) as address:
        found = hub._answer(address, 10)
    assert found.level == "warning"
    assert "fails (HTTP 503)" in found.said
    gone = hub._answer(address, 10)  # nobody listens there any more
    assert gone.level == "warning"
    assert "cannot be reached" in gone.said


# ---- folders and runs ---------------------------------------------------------------------------


def test_where_nothing_can_be_written_is_said_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert unwritable(tmp_path / "not" / "yet" / "there") == ""
    assert unwritable(tmp_path / "file" / "below") == f"{tmp_path / 'file'} is a file"
    assert "is a broken link" in unwritable(tmp_path / "link")
    assert "is not writable" in unwritable(Path("/proc/zoo"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]


def test_the_doctor_tries_the_writes_that_a_training_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    runs = tmp_path / "runs"
    runs.mkdir()
    assert [finding.level for finding in parts.runs(runs)] == ["ok"]
    assert unmappable(tmp_path) == ""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        finding, *_ = parts.runs(runs)
        assert (finding.level, "cannot be locked" in finding.said) == ("error", True)
        assert "ZOO_LOCKS=files" in finding.fix
        patch.setenv("ZOO_LOCKS", "files")
        assert next(parts.runs(runs)).level == "ok"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        assert "is not writable (Function not implemented)" in unwritable(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(folders.mmap, "mmap", refuse)
        assert "cannot be mapped into memory (Function not implemented)" in unmappable(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def test_sizes_are_counted_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * 1000)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert measure(tmp_path / "a") == (1000, True)
    assert measure(tmp_path)[0] < 2000


@pytest.mark.parametrize(("free", "level"), [(1e8, "error"), (1e9, "warning"), (1e11, "ok")])
def test_a_disk_that_is_nearly_full_stops_work(free: float, level: str) -> None:
    found = disk("cache", int(free))
    assert found.level == level
    assert bool(found.fix) == (level != "ok")


def test_truncated_weights_of_a_run_are_found(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    assert damage_of_weights(tmp_path) == ""  # no epoch was finished yet
    save_file({"a": np.ones(100, np.float32)}, weights)
    assert damage_of_weights(tmp_path) == ""
    weights.write_bytes(weights.read_bytes()[:-100])
    assert damage_of_weights(tmp_path).startswith(f"{weights}: damaged: ")
    weights.unlink()
    (tmp_path / "result.json").write_text("{}")
    assert damage_of_weights(tmp_path) == f"{tmp_path}: finished, and has no model.safetensors"


def test_a_look_that_fails_is_a_finding_and_the_others_go_on() -> None:
    def look() -> Any:
        raise ValueError("what nobody thought of")

    (found,) = _guarded("data", look)
    assert found.level == "warning"
    assert "ValueError: what nobody thought of" in found.said
