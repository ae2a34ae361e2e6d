"""What is exported: a module in eval mode, and what a user of the file must know about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.base.version import __version__
from zoo.data.files.decode import Rule
from zoo.data.portable import portable_spec
from zoo.errors import RunError
from zoo.runs.folder import read_result
from zoo.runs.images import dataset_rule, rule_of
from zoo.runs.load import load
from zoo.runs.record import Sizes, read_record

PREPARED, PIXELS = "images", "pixels"
"""Names of the input: of normalised floats, and of bytes as an image file decodes to."""

OUTPUT = "logits"


@dataclass(frozen=True)
class Target:
    """A model that can be exported.

    Attributes:
        module: (B, C, H, W) floats, prepared as `mean`, `std` and `normalize` say, to (B, K) logits; in
            eval mode, on the CPU, fp32.
        classes: the K names, in the order of the logits; empty where there are none.
        mean, std: per channel, of pixel values in 0..1. normalize: whether the model expects
            (x/255 - mean)/std; else x/255.
        rule: how an image is brought to the size; None: the whole image is scaled to it.
        origin: what else is known: dataset, recipe, protocol, top-1 and the views that it is of, "untrained".
    """

    name: str
    module: nn.Module
    sizes: Sizes
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    normalize: bool = False
    rule: Rule | None = None
    origin: dict[str, str] = field(default_factory=dict)

    @property
    def fitting(self) -> Rule:
        """How an image is brought to the size."""
        return self.rule or Rule(size=(self.sizes.height, self.sizes.width))

    @property
    def parameters(self) -> int:
        """How many the module has."""
        return sum(p.numel() for p in self.module.parameters())


def from_run(folder: Path) -> Target:
    """The model of a run folder or a package, with its selected weights.

    Raises:
        RunError: no run folder, damaged, or from a newer version.
    """
    record = read_record(folder)
    origin = {"dataset": portable_spec(record.data.spec), "fingerprint": record.data.fingerprint}
    origin |= {"recipe": record.recipe, "protocol": record.protocol, "seed": str(record.seed)}
    origin["tta"] = record.settings.tta
    try:
        origin["test_top1"] = f"{read_result(folder)['test']['top1']:.6f}"
    except (RunError, KeyError, TypeError):
        origin["test_top1"] = "not measured: the run is not finished"
    return Target(
        name=record.model,
        module=load(folder),
        sizes=record.sizes,
        classes=record.data.classes,
        mean=record.data.mean,
        std=record.data.std,
        normalize=record.settings.normalize,
        rule=rule_of(record),
        origin=origin,
    )


def from_catalogue(
    name: str, *, num_classes: int | None = None, image_size: int | None = None, seed: int = 0
) -> Target:
    """A model of the catalogue with its initial weights; how images are prepared comes from its dataset.

    Raises:
        UnknownNameError: no such model. ShapeError: it cannot take the size.
    """
    from zoo.catalogue.registry import find_model
    from zoo.models.compose import compose, place, sizes_for

    registry, name, model = find_model(name)
    sizes = sizes_for(model, registry, num_classes=num_classes, image_size=image_size)
    dataset, recipe = registry.datasets.get(model.dataset), registry.recipes.get(model.recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = compose(model.build, registry, where=place(registry, name), **sizes)
    channels = sizes["in_channels"]
    known = dataset is not None and len(dataset.mean) in (1, channels)
    classes = dataset.classes if dataset is not None else ()
    return Target(
        name=name,
        module=module.eval(),
        sizes=Sizes(**sizes),
        classes=classes if len(classes) == sizes["num_classes"] else (),
        mean=dataset.mean if known and dataset else (0.5,) * channels,
        std=dataset.std if known and dataset else (0.5,) * channels,
        normalize=recipe.normalize if recipe else True,
        rule=dataset_rule(model.dataset, (sizes["height"], sizes["width"])),
        origin={"weights": f"untrained, seed {seed}"},
    )


def facts(target: Target, *, preprocessing: bool, batch: int | None) -> dict[str, str]:
    """What is written into the file beside the graph: texts; `zoo.input` and `zoo.classes` are JSON."""
    found = {
        "zoo.version": __version__,
        "zoo.model": target.name,
        "zoo.parameters": str(target.parameters),
        "zoo.classes": json.dumps(list(target.classes), ensure_ascii=False),
        "zoo.input": json.dumps(input_facts(target, preprocessing=preprocessing, batch=batch)),
        "zoo.output": json.dumps({"name": OUTPUT, "shape": [batch or "batch", target.sizes.num_classes]}),
    }
    return found | {f"zoo.{key}": value for key, value in sorted(target.origin.items())}


def input_facts(target: Target, *, preprocessing: bool, batch: int | None) -> dict[str, Any]:
    """The input: its name, type, layout and shape, and what must have been done to an image before."""
    sizes, rows = target.sizes, batch or "batch"
    normal = {"mean": list(target.mean), "std": list(target.std)} if target.normalize else None
    filter = target.fitting.interpolation.upper()
    resize = f"{target.fitting}; averaging where it shrinks (PIL's {filter})"
    if preprocessing:
        return {
            "name": PIXELS,
            "dtype": "uint8",
            "layout": "NHWC",
            "shape": [rows, sizes.height, sizes.width, sizes.in_channels],
            "colour": "RGB",
            "resize": resize,
            "inside": {"scale": "1/255", "normalize": normal},
        }
    return {
        "name": PREPARED,
        "dtype": "float32",
        "layout": "NCHW",
        "shape": [rows, sizes.in_channels, sizes.height, sizes.width],
        "colour": "RGB",
        "resize": resize,
        "scale": "1/255",
        "normalize": normal,
    }


def describe(target: Target, *, preprocessing: bool) -> str:
    """The same in one sentence, for people."""
    height, width = target.sizes.height, target.sizes.width
    fitted = f"scaled {target.fitting}" if target.fitting.size else f"scaled and cut ({target.fitting})"
    if preprocessing:
        return (
            f"`{PIXELS}`: uint8 (batch, {height}, {width}, {target.sizes.in_channels}), RGB as an image file "
            f"decodes to, {fitted}; division by 255 and normalisation are inside"
        )
    how = f"(x/255 - mean)/std, mean {list(target.mean)}, std {list(target.std)}"
    return (
        f"`{PREPARED}`: float32 (batch, {target.sizes.in_channels}, {height}, {width}), RGB, "
        f"{fitted}, {how if target.normalize else 'x/255'}"
    )
