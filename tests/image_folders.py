"""Folders of small images for tests, and the batches that they give."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from zoo.data.batches.mode import Delivery
from zoo.data.batches.open import BatchSource
from zoo.data.batches.resident import order
from zoo.data.load import load
from zoo.data.split import ImageData

SIDE = 12


def write_images(root: Path, classes: int, each: int, side: int = SIDE, seed: int = 0) -> None:
    """`root`/cNN/*.jpg, each of one colour with noise; all times lie an hour back."""
    noise = np.random.default_rng(seed)
    for label in range(classes):
        folder = root / f"c{label:02}"
        folder.mkdir(parents=True)
        colour = np.array([label * 20, 250 - label * 20, 128])
        for number in range(each):
            pixels = np.clip(colour + noise.integers(-30, 30, (side, side, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=90)
    settle(root)


def settle(root: Path) -> None:
    """Give every folder a time that is long past, so that an index of it is kept."""
    for folder in [root, *(p for p in root.rglob("*") if p.is_dir())]:
        os.utime(folder, (time.time() - 3600,) * 2)


def streamed(root: Path, workers: int = 0, **more: Any) -> ImageData:
    return load(f"folder:{root}", delivery=Delivery("stream", workers), **more)


def drawn(source: BatchSource, *, start: int = 0, epoch: int = 3, batch: int = 50) -> list[tuple[Any, ...]]:
    rows = order(7, epoch, len(source))[: len(source) // batch * batch].view(-1, batch)
    return list(source.steps(rows, start, epoch=epoch))


def same(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> bool:
    pairs = [(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)]
    return all(torch.equal(a, b) and a.stride() == b.stride() for a, b in pairs)
