"""The catalogue's entry of the weights in a package: what `[[models.NAME.weights]]` says."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import Literal

import msgspec

from zoo.catalogue.spec import TrainedWeights
from zoo.catalogue.toml_text import inline, key_of
from zoo.evaluate.paired import interval
from zoo.hub.package import Package
from zoo.models.header import Header
from zoo.runs.folder import read_result
from zoo.runs.record import WEIGHTS

Precision = Literal["fp32", "bf16", "fp16"]
STORED: MappingProxyType[str, Precision] = MappingProxyType({"F32": "fp32", "BF16": "bf16", "F16": "fp16"})
"""Number types of a safetensors file that networks are stored in, and what recipes call them."""


def entry_of(package: Package, dataset: str, where: str, licence: str, note: str = "") -> TrainedWeights:
    """The entry of a package's weights.

    Args:
        dataset: name in the catalogue of the dataset that they were trained on.
        where: as `TrainedWeights.where`. licence: of the weights, as the Hub names it.
    Raises:
        RunError: the package's result is damaged.
    """
    test, record = read_result(package.folder)["test"], package.record
    low, high = interval(test["correct"], test["count"])
    return TrainedWeights(
        dataset=dataset,
        where=where,
        top1=test["top1"],
        interval=(round(low, 4), round(high, 4)),
        recipe=record.recipe,
        protocol=record.protocol,
        seed=record.seed,
        precision=_precision(package.header),
        bytes=(package.folder / WEIGHTS).stat().st_size,
        sha256=package.hashes[WEIGHTS],
        licence=licence,
        note=note,
    )


def _precision(header: Header) -> Precision:
    """The number type of most of the numbers."""
    counts = Counter[str]()
    for tensor in header.tensors.values():
        counts[tensor.dtype] += tensor.data_offsets[1] - tensor.data_offsets[0]
    return next((STORED[dtype] for dtype, _ in counts.most_common() if dtype in STORED), "fp32")


def entry_text(model: str, entry: TrainedWeights) -> str:
    """The entry as TOML, as it is written below a model of a registry file."""
    fields = {key: value for key, value in msgspec.to_builtins(entry).items() if value != ""}
    lines = "".join(f"{key} = {inline(value)}\n" for key, value in fields.items())
    return f"[[models.{key_of(model)}.weights]]\n{lines}"
