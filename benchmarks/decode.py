"""CPU time of one random crop from a JPEG file: decoded whole, without the rows below it, and at a reduced size.

    python benchmarks/decode.py --json results/decode.json

In a process without torch, as a data worker is: read from memory, decode, cut by RandomResizedCrop, scale to 224x224.
Each way has a process of its own and takes all images `--rounds` times; the fastest time of each counts, and CPU time,
so that other processes of the machine matter little. `memory kept` is `zoo.base.heap.keep_heap`, which data workers
call. The differences are between the reduced crop and the one that is decoded whole, in levels of 255.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import facts, lines, say, write
from PIL import Image

from zoo.base.heap import keep_heap
from zoo.data.augment.crop import Bounds, RandomCut
from zoo.data.files.decode import image_array
from zoo.data.files.orientation import upright

SIZES = ((500, 375, 60), (2000, 1500, 12), (4000, 3000, 4))
"""Width, height, and how many images."""

WAYS = ("whole", "whole, memory kept", "rows, memory kept", "reduced, memory kept")
TARGET = (224, 224)


def write_images(folder: Path, width: int, height: int, count: int) -> None:
    """Photographs of nothing, as those of `streaming.py`."""
    noise = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(noise.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(smooth + noise.normal(0, 14, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.jpg", quality=90)


def cut_of(way: str, data: bytes, row: int) -> np.ndarray:
    """One crop, uint8 (3, H, W)."""
    cut = RandomCut(9, row, Bounds(reduced=way.startswith("reduced")), TARGET)
    if not way.startswith("whole"):
        return image_array(data, cut, "")
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(cut.apply(upright(image))).transpose(2, 0, 1)


def measure(folder: Path, way: str, rounds: int) -> None:
    """Print milliseconds for one image, in this process."""
    if way.endswith("kept"):
        keep_heap()
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    times = np.empty((rounds, len(files)))
    for turn in range(rounds):
        for row, data in enumerate(files):
            begin = time.process_time_ns()
            cut_of(way, data, row)
            times[turn, row] = time.process_time_ns() - begin
    print(json.dumps(float(times.min(0).mean()) / 1e6))


def differences(folder: Path) -> dict[str, float]:
    """Of the reduced crops to the whole ones: the mean absolute one, the largest, and whether the rows are exact."""
    mean, largest = [], 0
    for row, data in enumerate(path.read_bytes() for path in sorted(folder.iterdir())):
        whole, rows, reduced = (cut_of(way, data, row).astype(int) for way in ("whole", "rows", "reduced"))
        assert np.array_equal(whole, rows)
        difference = np.abs(whole - reduced)
        mean.append(difference.mean())
        largest = max(largest, int(difference.max()))
    return {"mean": float(np.mean(mean)), "largest": largest}


def row_of(folder: Path, rounds: int, *sizes: int) -> dict[str, Any]:
    """All ways for images of one size."""
    width, height, count = sizes
    write_images(folder, width, height, count)
    found = {}
    for way in WAYS:
        words = [sys.executable, __file__, "--folder", str(folder), "--way", way, "--rounds", str(rounds)]
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, env={**os.environ, "ZOO_KEEP_HEAP": "1"}
        )
        found[way] = json.loads(done.stdout)
        say(f"{width}x{height}, {way}: {found[way]:.2f} ms")
    return {"width": width, "height": height, "images": count, "milliseconds": found, **differences(folder)}


def main() -> None:
    """Write the images, measure, print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--json", type=Path)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.way:
        measure(asked.folder, asked.way, asked.rounds)
        return
    record, rows = facts(), []
    for size in SIZES:
        with tempfile.TemporaryDirectory(prefix="decode-") as scratch:
            rows.append(row_of(Path(scratch), asked.rounds, *size))
    write(asked.json, {**record, "device": "cpu", "target": TARGET, "sizes": rows})
    cells = [
        [
            f"{row['width']}x{row['height']}",
            *(f"{row['milliseconds'][way]:.1f}" for way in WAYS),
            f"{row['mean']:.2f}",
            row["largest"],
        ]
        for row in rows
    ]
    print("\n".join(lines(("size", *WAYS, "mean difference", "largest"), cells, markdown=True, left=1)))


if __name__ == "__main__":
    main()
