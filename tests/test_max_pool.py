"""Max pooling by rows: torch's numbers and gradients to the bit, and torch's own wherever that is not sure."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from zoo.models.api import create
from zoo.models.device import placed
from zoo.models.max_pool import RowMaxPool2d, use_row_pools

CPU = torch.device("cpu")


def pools(*settings: int) -> tuple[nn.Module, nn.Module]:
    """Torch's, and ours."""
    theirs = nn.MaxPool2d(*settings)
    ours = use_row_pools(copy.deepcopy(theirs))
    assert type(ours) is RowMaxPool2d
    return theirs, ours


def gradients(pool: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    given = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = pool(given)
    weights = torch.arange(out.numel(), dtype=torch.float).view(out.shape) % 7 - 3
    out.backward(weights.to(out.dtype))
    assert given.grad is not None
    return out.detach(), given.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((8, 6), (2,)),
        ((7, 9), (2,)),
        ((9, 8), (3, 2, 1)),
        ((5, 6), (3, 1, 1)),
        ((4, 4), (4,)),
        ((6, 7), (2, 3)),
        ((3, 3), (3, 2, 1)),
    ],
)
def test_the_numbers_and_the_gradients_are_torchs(
    size: tuple[int, int], settings: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    theirs, ours = pools(*settings)
    x = torch.randn(3, 5, *size).to(dtype)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
        assert ours(x).is_contiguous()
    for one, other in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        assert torch.equal(one, other)


def test_the_gradient_goes_to_the_first_of_equal_pixels() -> None:
    theirs, ours = pools(2)
    every = torch.cartesian_prod(*[torch.arange(3.0)] * 4).view(-1, 1, 2, 2)  # all orders and all ties of four pixels
    assert len(every) == 81
    out, found = gradients(ours, every)
    assert torch.equal(out.flatten(), every.flatten(1).amax(1))
    assert torch.equal(found, gradients(theirs, every)[1])
    side_by_side = every.view(1, 9, 9, 2, 2).permute(0, 1, 3, 2, 4).reshape(1, 9, 2, 18)
    assert torch.equal(gradients(ours, side_by_side)[1], gradients(theirs, side_by_side)[1])


def test_what_is_not_a_number_stays_none() -> None:
    theirs, ours = pools(2)
    x = torch.tensor([[[[1.0, math.nan], [2.0, 3.0]]], [[[-math.inf, -math.inf], [-math.inf, -math.inf]]]])
    with torch.no_grad():
        assert torch.equal(ours(x).isnan(), theirs(x).isnan())
        assert ours(x)[1].item() == -math.inf


def test_maps_with_channels_last_and_single_images_are_left_to_torch() -> None:
    theirs, ours = pools(2)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    assert ours(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(gradients(ours, x)[1], gradients(theirs, x)[1])
    assert torch.equal(ours(x[0]), theirs(x[0]))
    with pytest.raises(RuntimeError, match="too small"):
        ours(torch.randn(1, 2, 1, 1))
    assert ours(torch.randn(0, 2, 4, 4)).shape == (0, 2, 2, 2)


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.MaxPool2d(2, return_indices=True)]
)
def test_pools_of_another_kind_are_left_alone(pool: nn.Module) -> None:
    assert type(use_row_pools(pool)) is nn.MaxPool2d


def test_a_placed_model_pools_by_rows_and_an_exported_one_by_one_operator() -> None:
    torch.manual_seed(0)
    plain = create("cnn-baseline", num_classes=10).eval()
    fast = placed(copy.deepcopy(plain), CPU, False)
    assert sum(isinstance(m, RowMaxPool2d) for m in fast.modules()) == 3
    assert list(fast.state_dict()) == list(plain.state_dict())
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(fast(x), plain(x))
    fast(x).sum().backward()
    plain(x).sum().backward()
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    nodes = [str(node.target) for node in torch.export.export(fast, (x,)).graph.nodes]
    assert sum("max_pool2d" in node for node in nodes) == 3
    assert not any("maximum" in node for node in nodes)


def test_functions_of_torch_are_torchs() -> None:
    torch.manual_seed(0)
    plain = nn.MaxPool2d(2)
    fast = use_row_pools(copy.deepcopy(plain))
    x = torch.randn(3, 2, 4, 4)
    found = []
    for pool in (plain, fast):
        slopes = torch.func.vmap(torch.func.grad(lambda one, pool=pool: pool(one[None]).square().sum()))(x)
        found.append((slopes, torch.func.jvp(pool, (x,), (torch.ones_like(x),))[1]))
    for theirs, ours in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
