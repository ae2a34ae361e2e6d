"""Images with several labels for tests: coloured squares, each class a colour, in the places of a grid."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0), "white": (255, 255, 255)}
SIDE = 16


def squares(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (N, 16, 16, 3) and the sets of their colours, uint8 (N, 4); some show none."""
    draw = np.random.default_rng(seed)
    labels = (draw.random((count, len(COLOURS))) < (0.5, 0.4, 0.3, 0.15)).astype(np.uint8)
    images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    for image, row in zip(images, labels, strict=True):
        places = draw.permutation(4)
        for place, colour in zip(places, np.flatnonzero(row), strict=False):
            top, left = 8 * (place // 2), 8 * (place % 2)
            image[top : top + 8, left : left + 8] = tuple(COLOURS.values())[colour]
        image += draw.integers(0, 40, image.shape, dtype=np.uint8) * (image < 200)
    return images, labels


def png(image: np.ndarray) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder: Path, train: int = 160, test: int = 60) -> Path:
    """A folder of parquet files with the labels three times: as names, as numbers, and as columns of 0 and 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (side, count) in enumerate((("train", train), ("test", test))):
        images, labels = squares(count, seed)
        names = list(COLOURS)
        table = {
            "image": [{"bytes": png(image), "path": None} for image in images],
            "names": [[names[k] for k in np.flatnonzero(row)] for row in labels],
            "numbers": [np.flatnonzero(row).tolist() for row in labels],
            **{name: labels[:, k].tolist() for k, name in enumerate(names)},
        }
        pq.write_table(pa.table(table), folder / f"{side}-00000.parquet")
    return folder


def write_folders(root: Path, count: int = 40) -> tuple[Path, np.ndarray]:
    """Class folders in which an image lies once for each of its labels; those with none are left out."""
    images, labels = squares(count, 7)
    shown = labels.any(1)
    for row in np.flatnonzero(shown):
        for name, has in zip(COLOURS, labels[row], strict=True):
            if has:
                (root / name).mkdir(parents=True, exist_ok=True)
                (root / name / f"{row:03}.png").write_bytes(png(images[row]))
    return root, labels[shown]
