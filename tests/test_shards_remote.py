"""`hf:OWNER/NAME?stream` against the test Hub: the images of the downloaded files, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer
from hub_server.here import led_here
from image_folders import same, write_images
from shard_files import write_parquet

from zoo.data.batches.mode import Delivery
from zoo.data.batches.open import open_source
from zoo.data.batches.sampler import split_order
from zoo.data.load import load

REPO = "datasets/me/blobs"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hub")
    for split, each in (("train", 40), ("test", 10)):
        write_images(home / "folder" / split, 3, each, side=96)
        write_parquet(home / "folder" / split, home / "files/data", split, 2)
    return home


@pytest.fixture
def hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that has the dataset; nothing is in any cache."""
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    with HubServer() as hub, led_here(hub, tmp_path / "hf", "hf_token"):
        hub.store.users["hf_token"] = ("me", "write")
        files = sorted((home / "files").rglob("*.parquet"))
        hub.store.put(REPO, {path.relative_to(home / "files").as_posix(): path.read_bytes() for path in files})
        yield hub


def test_a_dataset_of_the_hub_is_streamed_from_the_pinned_commit(hub: HubServer, home: Path, tmp_path: Path) -> None:
    delivery = Delivery("auto", 0)
    local = load(f"parquet:{home / 'files'}?stream&buffer=30", delivery=delivery)
    data = load("hf:me/blobs?stream&buffer=30", delivery=delivery)
    assert data.train.origins()[-1] == "hf:me/blobs/data/train-00001-of-00002.parquet row 59"
    assert data.fingerprint == local.fingerprint
    assert np.array_equal(data.test.images[:], local.test.images[:])
    assert not list(tmp_path.rglob("*.parquet"))  # nothing was downloaded whole
    order = split_order("shuffled", 1, 1, data.train).view(-1, 20)
    hub.store.put(REPO, {"data/train-00000-of-00002.parquet": b"another commit"})
    assert same(list(open_source(data.train).steps(order)), list(open_source(local.train).steps(order)))
    asked = [request for request in hub.log if request.path.startswith("/cdn/")]
    assert all(dict(request.headers).get("range") for request in asked)


def test_what_a_dataset_says_of_itself_is_asked_once(hub: HubServer) -> None:
    first = load("hf:me/blobs?stream", delivery=Delivery("auto", 0))
    before = len([request for request in hub.log if request.path.startswith("/cdn/")])
    second = load("hf:me/blobs?stream", delivery=Delivery("auto", 0))
    after = len([request for request in hub.log if request.path.startswith("/cdn/")])
    assert first.fingerprint == second.fingerprint
    assert after - before <= 1 < before  # the first image, which tells the size
