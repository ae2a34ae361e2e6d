"""From a run to the Hub and back, by real processes with caches of their own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hub_server import Fault, HubServer
from hub_server.worker import Worker
from PIL import Image

REPO = "me/digits"


class World(NamedTuple):
    """A Hub, its publisher (with a token) and somebody else (without)."""

    hub: HubServer
    me: Worker
    you: Worker
    folder: Path
    canary: str


@pytest.fixture(scope="module", params=[pytest.param("LFS", marks=pytest.mark.slow), "Xet"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, xet, canary = (tmp_path_factory.mktemp("world"), request.param == "Xet", f"hf_{secrets.token_hex(17)}")
    (folder / "me").mkdir()
    (folder / "you").mkdir()
    with HubServer(xet=xet) as hub:
        hub.store.users[canary] = ("me", "write")
        with Worker(hub, folder / "me", token=canary, xet=xet) as me, Worker(hub, folder / "you", xet=xet) as you:
            yield World(hub, me, you, folder, canary)


def published(world: World) -> str:
    """Train on digits and publish once for each world; the pinned reference."""
    if REPO not in world.hub.store.repos:
        options = ("--dataset", "sklearn:digits", "--epochs", "1", "--limit-train", "200", "--device", "cpu")
        world.me.good("train", "cnn-baseline", *options, "--output", "run", "-q")
        world.me.good("publish", "run", REPO)
    commit = world.hub.store.repos[REPO].head().oid
    return f"hf://{REPO}@{commit}"


def test_train_publish_pull_eval_verify_and_predict_agree(world: World) -> None:
    ref = published(world)
    result = json.loads((world.folder / "me" / "run" / "result.json").read_text())
    out, _ = world.you.good("pull", REPO)
    assert ref.rpartition("@")[2] in out
    out, err = world.you.good("eval", ref, "--json")
    measured = json.loads(out)
    for key in ("top1", "top5", "correct", "count"):
        assert measured[key] == result["test"][key]
    assert "the same as recorded" in err
    out, err = world.you.good("verify", ref)
    assert err.strip() == "verified"
    Image.new("RGB", (8, 8), "white").save(world.folder / "digit.png")
    here, _ = world.me.good("predict", "run", world.folder / "digit.png", "--json")
    there, _ = world.you.good("predict", f"hf://{REPO}", world.folder / "digit.png", "--json")
    assert here == there


def test_one_commit_and_one_tag_and_nothing_else_is_sent(world: World) -> None:
    published(world)
    repo = world.hub.store.repos[REPO]
    assert len(repo.commits) == 2  # the Hub's own first one, and ours
    assert list(repo.tags.values()) == [repo.head().oid]
    names = {"README.md", "SHA256SUMS", "config.json", "confusion.png", "curves.png", "metrics.jsonl"}
    names |= {"composition.png", "model.safetensors", "result.json", "run.toml", ".gitattributes"}
    assert set(repo.head().files) == names
    assert b"hf://me/digits" in (repo.head().files["README.md"].data or b"")


def test_publishing_again_sends_nothing(world: World) -> None:
    published(world)
    head = world.hub.store.repos[REPO].head().oid
    world.hub.store.repos[REPO].tags.clear()
    world.hub.log.clear()
    world.me.good("publish", "run", REPO)
    assert world.hub.store.repos[REPO].head().oid == head
    assert list(world.hub.store.repos[REPO].tags.values()) == [head]
    assert not {"commit", "lfs-put", "xorb-put"} & {r.kind for r in world.hub.log}


def test_search_and_list_show_it_with_its_result(world: World) -> None:
    published(world)
    for words in (("search", "digits"), ("list", "digits", "--hub")):
        out, _ = world.you.good(*words, "--json")
        (row,) = json.loads(out)
        assert row["repo"] == REPO
        assert row["results"][0]["metric"] == "top-1 accuracy"
    out, _ = world.you.good("search", "--tag", "no-such-tag", "--json")
    assert json.loads(out) == []


def test_offline_uses_the_cache_and_says_what_is_not_in_it(world: World) -> None:
    ref = published(world)
    world.you.good("pull", REPO)
    world.hub.log.clear()
    with offline(world) as worker:
        for name in (ref, f"hf://{REPO}"):
            assert worker("eval", name).code == 0
        missing = worker("eval", "hf://me/other")
    assert missing.code == 11
    assert "HF_HUB_OFFLINE" in missing.err
    assert world.hub.log == []


def offline(world: World) -> Worker:
    return OfflineWorker(world.hub, world.folder / "you")


class OfflineWorker(Worker):
    """A process that may make no request."""

    extra = (("HF_HUB_OFFLINE", "1"),)


def test_a_pinned_commit_that_is_here_needs_no_request(world: World) -> None:
    ref = published(world)
    world.you.good("pull", ref.removeprefix("hf://"))
    world.hub.log.clear()
    world.you.good("eval", ref)
    assert world.hub.log == []


def test_a_list_of_files_that_came_damaged_is_noticed_and_not_kept(world: World) -> None:
    ref = published(world)
    world.you.forget()
    world.hub.faults[:] = [Fault("info", "flip", times=1, at=b'"rfilename":"curves.')]
    done = world.you("pull", ref.removeprefix("hf://"))
    world.hub.faults.clear()
    assert done.code == 3
    assert "has no curves.png, which its SHA256SUMS lists" in done.err
    world.you.good("pull", ref.removeprefix("hf://"))


def test_a_damaged_file_in_the_cache_is_fetched_again_once(world: World) -> None:
    ref = published(world)
    world.you.good("pull", REPO)
    commit = ref.rpartition("@")[2]
    blob = world.you.home / "hub" / "models--me--digits" / "snapshots" / commit / "model.safetensors"
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.resolve().write_bytes(bytes(data))
    with offline(world) as worker:
        refused = worker("eval", ref)
    assert refused.code == 3
    assert "damaged in the cache" in refused.err
    _, err = world.you.good("eval", ref)
    assert "fetching it again" in err
    assert "fetching it again" not in world.you.good("eval", ref)[1]


def test_a_repeated_run_gives_the_same_weights(world: World) -> None:
    ref = published(world)
    world.you.good("train", "--from", ref, "--output", "again", "-q")
    first, second = (world.folder / "me" / "run", world.folder / "you" / "again")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_fine_tuned_model_names_its_base_and_can_be_published(world: World) -> None:
    ref = published(world)
    photos = world.folder / "photos"
    for split in ("train", "test"):
        for kind, colour in (("cold", "blue"), ("hot", "red")):
            (photos / split / kind).mkdir(parents=True, exist_ok=True)
            for n in range(6):
                Image.new("RGB", (8, 8), colour).save(photos / split / kind / f"{n}.png")
    spec, options = f"folder:{photos}", ("--epochs", "1", "--output", "tuned")
    _, err = world.me.good("train", "--from", f"hf://{REPO}", "--dataset", spec, *options)
    assert "tensors from" in err
    assert f'base_model = "{ref}"' in (world.folder / "me" / "tuned" / "run.toml").read_text()
    world.me.good("publish", "tuned", "me/tuned", "--private")
    assert world.hub.store.repos["me/tuned"].private
    card = (world.hub.store.repos["me/tuned"].head().files["README.md"].data or b"").decode()
    assert f"base_model: {REPO}" in card
    for name, file in world.hub.store.repos["me/tuned"].head().files.items():
        assert str(world.folder).encode() not in (file.data or b""), name
    refused = world.me("verify", "hf://me/tuned")
    assert refused.code == 2
    assert "--dataset" in refused.err
    _, err = world.me.good("verify", "hf://me/tuned", "--dataset", spec)
    assert "verified" in err
    assert world.you("pull", "me/tuned").code == 14


def test_the_token_is_nowhere(world: World) -> None:
    published(world)
    for request in world.hub.log:
        assert world.canary.encode() not in request.body
        assert world.canary not in request.path
    for path in world.folder.rglob("*"):
        if path.is_file():
            assert world.canary.encode() not in path.read_bytes(), path
    shown = world.me("--debug", "publish", "run", "nobody/at-all")
    assert shown.code == 13
    assert world.canary not in shown.out + shown.err
