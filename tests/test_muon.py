"""Muon over batches of layers: what each layer gets by itself, and no more operations for more layers of a shape."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.train.optim.muon import Muon, orthogonal

VIEWS = {"view", "permute", "unbind", "transpose", "split", "split_with_sizes", "detach", "alias", "_unsafe_view"}
"""Operations that compute nothing."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """With more, a product that stands alone is divided among them in another way than one of many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layers_of(*shapes: tuple[int, ...], layout: torch.memory_format = torch.contiguous_format) -> list[nn.Parameter]:
    noise = torch.Generator().manual_seed(0)
    layers = [torch.randn(shape, generator=noise) for shape in shapes]
    return [nn.Parameter(one.contiguous(memory_format=layout) if one.ndim == 4 else one) for one in layers]


def one_by_one(layers: list[nn.Parameter], sums: list[Tensor], sphere: bool) -> None:
    """A step of Muon that looks at one matrix at a time."""
    for layer, total in zip(layers, sums, strict=True):
        assert layer.grad is not None
        total.mul_(0.9).add_(layer.grad)
        ahead = layer.grad.add(total, alpha=0.9).flatten(1)
        rows, columns = ahead.shape
        update = orthogonal(ahead[None], 3 if sphere else 5)[0].reshape(layer.shape)
        if sphere:
            layer.data.mul_(1 + (math.sqrt(rows) / layer.data.norm() - 1))
        layer.data.mul_(1 - 0.02 * 0.1)
        layer.data.sub_(update * (0.02 * (1.0 if sphere else 0.2 * math.sqrt(max(rows, columns)))))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("flag", [None, 0.0])
@pytest.mark.parametrize("sphere", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_layers_in_batches_are_trained_as_one_by_one(
    together: bool, sphere: bool, flag: float | None, layout: torch.memory_format
) -> None:
    shapes = ((8, 24), (8, 6, 2, 2), (24, 8), (8, 24), (8, 6, 2, 2))
    ours, expected = layers_of(*shapes, layout=layout), layers_of(*shapes)
    sums = [torch.zeros_like(layer) for layer in expected]
    groups = [{"params": ours[:2]}, {"params": ours[2:]}]
    optimizer = Muon(groups, lr=0.02, momentum=0.9, weight_decay=0.1, sphere=sphere, together=together)
    optimizer.found_inf = None if flag is None else torch.tensor(flag)
    for _ in range(3):
        for one, other in zip(ours, expected, strict=True):
            one.grad = other.grad = torch.randn(one.shape)
        optimizer.step()
        one_by_one(expected, sums, sphere)
    exact = not together and layout == torch.contiguous_format and flag is None
    for one, other in zip(ours, expected, strict=True):
        # Other orders of rows and columns add in another order, and a flag on the device is a factor of fp32.
        torch.testing.assert_close(one, other, rtol=0, atol=0 if exact else 1e-6)


def operations(optimizer: Muon) -> int:
    """How many operations of a step compute something."""

    class Counting(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func._schema.name.split("::")[1] not in VIEWS
            return func(*args, **(kwargs or {}))

    with Counting() as counted:
        optimizer.step()
    return counted.count


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sphere", [False, True])
def test_more_layers_of_a_shape_are_no_more_operations(sphere: bool, layout: torch.memory_format) -> None:
    counts = []
    for number in (2, 9):
        layers = layers_of(*[(8, 4, 3, 3)] * number, layout=layout)
        optimizer = Muon(layers, lr=0.1, sphere=sphere, together=True)
        optimizer.found_inf = torch.tensor(0.0)
        for layer in layers:
            layer.grad = torch.ones_like(layer)
        optimizer.step()  # makes the state
        counts.append(operations(optimizer))
    assert counts[0] == counts[1]


def test_groups_and_transposes_are_iterated_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[list[int]] = []

    def seen(matrices: Tensor, steps: int) -> Tensor:
        sizes.append(list(matrices.shape))
        return orthogonal(matrices, steps)

    monkeypatch.setattr("zoo.train.optim.muon.orthogonal", seen)
    layers = layers_of((4, 9), (9, 4), (4, 9), (4, 1, 3, 3))
    for layer in layers:
        layer.grad = torch.ones_like(layer)
    groups = [{"params": [layer]} for layer in layers]
    for together, expected in ((True, [[4, 4, 9]]), (False, [[1, 4, 9], [1, 9, 4], [1, 4, 9], [1, 4, 9]])):
        sizes.clear()
        Muon(groups, lr=0.1, together=together).step()
        assert sizes == expected
    assert not Muon(layers, lr=0.1).together  # on a CPU a run repeats to the bit
