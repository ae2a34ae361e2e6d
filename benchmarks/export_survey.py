"""Every model of a catalogue, exported and held against torch: what a release must show."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import torch
from torch import nn

from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, Node
from zoo.data.files.decode import Rule
from zoo.evaluate.classifier import Classifier, Preprocessing, untrained_classifier
from zoo.export.graph import sample
from zoo.export.write import export

LARGEST: Final = 250_000_000
"""Parameters that are exported whole where memory is not known to suffice: about four copies are needed."""

SMALL_DEPTH: Final = 2
"""Layers that are left of a larger model: every operator is still there."""

STATISTICS: Final = 64
"""Images that batch norms take their statistics from."""

SHARE: Final = 0.9
"""How much of them: with all, a channel that hardly varies is blown up, and with it the last digit of its floats."""

DEPTHS: Final = ("depth", "num_blocks")


class Built(NamedTuple):
    """A model to be exported; `note` says what is smaller than in the catalogue ("" where nothing is)."""

    classifier: Classifier
    note: str


def published(registry: Registry) -> list[str]:
    """The models with results that a source prints, the smallest first."""
    names = [name for name, model in registry.models.items() if model.published]
    return sorted(names, key=lambda name: registry.models[name].parameters or 0)


def build(name: str, registry: Registry, *, seed: int = 0, largest: int = LARGEST) -> Built:
    """A model of the catalogue at its native size, awake; of the largest, a few layers."""
    model = registry.model(name)
    if (model.parameters or 0) <= largest:
        return Built(awake(untrained_classifier(registry, name, model, seed=seed), seed), "")
    return Built(awake(shallow(name, model, registry, seed), seed), f"{SMALL_DEPTH} layers instead of all")


def shallow(name: str, model: Model, registry: Registry, seed: int) -> Classifier:
    """The same model with `SMALL_DEPTH` layers, at its native size and width."""
    from zoo.models.compose import compose, sizes_for
    from zoo.runs.record import Sizes

    sizes = sizes_for(model, registry)
    args = model.build.args | {key: SMALL_DEPTH for key in DEPTHS if key in model.build.args}
    torch.manual_seed(seed)
    if args != model.build.args:
        module = compose(Node(use=model.build.use, args=args, of=model.build.of), registry, where="build", **sizes)
    else:
        with torch.device("meta"):
            module = compose(model.build, registry, where="build", **sizes)
        for block in _stacks(module):
            del block[SMALL_DEPTH:]
        _begin(module.to_empty(device="cpu"))
    rule = Rule(size=(sizes["height"], sizes["width"]))
    return Classifier(name=name, module=module.eval(), sizes=Sizes(**sizes), preprocessing=Preprocessing(rule))


def _begin(module: nn.Module) -> None:
    """Initial weights where there are none yet: small ones, norms near one."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(float(parameter.ndim == 1 and name.endswith("weight")), 0.02)
        for buffer in module.buffers():
            buffer.zero_()


def _stacks(module: nn.Module) -> list[Any]:
    found = [m for m in module.modules() if isinstance(m, nn.Sequential) and len(m) > SMALL_DEPTH]
    return [m for m in found if len({type(child) for child in m}) == 1]


def awake(classifier: Classifier, seed: int = 0) -> Classifier:
    """The classifier with no layer asleep: what begins at zero or at one is moved, in place, and repeatably.

    A head whose weights begin at zero gives the same logits for every image, and every export of it agrees.
    """
    draw = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, scale: float) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=draw) * scale

    with torch.no_grad():
        for parameter in classifier.module.parameters():
            if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(normal(parameter, 0.05))
    _meet_images(classifier, seed)
    return classifier


@torch.no_grad()
def _meet_images(classifier: Classifier, seed: int) -> None:
    """Give batch norms the statistics of some images: with those that they begin with, deep signals die out."""
    norms = [m for m in classifier.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = SHARE
    classifier.module(sample(classifier, STATISTICS, takes="images", seed=seed + 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def examine(built: Built, *, opset: int | None = None, folder: Path | None = None) -> dict[str, Any]:
    """Export one model to a folder that is removed again, and measure how far it lies from torch.

    Raises:
        ExportError: it cannot be exported, or does not agree.
    """
    classifier = built.classifier
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        done = export(classifier, Path(temporary) / "model.onnx", opset=opset)
    found = done.agreement
    assert found is not None
    return {
        "model": classifier.name,
        "built": built.note or "whole",
        **msgspec.structs.asdict(classifier.sizes),
        "parameters": classifier.parameter_count,
        "bytes": done.bytes,
        "opset": done.opset,
        "max_abs_difference": found.largest,
        "max_abs_logit": found.scale,
        "std_of_logits": found.spread,
        "same_top1": f"{found.same_top1} of {found.images}",
        "batches": list(found.batches),
        "seconds": round(time.perf_counter() - start, 1),
    }
