"""The code on a card, run as it stands: it gives the accuracy that the card states."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server.runs import own_caches
from PIL import Image

from zoo.catalogue.registry import load_registry
from zoo.hub.pack import package
from zoo.runs.folder import read_result
from zoo.runs.images import split_of
from zoo.runs.record import read_record
from zoo.train.plan import resolve
from zoo.train.run_options import Request
from zoo.train.runner import Watch, train_in

FEW = {"dataset": "digits", "device": "cpu", "epochs": 2, "limit_train": 800, "limit_test": 200}


class Made:
    """A package of a trained run, its test images as files, and their labels."""

    def __init__(self, folder: Path, model: str, *settings: str) -> None:
        with own_caches(folder):
            train_in(folder / "run", resolve(Request(model=model, settings=settings, **FEW)), Watch())
            self.folder = package(folder / "run", folder / "package").folder
            test = split_of(read_record(folder / "run"), "test", load_registry())
        self.labels = test.labels.tolist()
        self.files = [str(folder / f"{number}.png") for number in range(len(test))]
        for file, pixels in zip(self.files, test.images, strict=True):
            Image.fromarray(pixels.transpose(1, 2, 0)).save(file)
        self.card = (self.folder / "README.md").read_text("utf-8")
        self.correct = read_result(self.folder)["test"]["correct"]

    def run(self, block: int) -> dict[str, Any]:
        """What a block of the card's Python leaves, run on the test images in place of its one image."""
        code = re.findall(r"^```python\n(.*?)^```", self.card, re.MULTILINE | re.DOTALL)[block]
        for stands, here in (
            ("hf://OWNER/NAME", str(self.folder)),
            ("hf-hub:OWNER/NAME", f"local-dir:{self.folder}"),
            ('["image.png"]', repr(self.files)),
        ):
            code = code.replace(stands, here)
        left: dict[str, Any] = {}
        exec(compile(code, "README.md", "exec"), left)
        return left

    def hits(self, logits: Any) -> int:
        return sum(int(row == label) for row, label in zip(logits.argmax(1), self.labels, strict=True))


def statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    data = read_record(folder).data
    return data.mean, data.std


@pytest.mark.parametrize("normalize", [True, False])
def test_the_code_on_the_card_gives_the_recorded_accuracy(normalize: bool, tmp_path: Path) -> None:
    made = Made(tmp_path, "timm/resnet10t", f"normalize={str(normalize).lower()}")
    ours, timms = made.run(0), made.run(1)
    assert made.hits(ours["logits"]) == made.hits(timms["logits"]) == made.correct
    names = [scores[0].name for scores in ours["scores"]]
    assert sum(name == str(label) for name, label in zip(names, made.labels, strict=True)) == made.correct
    words = "(x / 255 - mean) / std, with mean" if normalize else "x / 255, from 0 to 1; they are not normalised"
    assert words in made.card
    mean, std = (torch.tensor(row).view(-1, 1, 1) for row in statistics(made.folder))
    other = ours["images"] * std + mean if normalize else (ours["images"] - mean) / std
    assert made.hits(ours["model"](other)) != made.correct  # the test would see the other one
