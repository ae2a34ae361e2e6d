"""The check of an exporter: a tiny model goes through it and comes back with the same logits."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.catalogue.plugins import import_factory
from zoo.errors import PluginError
from zoo.plugin.contract import Component
from zoo.testing.subject import Failed, Skipped

if TYPE_CHECKING:
    from zoo.evaluate.classifier import Classifier
    from zoo.export.facts import Takes


def check_exporter(name: str, component: Component) -> str:
    """A model for floats and one for bytes, for any batch and for three images, are written and give torch's logits."""
    from zoo.export.facts import PIXELS, PREPARED
    from zoo.models.precision import usual_torch

    try:
        import_factory(component.factory, name)()
    except PluginError as error:
        raise Skipped(str(error)) from None
    classifier, largest = _tiny(), 0.0
    kinds: tuple[tuple[Takes, int | None], ...] = ((PREPARED, None), (PIXELS, None), (PREPARED, 3))
    for takes, batch in kinds:
        with tempfile.TemporaryDirectory() as folder, usual_torch():
            largest = max(largest, _difference(classifier, component, Path(folder), takes, batch))
    return f"logits differ from torch's by {largest:.1e} at most"


def _difference(classifier: Classifier, component: Component, folder: Path, takes: Takes, batch: int | None) -> float:
    """Write one file and run it; how far its logits are from torch's."""
    from zoo.export.write import export

    done = export(classifier, folder / f"tiny{component.suffix}", format=component, takes=takes, batch=batch)
    places = [os.fsencode(place) for place in (sys.prefix, Path(__file__).parents[1], folder)]
    for path in done.files:
        if any(place in path.read_bytes() for place in places):
            raise Failed(f"{path.name} holds a path of the machine that wrote it")
    assert done.agreement is not None  # it was checked
    return done.agreement.largest


def _tiny() -> Classifier:
    """A convolution, a norm and a linear layer for images of 8x8 in four classes, with initial weights."""
    import torch
    from torch import nn

    from zoo.data.files.decode import Rule
    from zoo.evaluate.classifier import Classifier, Preprocessing
    from zoo.runs.record import Sizes

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        module = nn.Sequential(*layers, nn.Linear(32, 4)).eval()
    preprocessing = Preprocessing(Rule(size=(8, 8)), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), normalize=True)
    sizes = Sizes(in_channels=3, height=8, width=8, num_classes=4)
    return Classifier(name="tiny", module=module, sizes=sizes, preprocessing=preprocessing, classes=tuple("abcd"))
