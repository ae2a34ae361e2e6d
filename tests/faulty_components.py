"""Components for the tests of the conformance kit: one is right, each other has one fault."""

from __future__ import annotations

import itertools
import os
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import ShapeError


class Scale(nn.Module):
    """A part that is right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def right(*, channels: int, height: int, width: int, gain: float = 1.0) -> nn.Module:
    return Scale(channels)


class Unused(Scale):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.other = nn.Parameter(torch.ones(3))


class Wide(Scale):
    """Has a parameter that small images do not need, as attention between windows has where there is one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.other = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * (self.other if x.shape[-1] > 8 else 1)


class Infinite(Scale):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight / 0


class Hidden(Scale):
    """Draws something that the state dict does not hold."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drawn = torch.randn(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        drawn = self.drawn.to(x.device)
        return x * self.weight * drawn


class Neighbourly(Scale):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight - x.mean(0)


class Double(Scale):
    """Refuses anything but float32."""

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.conv2d(x, torch.eye(x.shape[1], device=x.device)[..., None, None])
        if y.dtype != torch.float32:
            raise TypeError("float32 only")
        return y * self.weight


class Strided(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 2, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.view_as_complex(self.weight).real.mean()


class Compiled(Scale):
    """Is another module once it is compiled."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * (2 if torch.compiler.is_compiling() else 1)


class Peeking(Scale):
    """Looks at values to decide what to do."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta and x.sum().item() > 1e9:
            return x
        return x * self.weight


class Unkept(Scale):
    """A norm whose running mean no file keeps; it is used in evaluation mode only."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("mean", torch.zeros(channels, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        now = x.float().mean((0, 2, 3))[:, None, None]
        if self.training:
            self.mean.lerp_(now.detach(), 0.1)
        return (x - (now if self.training else self.mean)) * self.weight


class Mixing(Scale):
    """Takes the type of the weights for that of the input, which is another one behind a convolution in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, torch.zeros_like(self.weight), 0.1) * self.weight


class Tied(Scale):
    """Is right: one parameter has two names."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.again = self.weight

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * self.again


class Counting(Scale):
    """Goes on from where it was, and does not say where."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return x * self.weight * (1 + 0.1 * self.calls)


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2]


class InPlace(Scale):
    """Begins with an activation that works in place, as pre-activation blocks do."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x, inplace=True) * self.weight


class DropsInPlace(Scale):
    """Changes its input while it trains only."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.1, self.training, inplace=True) * self.weight


class HiddenInPlace(Scale):
    """Changes its input in a way that torch does not count."""

    def forward(self, x: Tensor) -> Tensor:
        x.data.mul_(2)
        return x * self.weight


class Seeding(Scale):
    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return x * self.weight


class Loud(Scale):
    def forward(self, x: Tensor) -> Tensor:
        print("hello from forward")
        return x * self.weight


def parts(kind: type[nn.Module]) -> object:
    def build(*, channels: int, height: int, width: int) -> nn.Module:
        return kind(channels) if kind is not Half else kind()

    return build


unused, wide, infinite, hidden, neighbourly, double, strided, compiled, peeking, counting, half = map(
    parts, (Unused, Wide, Infinite, Hidden, Neighbourly, Double, Strided, Compiled, Peeking, Counting, Half)
)
in_place, drops_in_place, hidden_in_place, seeding, loud = map(
    parts, (InPlace, DropsInPlace, HiddenInPlace, Seeding, Loud)
)
unkept, mixing, tied = map(parts, (Unkept, Mixing, Tied))


def fixed(*, channels: int, height: int, width: int) -> nn.Module:
    torch.manual_seed(0)
    return Scale(channels)


def fixed_elsewhere(*, channels: int, height: int, width: int) -> nn.Module:
    random.seed(0)
    return Scale(channels)


def drawn_elsewhere(*, channels: int, height: int, width: int) -> nn.Module:
    module = Scale(channels)
    module.weight.data += torch.as_tensor(np.random.rand(channels, 1, 1))
    return module


def printing(*, channels: int, height: int, width: int) -> nn.Module:
    print("building")
    return Scale(channels)


def writing(*, channels: int, height: int, width: int) -> nn.Module:
    os.write(1, b"from C\n")
    return Scale(channels)


def double_for_all(*, channels: int, height: int, width: int) -> nn.Module:
    torch.set_default_dtype(torch.float64)
    return Scale(channels).float()


TURNS = itertools.count(1)


def growing(*, channels: int, height: int, width: int) -> nn.Module:
    return nn.Sequential(*(Scale(channels) for _ in range(next(TURNS))))


def bare(*, channels: int, height: int, width: int, gain=1.0) -> nn.Module:
    return Scale(channels)


def positional(channels: int, /, *, height: int, width: int) -> nn.Module:
    return Scale(channels)


def needy(*, channels: int, height: int, width: int, gain: float) -> nn.Module:
    return Scale(channels)


def first_only(*, parts: list[Any], channels: int, height: int, width: int) -> nn.Module:
    return parts[0](channels=channels, height=height, width=width)


def in_turn(*, parts: list[Any], channels: int, height: int, width: int) -> nn.Module:
    return nn.Sequential(*(part(channels=channels, height=height, width=width) for part in parts))


class Deaf(nn.Module):
    """Gives every image the same logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias + 0 * x.mean((1, 2, 3))[:, None]


def deaf(*, in_channels: int, height: int, width: int, num_classes: int) -> nn.Module:
    return Deaf(num_classes)


def small_only(*, channels: int, height: int, width: int) -> nn.Module:
    if height > 16:
        raise ShapeError(f"at most 16 rows, given {height}")
    return Scale(channels)


def large_only(*, channels: int, height: int, width: int) -> nn.Module:
    if height < 64 or height % 64:
        raise ShapeError(f"multiples of 64 rows, given {height}")
    return Scale(channels)
