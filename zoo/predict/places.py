"""Which layers of a model keep the places of an image, found by altering the image: no layer is known by name.

A layer's output is a map (B, C, h, w) or tokens (B, N, D). Whether its cells stand for the places of the
image is not to be read from its shape: the latents of a Perceiver are tokens too, and a ViT part that reads
each token as a channel gives a map in which every cell saw the whole image. So the image is altered in one
place after another, and a layer keeps places where the cell that changes most lies at the altered place, or
next to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PROBES = 4
"""The image is altered in each cell of a grid of this many rows and columns."""
KEPT = 0.8
"""Share of the probes whose strongest change must lie at the altered place, or next to it."""
FINE = 4
"""Least cells on the shorter side of a layer that shows anything worth looking at."""


@dataclass(frozen=True)
class Layer:
    """A layer that keeps places.

    Attributes:
        rows, columns: its grid. extra: tokens before those of the grid (a class token, registers).
        tokens: whether its output is (B, N, D) rather than (B, C, h, w).
    """

    name: str
    module: nn.Module
    rows: int
    columns: int
    tokens: bool
    extra: int = 0

    def grid(self, values: Tensor) -> Tensor:
        """Values of the layer's shape, summed over features: (B, rows, columns)."""
        if not self.tokens:
            return values.sum(1)
        return values[:, self.extra :].sum(2).unflatten(1, (self.rows, self.columns))


def layers_with_places(module: nn.Module, image: Tensor) -> list[Layer]:
    """The layers that keep places, in the order in which they compute; too coarse ones are left out.

    Args:
        image: (1, C, H, W), prepared: the image that is altered.
    """
    height, width = image.shape[-2:]
    seen: dict[str, tuple[Layer, Tensor] | None] = {}
    handles = []

    def watch(name: str, layer: nn.Module) -> None:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            # what computes more than once has no one output to ask for
            seen[name] = None if name in seen else _changes(name, layer, output, height, width)

        handles.append(layer.register_forward_hook(hook))

    for name, layer in module.named_modules():
        # a projection mixes queries, keys and values: what it projects is the better thing to look at
        if name and not isinstance(layer, nn.Linear):
            watch(name, layer)
    try:
        with torch.no_grad():
            module(_altered(image))
    finally:
        for handle in handles:
            handle.remove()
    return [layer for layer, changes in filter(None, seen.values()) if _keeps(changes)]


def _altered(image: Tensor) -> Tensor:
    """The image, then the image with the same noise on one place after another: (1 + PROBES ** 2, C, H, W)."""
    batch = image.repeat(1 + PROBES**2, 1, 1, 1)
    height, width = image.shape[-2:]
    shape = (image.shape[1], -(-height // PROBES), -(-width // PROBES))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(image)
    for n in range(PROBES**2):
        top, left = divmod(n, PROBES)
        rows = slice(top * height // PROBES, (top + 1) * height // PROBES)
        columns = slice(left * width // PROBES, (left + 1) * width // PROBES)
        place = batch[n + 1, :, rows, columns]
        place += noise[:, : place.shape[1], : place.shape[2]]
    return batch


def _changes(name: str, module: nn.Module, output: Any, height: int, width: int) -> tuple[Layer, Tensor] | None:
    """How much each cell of a layer changed with each probe, (P, rows, columns); None for other shapes."""
    if not isinstance(output, Tensor) or not output.is_floating_point() or len(output) != 1 + PROBES**2:
        return None
    if output.ndim == 4:
        layer = Layer(name, module, output.shape[2], output.shape[3], tokens=False)
    elif output.ndim == 3:
        rows, columns = _grid(output.shape[1], height, width)
        layer = Layer(name, module, rows, columns, True, output.shape[1] - rows * columns)
    else:
        return None
    if min(layer.rows, layer.columns) < FINE or layer.rows > height or layer.columns > width:
        return None
    return layer, layer.grid((output[1:] - output[:1]).float().abs())


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """The largest grid of the image's proportions with at most that many cells."""
    rows = int((tokens * height / width) ** 0.5 + 1e-6)
    while rows > 1 and (rows * width % height or rows * rows * width // height > tokens):
        rows -= 1
    return rows, rows * width // height


def _keeps(changes: Tensor) -> bool:
    """Whether what was altered is where the layer changed most, or next to it, for enough of the probes.

    Next to it: the reach of convolutions and the zeros around a map move the maximum by a cell. Where the
    maximum does not follow the probe at all, it is next to 9 of the 16 probes at most.
    """
    coarse = F.adaptive_avg_pool2d(changes[:, None], PROBES).flatten(1)
    most, probe = coarse.argmax(1), torch.arange(PROBES**2, device=coarse.device)
    rows, columns = (most // PROBES - probe // PROBES).abs(), (most % PROBES - probe % PROBES).abs()
    near = (rows <= 1) & (columns <= 1)
    altered = coarse.sum(1) > 0
    return bool(altered.any()) and float(near[altered].float().mean()) >= KEPT
