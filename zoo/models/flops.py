"""Counting the operations of one forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, Published
from zoo.models.compose import check, place, sizes_for
from zoo.models.precision import usual_torch

FLOPS = "forward pass of one image, as torch.utils.flop_counter counts: 2 per multiply-add of matmul and conv"


def flops(outline: nn.Module, sizes: Mapping[str, int], *, backward: bool = False) -> int:
    """FLOPs of one image, as `FLOPS` says; the module is left in evaluation mode.

    Args:
        outline: the module, on the meta device if it can be run there. sizes: with `in_channels`, `height` and `width`.
        backward: of the forward and the backward pass, instead of the forward pass alone.
    """
    device = next((parameter.device for parameter in outline.parameters()), torch.device("meta"))
    with usual_torch(), torch.device(device), _by_products():
        return _counted(outline, (1, sizes["in_channels"], sizes["height"], sizes["width"]), backward)


@contextlib.contextmanager
def _by_products() -> Iterator[None]:
    """Inside, attention and recurrent layers are made of products, which the counter knows, on a CPU as on `meta`.

    A module that looks at values is counted on a CPU, where torch has one operation for the whole of an attention, of a
    transformer's layer, or of a recurrent layer; the counter takes each of them for 0.
    """
    layers, library = torch.backends.mha, torch.backends.mkldnn
    before = layers.get_fastpath_enabled(), library.enabled
    layers.set_fastpath_enabled(False)
    library.enabled = False  # type: ignore[assignment]  # a property of the module
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        layers.set_fastpath_enabled(before[0])
        library.enabled = before[1]


def _counted(outline: nn.Module, shape: tuple[int, ...], backward: bool) -> int:
    image = torch.zeros(shape)
    trained = [parameter for parameter in outline.eval().parameters() if parameter.requires_grad]
    if backward:
        with FlopCounterMode(display=False) as counter:
            outline(image).sum().backward()
        outline.zero_grad(set_to_none=True)
        return int(counter.get_total_flops())
    for parameter in trained:  # without gradients, the counter fails at parameters that enter a module as inputs
        parameter.requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outline(image)
    for parameter in trained:
        parameter.requires_grad_(True)
    return int(counter.get_total_flops())


def count(name: str, model: Model, registry: Registry, sizes: dict[str, int]) -> dict[str, Any]:
    """Build without its memory, where it can be; count parameters (int) and the FLOPs (int) of one image.

    Raises:
        ZooError: as `zoo.models.compose.check`.
    """
    module = check(model.build, registry, where=place(registry, name), **sizes)
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "flops": flops(module, sizes),
        "flops_definition": FLOPS,
        "sizes": sizes,
    }


def published_counts(name: str, model: Model, registry: Registry) -> list[dict[str, Any]]:
    """Each parameter count that a source prints, beside ours at that dataset's size and classes."""
    return [_published_count(name, model, row, registry) for row in model.published if row.params is not None]


def _published_count(name: str, model: Model, row: Published, registry: Registry) -> dict[str, Any]:
    compared: dict[str, Any] = {"dataset": row.dataset, "printed": row.params}
    if row.dataset not in registry.datasets and row.params_classes is None:
        return compared | {"built": None, "problem": f"no dataset named {row.dataset!r}"}
    as_published = msgspec.structs.replace(model, dataset=row.dataset)
    sizes = sizes_for(as_published, registry, num_classes=row.params_classes)
    module = check(model.build, registry, where=place(registry, name), **sizes)
    built = sum(p.numel() for p in module.parameters())
    return compared | {
        "num_classes": sizes["num_classes"],
        "built": built,
        "difference": built - (row.params or 0),
        "expected_difference": row.params_difference,
    }
