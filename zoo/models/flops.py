"""Counting the operations of one forward pass."""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, Published

FLOPS = "forward pass of one image, as torch.utils.flop_counter counts: 2 per multiply-add of matmul and conv"


def flops(outline: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """FLOPs of one image's forward pass, and of its forward and backward pass, on the meta device.

    As torch.utils.flop_counter counts them: 2 for each multiply-add of matrix products and convolutions.

    Args:
        outline: the module on the meta device. shape: (C, H, W).
    """
    outline.eval()
    images = torch.empty(1, *shape, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        outline(images)
    with FlopCounterMode(display=False) as both:
        outline(images).sum().backward()
    outline.zero_grad(set_to_none=True)
    return int(forward.get_total_flops()), int(both.get_total_flops())


def count(name: str, model: Model, registry: Registry, sizes: dict[str, int]) -> dict[str, Any]:
    """Build on the meta device; count parameters (int) and the FLOPs (int) of one image.

    Raises:
        ZooError: as `zoo.models.compose.check`.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from zoo.models.compose import check, place

    module = check(model.build, registry, where=place(registry, name), **sizes).eval()
    module.requires_grad_(
        False
    )  # the counter looks for gradients of parameters that enter a module as inputs
    image = torch.empty(1, sizes["in_channels"], sizes["height"], sizes["width"], device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "flops": int(counter.get_total_flops()),
        "flops_definition": FLOPS,
        "sizes": sizes,
    }


def published_counts(name: str, model: Model, registry: Registry) -> list[dict[str, Any]]:
    """Each parameter count that a source prints, beside ours at that dataset's size and classes."""
    return [_published_count(name, model, row, registry) for row in model.published if row.params is not None]


def _published_count(name: str, model: Model, row: Published, registry: Registry) -> dict[str, Any]:
    from zoo.models.compose import check, place, sizes_for

    compared: dict[str, Any] = {"dataset": row.dataset, "printed": row.params}
    if row.dataset not in registry.datasets and row.params_classes is None:
        return compared | {"built": None, "problem": f"no dataset named {row.dataset!r}"}
    there = msgspec.structs.replace(model, dataset=row.dataset)
    sizes = sizes_for(there, registry, num_classes=row.params_classes)
    module = check(model.build, registry, where=place(registry, name), **sizes)
    built = sum(p.numel() for p in module.parameters())
    return compared | {
        "num_classes": sizes["num_classes"],
        "built": built,
        "difference": built - (row.params or 0),
        "expected_difference": row.params_difference,
    }
