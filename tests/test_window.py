"""Convolutions that are done as matrix products: the same numbers as torch's, and nothing else changed."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from zoo.models.api import create
from zoo.models.device import placed
from zoo.models.window import ProductConvTranspose2d, WindowConv2d, use_window_convolutions

CPU = torch.device("cpu")


def both(conv: nn.Module, x: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Output and all gradients of a convolution and of its replacement."""
    found = []
    for one in (conv, use_window_convolutions(copy.deepcopy(conv))):
        given = x.clone().requires_grad_()
        out = one(given)
        out.square().sum().backward()
        found.append((out.detach(), given.grad, *(p.grad for p in one.parameters())))
    return found


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((1, 1), 3, 1, 1),
        ((2, 2), 3, 2, 1),
        ((2, 2), 1, 2, 0),
        ((1, 2), (3, 5), (1, 2), (1, 2)),
        ((4, 4), 4, 1, 0),
        ((3, 1), (5, 3), (4, 1), (2, 1)),
        ((2, 2), 3, 1, 1),  # two by two pixels out, few channels: torch's own
        ((5, 4), 3, 2, 1),
    ],
)
def test_the_numbers_are_torchs(
    size: tuple[int, int], kernel: int, stride: int, padding: int, bias: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, kernel, stride, padding, bias=bias).double()
    x = torch.randn(3, 5, *size, dtype=torch.double)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    for theirs, ours in zip(*both(conv, x), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs)


FEW_PIXELS = [  # size, kernel, stride, padding, channels that come out
    ((2, 2), 3, 1, 1, 256),
    ((4, 4), 3, 2, 1, 256),
    ((5, 3), (3, 2), (2, 1), (1, 0), 384),  # an odd number of pixels is left over
    ((1, 2), (1, 2), 1, (0, 1), 192),
    ((4, 3), 1, 1, 0, 5),
    ((7, 4), 1, (3, 2), 0, 5),
]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "out"), FEW_PIXELS)
def test_the_numbers_of_few_pixels_are_torchs(
    size: tuple[int, int], kernel: int, stride: int, padding: int, out: int, bias: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, out, kernel, stride, padding, bias=bias).double()
    x = torch.randn(3, 4, *size, dtype=torch.double)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    fast = use_window_convolutions(copy.deepcopy(conv))
    assert isinstance(fast, WindowConv2d)
    assert fast._is_product(x, *conv(x).shape[2:])
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert fast(x).is_contiguous(memory_format=layout)
    for expected, found in zip(*both(conv, x), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected)


def test_few_pixels_are_torchs_own_where_nothing_is_learned() -> None:
    conv = nn.Conv2d(4, 256, 3, padding=1)
    x = torch.randn(3, 4, 2, 2)
    fast = use_window_convolutions(copy.deepcopy(conv))
    with torch.no_grad():
        assert torch.equal(fast(x), conv(x))


@pytest.mark.parametrize(("channels", "size"), [(1, 2), (8, 1)])
def test_where_both_layouts_are_the_same_channels_come_first(channels: int, size: int) -> None:
    conv = nn.Conv2d(channels, 256, 2, padding=1)
    x = torch.randn(3, channels, size, size, requires_grad=True)
    fast = use_window_convolutions(copy.deepcopy(conv))
    assert fast(x).stride() == conv(x).stride()


@pytest.mark.parametrize("size", [1, 2])
def test_functions_of_torch_are_torchs(size: int) -> None:
    conv = nn.Conv2d(4, 256, 3, padding=1).double()
    fast = use_window_convolutions(copy.deepcopy(conv))
    x = torch.randn(3, 4, size, size, dtype=torch.double)

    def gradients(one: nn.Module) -> dict[str, torch.Tensor]:
        weights = {name: p.detach() for name, p in one.named_parameters()}

        def squares(weights: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(one, weights, (image[None],)).square().sum()

        return torch.func.vmap(torch.func.grad(squares), (None, 0))(weights, x)

    for theirs, ours in zip(gradients(conv).values(), gradients(fast).values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    forward = [torch.func.jvp(one, (x,), (torch.ones_like(x),))[1] for one in (conv, fast)]
    torch.testing.assert_close(*forward)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(fast(dual)).tangent, forward[0])


def test_a_traced_convolution_can_be_saved() -> None:
    fast = use_window_convolutions(nn.Conv2d(4, 8, 3, padding=1))
    x, file = torch.randn(2, 4, 1, 1), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch.jit has become
        torch.jit.save(torch.jit.trace(fast, x), file)
        file.seek(0)
        torch.testing.assert_close(torch.jit.load(file)(x), fast(x))


def test_integers_are_refused_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.models.window.has_amx", lambda: True)
    fast = use_window_convolutions(nn.Conv2d(4, 8, 1))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="type"):
        fast(torch.ones(3, 4, 2, 2, dtype=torch.uint8))


def test_few_pixels_have_second_derivatives() -> None:
    torch.manual_seed(0)
    fast = use_window_convolutions(nn.Conv2d(2, 256, 3, padding=1).double())
    x = torch.randn(1, 2, 2, 2, dtype=torch.double, requires_grad=True)
    mixed = torch.randn(256, 4, dtype=torch.double)

    def few(x: torch.Tensor) -> torch.Tensor:
        return (fast(x).flatten(2).squeeze(0) * mixed).sum().square()

    assert torch.autograd.gradgradcheck(few, x)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(1, 3, 1), (2, 3, 2), (3, 5, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_cut_kernel_has_second_derivatives(size: int, kernel: int, stride: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    fast = use_window_convolutions(nn.Conv2d(2, 3, kernel, stride, kernel // 2).double().to(memory_format=layout))
    assert isinstance(fast, WindowConv2d)
    x = torch.randn(2, 2, size, size, dtype=torch.double, requires_grad=True)

    def cut(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return fast(x).tanh().sum() + 0 * weight.sum()

    assert fast(x).shape[2:] == (1, 1)
    assert torch.autograd.gradgradcheck(cut, (x, fast.weight))


@pytest.mark.parametrize("channels_last", [False, True])
def test_few_pixels_in_16_bits_are_as_near_as_torchs(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.models.window.has_amx", lambda: True)
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 128, 3, padding=1)
    x = torch.randn(8, 64, 2, 2)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    exact, _ = both(copy.deepcopy(conv), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert use_window_convolutions(copy.deepcopy(conv))._is_product(x, 2, 2)
        theirs, ours = both(conv, x)
    assert ours[0].dtype == torch.bfloat16
    for right, expected, found in zip(exact, theirs, ours, strict=True):
        assert found.dtype == expected.dtype
        assert (found.float() - right).norm() < 1.3 * (expected.float() - right).norm() + 1e-9


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("size", "kernel", "settings"),
    [
        ((4, 6), 3, {"padding": 1}),
        ((3, 3), 2, {"stride": 2}),
        ((3, 5), (3, 2), {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}),
        ((4, 3), 2, {"dilation": 2, "padding": 1}),
    ],
)
def test_transposed_convolutions_are_torchs(
    size: tuple[int, int], kernel: int, settings: dict[str, int], bias: bool
) -> None:
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(32, 3, kernel, bias=bias, **settings).double()
    assert type(use_window_convolutions(copy.deepcopy(conv))) is ProductConvTranspose2d
    x = torch.randn(2, 32, *size, dtype=torch.double)
    for theirs, ours in zip(*both(conv, x), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs)


def test_a_transposed_convolution_in_16_bits_is_near_torchs() -> None:
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(64, 3, 3, padding=1)
    x = torch.randn(2, 64, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = conv(x), use_window_convolutions(copy.deepcopy(conv))(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    exact = conv(x)
    assert (ours.float() - exact).norm() < 1.5 * (theirs.float() - exact).norm()


@pytest.mark.parametrize(
    "conv",
    [
        nn.ConvTranspose2d(8, 4, 3),
        nn.ConvTranspose2d(64, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    ],
)
def test_convolutions_of_another_kind_are_left_alone(conv: nn.Module) -> None:
    kind = type(conv)
    assert type(use_window_convolutions(conv)) is kind


def test_padding_by_name_and_single_images_are_torchs() -> None:
    conv = nn.Conv2d(4, 4, 3, padding="same").double()
    theirs, ours = both(conv, torch.randn(2, 4, 1, 1, dtype=torch.double))
    torch.testing.assert_close(ours[0], theirs[0])
    plain = nn.Conv2d(4, 4, 3, padding=1)
    image = torch.randn(4, 1, 1)
    assert torch.equal(use_window_convolutions(copy.deepcopy(plain))(image), plain(image))


def test_another_default_device_changes_nothing() -> None:
    fast = use_window_convolutions(nn.Conv2d(2, 3, 3, 2, 1))
    x = torch.randn(2, 2, 2, 2)
    expected = F.conv2d(x, fast.weight, fast.bias, 2, 1)
    with torch.device("meta"):
        torch.testing.assert_close(fast(x), expected)


def test_a_graph_of_any_batch_can_be_exported() -> None:
    fast = use_window_convolutions(nn.Conv2d(2, 3, 3, 2, 1)).eval()
    batch = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        graph = torch.export.export(fast, (torch.randn(2, 2, 2, 2),), dynamic_shapes=batch).module()
        for count in (1, 5):
            x = torch.randn(count, 2, 2, 2)
            torch.testing.assert_close(graph(x), fast(x))


def test_one_image_is_torchs_own_where_nothing_is_learned() -> None:
    """A cut kernel is copied at each call: for one image torch's own is quicker."""
    plain = nn.Conv2d(64, 64, 3, 2, 1)
    fast = use_window_convolutions(copy.deepcopy(plain))
    multiplied = []
    for count in (1, 2):
        x = torch.randn(count, 64, 2, 2)
        for one in (plain, fast):
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                one(x)
            multiplied.append(counter.get_total_flops())
    assert multiplied[0] == multiplied[1]
    assert multiplied[3] < multiplied[2]


def test_a_placed_model_keeps_its_weights_and_its_logits_and_multiplies_less() -> None:
    torch.manual_seed(0)
    plain = create("resnet18", num_classes=10, image_size=32).eval()
    fast = placed(copy.deepcopy(plain), CPU, False)
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert any(isinstance(m, WindowConv2d) for m in fast.modules())
    x = torch.rand(4, 3, 32, 32)
    counts = []
    for module in (plain, fast):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            logits = module(x)
        counts.append((counter.get_total_flops(), logits))
    torch.testing.assert_close(counts[1][1], counts[0][1])
    assert counts[1][0] < 0.85 * counts[0][0]  # three of its 3x3 convolutions see one pixel, one sees four
