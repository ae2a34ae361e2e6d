"""Colours of curves: told apart by everybody, in pictures and in the report alike."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from zoo.base.drawing import COLOURS
from zoo.studies.figures import Series, draw_table

CSS = Path(__file__).parent.parent / "zoo" / "studies" / "report" / "assets" / "page.css"

SIGHTS = {
    "all colours": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
}
"""Machado, Oliveira and Fernandes (2009): linear RGB as it is seen."""

XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def palettes() -> list[tuple[str, ...]]:
    """Of the report: light, dark, and dark again as the system asks for it."""
    return [tuple(re.findall(r"--c\d: (#\w{6})", line)) for line in CSS.read_text().splitlines() if "--c0:" in line]


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB, white D65."""
    xyz = XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(XYZ[1] @ linear(colour)) + 0.05 for colour in (one, other))
    return high / low


def test_pictures_and_the_report_have_the_same_colours() -> None:
    light, dark, dark_again = palettes()
    assert light == tuple(colour.lower() for colour in COLOURS)
    assert dark == dark_again
    assert len(dark) == len(light)


@pytest.mark.parametrize("sight", SIGHTS)
def test_no_two_colours_look_alike(sight: str) -> None:
    for colours in palettes():
        for one, other in itertools.combinations(colours, 2):
            seen = [lab(SIGHTS[sight] @ linear(colour)) for colour in (one, other)]
            assert np.linalg.norm(seen[0] - seen[1]) > 20, (one, other)


def test_each_colour_stands_out_from_its_ground() -> None:
    for colours, ground in zip(palettes(), ("#ffffff", "#14171b", "#14171b"), strict=True):
        assert min(contrast(colour, ground) for colour in colours) >= 3


def test_models_of_equal_curves_are_one_entry_of_the_legend(tmp_path: Path) -> None:
    rows = [{"epoch": i, "train_loss": 1 / i, "val_loss": 2 / i, "train_top1": 0.5, "val_top1": 0.4} for i in (1, 2)]
    other = [{**row, "val_loss": 3.0} for row in rows]
    later = [{**row, "seconds": 9.0} for row in rows]
    series = [Series("plain", [rows]), Series("other", [other]), Series("dropout", [later])]
    _, svg = draw_table(tmp_path / "figure", "title", series)
    labels = re.findall(r"<!-- (.*?) -->", svg.read_text("utf-8"))
    assert "plain = dropout" in labels
    assert "other" in labels
    assert not {"plain", "dropout"} & set(labels)
