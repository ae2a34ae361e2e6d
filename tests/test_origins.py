"""Each image knows the file, or the row of a file, that it came from, whatever was left out or chosen before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_data_sources import pixels, png, write_folder

from zoo.base.paths import cache_dir
from zoo.data.batches.mode import Delivery
from zoo.data.load import load
from zoo.data.split import Split, limit, validation_split
from zoo.evaluate.one_pass import Predictions
from zoo.evaluate.predictions import write_predictions

MODES = [Delivery("resident"), Delivery("stream", 0)]


def damaged_folder(folder: Path) -> Path:
    for side in ("train", "test"):
        write_folder(folder / side, {"a": 12, "b": 12})
        for name in ("a/000.png", "b/007.png"):
            (folder / side / name).write_bytes(b"x")
    return folder


def same_as_files(split: Split) -> bool:
    """Whether each image is the one of the file that is named."""
    named = [np.asarray(Image.open(path)).transpose(2, 0, 1) for path in split.origins()]
    return len(named) == len(split) and np.array_equal(np.stack(named), np.asarray(split.images[:]))


@pytest.mark.parametrize("delivery", MODES, ids=["resident", "stream"])
def test_files_are_named_rightly_where_damaged_ones_are_left_out(delivery: Delivery, tmp_path: Path) -> None:
    damaged_folder(tmp_path)
    for _ in ("decoded", "from the cache"):
        data = load(f"folder:{tmp_path}", skip_bad=True, delivery=delivery)
        assert data.skipped == 4
        assert same_as_files(data.train)
        for rows in validation_split(data.train.labels, 0.2, 0):
            assert same_as_files(data.train.select(rows))
        assert same_as_files(limit(data.test, 7))


def test_rows_of_parquet_files_keep_their_numbers(tmp_path: Path) -> None:
    images = [png(p) for p in pixels(6)]
    table = pa.table({"image": [b"x", *images[1:4], b"x", images[5]], "label": [0, 1, 0, 1, 0, 1]})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    data = load(f"parquet:{tmp_path}", skip_bad=True)
    wanted = [f"{tmp_path / 'test.parquet'} row {row}" for row in (1, 2, 3, 5)]
    assert data.test.origins() == wanted
    flipped = load(f"parquet:{tmp_path}?alter_test=original,flip", skip_bad=True)
    assert flipped.test.origins()[:5] == [*(f"{name} (original)" for name in wanted), f"{wanted[0]} (flip)"]


def test_an_entry_of_an_earlier_version_names_rows_or_is_made_again(tmp_path: Path) -> None:
    def forget() -> None:
        for path in cache_dir().rglob("*-origins.txt"):
            path.unlink()

    load("sklearn:digits")
    forget()
    assert load("sklearn:digits").test.origins()[:2] == ["image 0", "image 1"]
    damaged_folder(tmp_path)
    load(f"folder:{tmp_path}", skip_bad=True)
    forget()
    assert same_as_files(load(f"folder:{tmp_path}", skip_bad=True).train)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_predictions_name_where_each_image_came_from(kind: str, tmp_path: Path) -> None:
    predictions = Predictions(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.eye(2))
    names = ["/x/a,b\n.png", os.fsdecode(b"/x/caf\xe9.png")]
    write_predictions(tmp_path / f"p.{kind}", predictions, ("a", "b"), kind, names)  # type: ignore[arg-type]
    if kind == "parquet":
        table = pq.read_table(tmp_path / "p.parquet")
    else:
        several_lines = pc.ParseOptions(newlines_in_values=True)
        table = pc.read_csv(tmp_path / "p.csv", parse_options=several_lines)
    assert table.column_names[:3] == ["row", "source", "label"]
    assert table["source"].to_pylist() == ["/x/a,b\n.png", "/x/caf\\xe9.png"]
