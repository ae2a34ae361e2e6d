"""What a Hub with one worker shows: dry runs, cards, refusals, pull requests, tags, and the layout of timm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hub_server import Fault, HubServer
from hub_server.runs import made_package, own_caches, untrained_run
from hub_server.store import File
from hub_server.worker import Worker
from PIL import Image
from timm.data import create_transform, resolve_data_config

import zoo
from zoo.hub.pack import package as pack

REPO = "me/digits"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_package(tmp_path_factory.mktemp("small"))


class Shared(NamedTuple):
    """A Hub, and a process with the token `hf_write` that several tests use."""

    hub: HubServer
    worker: Worker


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with HubServer() as server, Worker(server, tmp_path_factory.mktemp("shared"), token="hf_write") as worker:
        yield Shared(server, worker)


@pytest.fixture
def hub(shared: Shared) -> HubServer:
    shared.hub.store.users.clear()
    shared.hub.store.users["hf_write"] = ("me", "write")
    shared.hub.store.repos.clear()
    shared.hub.log.clear()
    shared.worker.forget()
    return shared.hub


@pytest.fixture
def worker(shared: Shared) -> Worker:
    return shared.worker


def test_a_dry_run_shows_files_sizes_and_card_and_sends_nothing(
    hub: HubServer, small: Path, worker: Worker, tmp_path: Path
) -> None:
    out, err = worker.good("publish", small, REPO, "--dry-run")
    assert "model.safetensors" in out
    assert "# hybrid-alt-1 on sklearn:digits" in out
    assert "nothing was sent" in err
    assert [r for r in hub.log if r.kind != "harnesses"] == []


def test_an_edited_card_is_pulled_and_verified_and_not_replaced_in_silence(
    hub: HubServer, worker: Worker, small: Path, tmp_path: Path
) -> None:
    worker.good("publish", small, REPO)
    repo = hub.store.repos[REPO]
    files = {name: file.data for name, file in repo.head().files.items() if file.data is not None}
    edited = (files["README.md"] or b"").replace(b"Test top-1", b"Its test top-1")
    hub.store.put(REPO, {"README.md": edited})
    _, err = worker.good("pull", REPO, "--output", tmp_path / "here")
    assert "README.md was edited" in err
    worker.good("eval", f"hf://{REPO}")
    out, _ = worker.good("verify", f"hf://{REPO}")
    assert "edited later: README.md" in out
    head = repo.head().oid
    refused = worker("publish", small, REPO)
    assert refused.code == 16
    assert "somebody edited README.md there" in refused.err
    assert "--create-pr" in refused.err
    assert "--replace-edits" in refused.err
    worker.good("publish", small, REPO, "--create-pr")
    assert repo.head().oid == head
    worker.good("publish", tmp_path / "here", REPO)  # it has the edit, so that nothing is replaced
    assert repo.head().files["README.md"].data == edited
    hub.store.put(REPO, {"README.md": edited + b"by hand"})
    worker.good("publish", small, REPO, "--replace-edits")
    assert repo.head().files["README.md"].data == files["README.md"]


@pytest.mark.parametrize(("card", "code"), [(b"---\nlicense: mit\n---\n", 0), (b"# Mine\n", 16)])
def test_a_card_that_was_there_before_is_not_replaced_in_silence(
    card: bytes, code: int, hub: HubServer, worker: Worker, small: Path
) -> None:
    hub.store.put(REPO, {"README.md": card})
    assert worker("publish", small, REPO).code == code


def test_sigterm_leaves_no_repository_and_no_temporary_file(
    hub: HubServer, worker: Worker, small: Path, tmp_path: Path
) -> None:
    hub.faults.append(Fault("commit", "stall"))
    env = {**os.environ, **hub.env(tmp_path / "hf", "hf_write"), "HF_HUB_DISABLE_XET": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "zoo", "publish", str(small), "me/new"]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not any(r.kind == "commit" for r in hub.log) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "me/new" in hub.store.repos
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    hub.faults.clear()
    assert process.returncode == 143, said
    assert "me/new" not in hub.store.repos
    assert not list(tmp_path.glob("zoo-publish-*"))


def test_a_pull_request_and_a_branch(hub: HubServer, worker: Worker, small: Path) -> None:
    hub.store.put("me/theirs", {"a.txt": b"a"})
    worker.good("publish", small, "me/theirs", "--revision", "trial")
    out, _ = worker.good("publish", small, "me/theirs", "--create-pr")
    repo = hub.store.repos["me/theirs"]
    assert "SHA256SUMS" not in repo.head("main").files
    assert "SHA256SUMS" in repo.head("trial").files
    assert "SHA256SUMS" in repo.head("refs/pr/1").files
    assert "/discussions/1" in out


@pytest.mark.parametrize(
    ("user", "repo", "code"),
    [
        (None, REPO, 12),
        (("me", "read"), REPO, 13),
        (("you", "write"), REPO, 13),
        (("you", "write"), "me/gated", 15),
        (("you", "write"), "me/private", 13),
    ],
)
def test_each_refusal_has_its_own_exit_code(
    user: tuple[str, str] | None, repo: str, code: int, hub: HubServer, small: Path, worker: Worker
) -> None:
    hub.store.users.clear()
    if user:
        hub.store.users["hf_write"] = user
    hub.store.create("me/gated").gated = True
    hub.store.create("me/private", private=True)
    done = worker("publish", small, repo)
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) == 1
    assert REPO not in hub.store.repos


def test_without_a_token_nothing_is_asked(hub: HubServer, small: Path, tmp_path: Path) -> None:
    with Worker(hub, tmp_path) as anonymous:
        done = anonymous("publish", small, REPO)
    assert done.code == 12
    assert "hf auth login" in done.err
    assert {r.kind for r in hub.log} <= {"harnesses"}


def test_only_the_names_of_a_package_are_fetched(hub: HubServer, small: Path, worker: Worker, tmp_path: Path) -> None:
    names = (
        "../../outside.txt",
        "/etc/passwd",
        "a/../../b",
        "model.bin",
        "code.py",
        "C:\\x",
        "config.json\0.py",
        "x" * 300,
    )
    files = {p.name: p.read_bytes() for p in small.iterdir()}
    hub.store.put(REPO, {**files, **dict.fromkeys(names, b"hostile")})
    worker.good("pull", REPO, "--output", tmp_path / "here")
    assert {p.name for p in (tmp_path / "here").iterdir()} == set(files)
    asked = {r.path.rsplit("/", 1)[1] for r in hub.log if r.kind.startswith("resolve")}
    assert asked == set(files)


def test_a_file_that_claims_to_be_too_large_is_not_fetched(
    hub: HubServer, small: Path, worker: Worker, tmp_path: Path
) -> None:
    commit = hub.store.put(REPO, {p.name: p.read_bytes() for p in small.iterdir()})
    weights = commit.files["model.safetensors"]
    commit.files["model.safetensors"] = File.lfs(weights.sha256 or "", 60 << 30)
    done = worker("pull", REPO)
    assert done.code == 3
    assert "its model takes at most" in done.err
    assert not [r for r in hub.log if (weights.sha256 or "?") in r.path]


def test_a_main_that_moves_meanwhile_does_not_mix_two_commits(
    hub: HubServer, worker: Worker, small: Path, tmp_path: Path
) -> None:
    first = hub.store.put(REPO, {p.name: p.read_bytes() for p in small.iterdir()})
    hub.faults.append(Fault("resolve-head", "moved", times=1))
    worker.good("pull", REPO, "--output", tmp_path / "here")
    hub.faults.clear()
    assert hub.store.repos[REPO].head() != first
    asked = [r.path for r in hub.log if r.kind.startswith("resolve")]
    assert all(f"/resolve/{first.oid}/" in path for path in asked)
    assert all((tmp_path / "here" / p.name).read_bytes() == p.read_bytes() for p in small.iterdir())


def test_a_tag_is_pulled_and_an_absent_one_is_named(
    hub: HubServer, worker: Worker, small: Path, tmp_path: Path
) -> None:
    worker.good("publish", small, REPO)
    (tag,) = hub.store.repos[REPO].tags
    hub.store.put(REPO, {"config.json": b"{}"})
    worker.good("pull", f"{REPO}@{tag}", "--output", tmp_path / "here")
    absent = worker("pull", f"{REPO}@no-such-tag")
    assert absent.code == 14
    assert "no such revision" in absent.err


def test_something_that_is_no_package_says_so(hub: HubServer, worker: Worker) -> None:
    hub.store.put("me/other", {"README.md": b"hi"})
    done = worker("pull", "me/other")
    assert done.code == 3
    assert "not a package of hybrid-zoo" in done.err


@pytest.mark.parametrize(
    "model",
    [
        "timm/resnet18",
        pytest.param("timm/vit_tiny_patch16_224", marks=pytest.mark.slow),
        pytest.param("torchvision/resnet18", marks=pytest.mark.slow),
    ],
)
def test_the_real_timm_loads_the_package(model: str, hub: HubServer, tmp_path: Path) -> None:
    with own_caches(tmp_path):
        size = 224 if "224" in model else 32
        source = untrained_run(tmp_path / "run", model, size=size, limit_train=20, limit_test=20)
        made = pack(source, tmp_path / "package").folder
    hub.store.put(REPO, {p.name: p.read_bytes() for p in made.iterdir()})
    code = (
        "import sys, timm, torch, zoo\n"
        "theirs = timm.create_model('hf-hub:me/digits', pretrained=True).eval()\n"
        "ours = zoo.load('hf://me/digits')\n"
        "x = torch.randn(2, 3, int(sys.argv[1]), int(sys.argv[1]))\n"
        "assert torch.equal(theirs(x), ours(x))\n"
        "assert theirs.pretrained_cfg['label_names'][3] == '3', theirs.pretrained_cfg\n"
    )
    env = {**os.environ, **hub.env(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "ZOO_CACHE_DIR": str(tmp_path / "c")}
    command = [sys.executable, "-c", code, str(size)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("spec", ["sklearn:digits", "sklearn:digits?resize=40&crop=32"])
def test_timm_prepares_an_image_for_a_package_as_we_do(spec: str, tmp_path: Path) -> None:
    with own_caches(tmp_path):
        size = None if "crop" in spec else 32
        source = untrained_run(tmp_path / "run", "timm/resnet18", spec, size=size, limit_train=20, limit_test=20)
        made = pack(source, tmp_path / "package", predictions=False).folder
        classifier = zoo.load(made)
    config = json.loads((made / "config.json").read_text())["pretrained_cfg"]
    theirs = create_transform(**resolve_data_config(pretrained_cfg=config))
    wide = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    ours = classifier.prepare(classifier.decode(tmp_path / "wide.png", "wide.png")[None])[0]
    torch.testing.assert_close(theirs(Image.fromarray(wide)), ours, rtol=0, atol=1e-5)


def test_a_torchvision_model_that_timm_does_not_know_has_no_layout_of_timm(tmp_path: Path) -> None:
    with own_caches(tmp_path):
        source = untrained_run(
            tmp_path / "run", "torchvision/mobilenet_v3_small", size=32, limit_train=20, limit_test=20
        )
        made = pack(source, tmp_path / "package", predictions=False).folder
    assert set(json.loads((made / "config.json").read_text())) == {"zoo"}
