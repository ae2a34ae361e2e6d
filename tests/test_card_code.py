"""The code on a card, run as it stands: it gives the accuracy that the card states, for every kind of recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hub_server.runs import own_caches
from image_folders import settle
from PIL import ExifTags, Image
from sklearn.datasets import load_digits

from zoo.catalogue.registry import load_registry
from zoo.hub.pack import package
from zoo.models.flops import flops
from zoo.runs.folder import read_result
from zoo.runs.images import split_of
from zoo.runs.record import read_record
from zoo.train.plan import resolve
from zoo.train.run_options import Request
from zoo.train.runner import Watch, train_in

FEW = {"dataset": "digits", "device": "cpu", "epochs": 2, "limit_train": 800, "limit_test": 200}


class Made:
    """A package of a trained run, its test images as files, and their labels."""

    def __init__(self, folder: Path, model: str, *settings: str, precision: Any = None, **asked: Any) -> None:
        self.given = asked.pop("files", None)
        with own_caches(folder):
            plan = resolve(Request(model=model, settings=settings, **{**FEW, **asked}))
            train_in(folder / "run", plan, Watch())
            self.folder = package(folder / "run", folder / "package", precision=precision).folder
            test = split_of(read_record(folder / "run"), "test", load_registry())
        self.labels = test.labels.tolist()
        self.files = self.given or [str(folder / f"{number}.png") for number in range(len(test))]
        for file, pixels in zip(self.files, test.images, strict=True) if not self.given else ():
            colours = Image.fromarray(pixels.transpose(1, 2, 0))
            (colours.convert("L") if (pixels == pixels[:1]).all() else colours).save(file)
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

    def named(self, scores: Any) -> int:
        """How many images have their own class first, by its name."""
        classes = read_record(self.folder).data.classes
        return sum(row[0].name == classes[label] for row, label in zip(scores, self.labels, strict=True))

    @property
    def table(self) -> dict[str, str]:
        """What the card says that the model takes, by the first column."""
        rows = self.card.split("| the model takes | |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
        return dict(row.strip("| ").replace("`", "").split(" | ", 1) for row in rows)

    def by_hand(self, file: str) -> torch.Tensor:
        """One image prepared by what the card's table says, with nothing of ours."""
        table, image = self.table, Image.open(file).convert("RGB")
        if whole := re.fullmatch(r"the whole image is scaled to (\d+)x(\d+), bilinear", table["size"]):
            height, width = map(int, whole.groups())
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        else:
            cut = re.fullmatch(r"the shorter side to (\d+), bilinear, then a centred square of (\d+)", table["size"])
            assert cut is not None
            resize, crop = map(int, cut.groups())
            share = resize / min(image.size)
            image = image.resize([round(side * share) for side in image.size], Image.Resampling.BILINEAR)
            left, top = ((side - crop) // 2 for side in image.size)
            image = image.crop((left, top, left + crop, top + crop))
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        if table["values"] != "(x / 255 - mean) / std":
            assert table["values"] == "x / 255, from 0 to 1; not normalised: no mean, no std"
            return values
        mean, std = (torch.tensor([float(n) for n in table[key].split(", ")]).view(3, 1, 1) for key in ("mean", "std"))
        return (values - mean) / std


def statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    data = read_record(folder).data
    return data.mean, data.std


@pytest.mark.parametrize("normalize", [True, False])
def test_the_code_on_the_card_gives_the_recorded_accuracy(normalize: bool, tmp_path: Path) -> None:
    """With timm too, and from weights that are stored in 16 bits."""
    made = Made(tmp_path, "timm/resnet10t", f"normalize={str(normalize).lower()}", precision="fp16")
    ours, timms = made.run(0), made.run(1)
    assert made.hits(ours["logits"]) == made.hits(timms["logits"]) == made.correct
    assert made.named(ours["scores"]) == made.correct
    mean, std = (torch.tensor(row).view(-1, 1, 1) for row in statistics(made.folder))
    images = ours["model"].read(made.files)
    other = images * std + mean if normalize else (images - mean) / std
    assert made.hits(ours["model"](other)) != made.correct  # the test would see the other one
    assert torch.allclose(images[0], made.by_hand(made.files[0]), atol=1e-4)
    lay_down(made.files[0])
    assert torch.equal(made.run(0)["logits"], ours["logits"])
    assert torch.equal(made.run(1)["logits"], timms["logits"])


def lay_down(file: str) -> None:
    """Store an image lying on its side, as a phone does, with the orientation that says so."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(file) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)


def photographs(root: Path) -> list[str]:
    """`root`/{train,test}/DIGIT/*.png: the digits in colours, larger than the model and not square; the test files."""
    digits = load_digits()
    for number in range(500):
        label, part = int(digits.target[number]), "train" if number < 400 else "test"
        pixels = (digits.images[number] / 16 * 255).astype(np.uint8)
        colours = np.stack([pixels, 255 - pixels, np.full_like(pixels, 40)], -1)
        folder = root / part / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).resize((20, 26), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    settle(root)
    return sorted(str(path) for path in (root / "test").rglob("*.png"))


KINDS = {
    "a source's recipe, not normalised; turned views": ({"recipe": "mixture-vit"}, ("tta=dihedral",)),
    "scaled to another size; moved views": ({"image_size": 16}, ("tta=mirror-translate",)),
    "altered test images; ImageNet's mean; mirrored views": (
        {"dataset": "sklearn:digits?alter_test=transpose"},
        ("tta=mirror", "normalize=imagenet"),
    ),
    "colours, scaled and cut": ({"dataset": "folder:photos?resize=20&crop=16", "limit_test": None}, ()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_is_right_for_each_kind_of_recipe_and_the_table_for_each_image(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, settings = KINDS[kind]
    if kind.startswith("colours"):
        monkeypatch.chdir(tmp_path)
        asked = asked | {"files": photographs(tmp_path / "photos")}
    made = Made(tmp_path, "cnn-baseline-bn", "lr=0.01", "batch_size=32", *settings, **asked)
    left = made.run(0)
    assert made.hits(left["logits"]) == made.named(left["scores"]) == made.correct
    assert len(set(left["logits"].argmax(1).tolist())) > 1
    for file in made.files[:3]:
        assert torch.allclose(left["model"].read(file)[0], made.by_hand(file), atol=1e-4)
    table = made.table
    assert (
        ("views" in table)
        == bool(settings)
        != torch.equal(left["logits"], left["model"](left["model"].read(made.files)))
    )
    assert table.get("test images", "").endswith("transpose") == kind.startswith("altered")
    module, sizes = left["model"].module, read_record(made.folder).sizes
    assert f", {flops(module, msgspec.structs.asdict(sizes)):,} FLOPs for an image (2 for a multiply-add)" in made.card
    assert table["10 classes"] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
