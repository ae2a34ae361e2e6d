"""Columns: what a source knows of each image besides its label stays with it through cache, choice and alteration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.cache import cached, fingerprint
from zoo.data.files.decode import Rule
from zoo.data.sources.altered_images import Altered
from zoo.data.sources.source import Opened, item_rows
from zoo.data.types import GROUP, VALIDATES, WEIGHT, Columns


@dataclass(frozen=True)
class Listed:
    """A source whose training images have columns."""

    folder: Path
    columns: Columns

    def identity(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}

    def open(self) -> Opened:
        files = sorted(self.folder.glob("*.png"))
        rows = item_rows(files, [0, 1] * (len(files) // 2), lambda i: str(files[i]))
        return Opened(replace(rows, columns=self.columns), rows, ("a", "b"))


def images(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (4, 4), (i * 20, 0, 0)).save(folder / f"{i}.png")
    return folder


def columns(count: int = 6) -> Columns:
    return {
        VALIDATES: np.arange(count) % 3 == 0,
        GROUP: np.arange(count) // 2,
        WEIGHT: np.linspace(0.5, 1.5, count, dtype=np.float32),
    }


def silent(*_: object) -> None:
    pass


def test_columns_are_kept_with_the_decoded_images_and_follow_the_readable_ones(tmp_path):
    folder, wanted = images(tmp_path / "set"), columns()
    (folder / "2.png").write_bytes(b"no image")
    for _ in ("decoded", "opened again"):
        data = cached(Listed(folder, wanted), Rule(), silent, name="set", skip_bad=True)
        kept = [0, 1, 3, 4, 5]
        for name, values in wanted.items():
            assert data.train.columns[name].dtype == values.dtype
            np.testing.assert_array_equal(data.train.columns[name], values[kept])
        assert not data.test.columns
        assert data.skipped == 2


def test_chosen_and_altered_images_keep_their_columns(tmp_path):
    data = cached(Listed(images(tmp_path / "set"), columns()), Rule(), silent, name="set")
    np.testing.assert_array_equal(data.train.select(np.array([5, 1])).columns[GROUP], [2, 0])
    two = Altered(data.key, data.fingerprint, data.train, data.test, ("a", "b"), ("original", "flip"), ("original",))
    np.testing.assert_array_equal(two.open().train.columns[GROUP], [0, 0, 1, 1, 2, 2] * 2)


def test_the_fingerprint_says_when_a_column_changes(tmp_path):
    data = cached(Listed(images(tmp_path / "set"), columns()), Rule(), silent, name="set")
    bare = replace(data.train, columns={})
    other = replace(data.train, columns={**data.train.columns, GROUP: data.train.columns[GROUP] + 1})
    prints = {fingerprint(split, data.test, ("a", "b")) for split in (data.train, bare, other)}
    assert len(prints) == 3
