"""What is known of shards before an image is decoded: where images lie, and the order of an epoch."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.data.batches.windows import windows
from zoo.data.shards.packed import part_ends
from zoo.data.shards.shuffle import Shuffle
from zoo.data.shards.tar_index import Fields, TarIndex, read_tar


def of_blocks(counts: list[int]) -> tuple[Any, Any]:
    blocks = np.repeat(np.arange(len(counts)), counts)
    return blocks, np.full(len(blocks), 1000)


@pytest.mark.parametrize("buffer", [1, 30, 10_000])
def test_an_epoch_has_each_image_once_and_windows_of_whole_blocks(buffer: int) -> None:
    blocks, sizes = of_blocks([7, 20, 1, 13, 20, 20, 5, 9])
    shuffle = Shuffle(buffer=buffer)
    found = windows(3, 5, blocks, sizes, shuffle)
    assert sorted(found.order.tolist()) == list(range(len(blocks)))
    assert torch.equal(found.order, windows(3, 5, blocks, sizes, shuffle).order)
    in_order = found.window[found.order.numpy()]
    assert (np.diff(in_order) >= 0).all()  # one window after the other
    assert all(len(set(found.window[blocks == block])) == 1 for block in range(8))  # no block is divided
    counts = np.bincount(in_order)
    assert (counts[:-1] >= buffer).all()
    assert counts.max() < buffer + 20 or buffer > len(blocks)


def test_the_order_differs_by_epoch_and_by_seed_and_mixes_blocks() -> None:
    blocks, sizes = of_blocks([10] * 30)
    orders = [windows(seed, epoch, blocks, sizes, Shuffle(buffer=50)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert not any(torch.equal(a.order, b.order) for a, b in itertools.combinations(orders, 2))
    first = orders[0]
    inside = blocks[first.order.numpy()[:50]]
    assert len(set(inside)) == 5
    assert (np.diff(inside) == 0).mean() < 0.5  # not one block after the other
    assert set(blocks[first.window == 0]) != set(blocks[orders[1].window == 0])


def test_many_bytes_end_a_window_before_it_has_its_images() -> None:
    blocks, sizes = of_blocks([4] * 8)
    found = windows(0, 0, blocks, sizes * 300, Shuffle(buffer=1000, buffer_mb=2))
    assert np.bincount(found.window).tolist() == [8, 8, 8, 8]


def test_parts_of_a_sequence_end_where_blocks_do() -> None:
    blocks, sizes = np.array([0, 0, 1, 1, 1, 4, 4, 2]), np.full(8, 10)
    assert part_ends(blocks, sizes, 30).tolist() == [5, 8]
    assert part_ends(blocks, sizes, 1).tolist() == [2, 5, 7, 8]
    assert part_ends(blocks[:0], sizes[:0]).tolist() == []


def test_a_name_of_a_member_is_as_long_as_pax_allows(tmp_path: Path) -> None:
    image = b"\xff\xd8 the bytes of an image \xff\xd9"
    names = [f"{'deep/' * 40}{'é' * 30}{number}" for number in range(3)]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"train-{form}.tar"
        with tarfile.open(path, "w", format=form) as tar:
            for name, ending in itertools.product(names, ("jpg", "cls")):
                content = image if ending == "jpg" else b"c00"
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        with path.open("rb") as file:
            index: TarIndex = read_tar(file, "x", Fields())
        assert [index.name(row) for row in range(3)] == [f"{name}.jpg" for name in names]
        data = path.read_bytes()
        start, size = int(index.offsets[2]), int(index.sizes[2])
        assert data[start : start + size] == image
