"""Combinators: parts in turn, or side by side; both give a part again, so that they nest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.errors import PluginError, ShapeError

Builder = Callable[..., nn.Module]


def _unchanged(part: nn.Module, x: Tensor) -> Tensor:
    """The part's output, for an input that others read too.

    `zoo` gives a copy to a part that it saw writing to its input; this is for one that it did not see.
    A copy for every part would add gradients in another order, and change the last bit of our results.

    Raises:
        PluginError: the part wrote to the input in place.
    """
    if torch.compiler.is_compiling() or x.is_inference():  # such tensors do not count what is written to them
        return part(x)
    version = x._version
    out = part(x)
    if x._version != version:
        name = type(part).__name__
        raise PluginError(f"{name} changes its input in place, which other parts read too; it must copy it first")
    return out


class Chain(nn.Sequential):
    """Parts one after the other, each added to its input where `residual` is set."""

    def __init__(self, parts: Sequence[nn.Module], residual: bool) -> None:
        super().__init__(*parts)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        for part in self:
            x = x + _unchanged(part, x) if self.residual else part(x)
        return x


class Alternate(nn.Module):
    """Chains of the same parts in sequence, each with weights of its own."""

    def __init__(self, blocks: Sequence[Sequence[nn.Module]], residual: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Chain(block, residual) for block in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.blocks(x)


def alternate(
    *, parts: Sequence[Builder], channels: int, height: int, width: int, repeat: int = 1, residual: bool = False
) -> nn.Module:
    """Alternating mixture: each part takes the output of the one before it.

    Args:
        repeat: how many blocks of these parts follow one another.
        residual: add each part's input to its output.

    Raises:
        ShapeError: no part, or `repeat` below 1.

    Source:
        Mixture Models, the alternating mixture.
    """
    return Alternate(_blocks("hybrid.alternate", parts, channels, height, width, repeat), residual)


class Weighted(nn.Module):
    """Sum of the branches, each with one learned weight."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(branches))

    def forward(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Outputs of the branches, each (B, C, H, W), to one of them."""
        del x
        return sum_of([out * self.weight[i] for i, out in enumerate(outputs)])


class Gate(nn.Module):
    """Branches weighted per image and channel: softmax over branches, from the input's means."""

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.linear = nn.Linear(channels, branches * channels)

    def forward(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Outputs of the branches, each (B, C, H, W), to one of them."""
        scores = self.linear(x.mean((2, 3))).unflatten(1, (self.branches, -1))
        gates = scores.softmax(1)[..., None, None]
        return sum_of([out * gates[:, i] for i, out in enumerate(outputs)])


class Concat(nn.Module):
    """Branches side by side as channels, mixed by a 1x1 convolution."""

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(branches * channels, channels, 1)

    def forward(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Outputs of the branches, each (B, C, H, W), to one of them."""
        del x
        return self.conv(torch.cat(tuple(outputs), 1))


class Sum(nn.Module):
    """Plain sum of the branches, times a constant."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Outputs of the branches, each (B, C, H, W), to one of them."""
        del x
        total = sum_of(outputs)
        return total if self.scale == 1.0 else total * self.scale


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


class JointBlock(nn.Module):
    """Branches on the same input, each normalised or not, then fused."""

    def __init__(self, branches: Sequence[nn.Module], norms: Sequence[nn.Module], fuse: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.norms = nn.ModuleList(norms)
        self.fuse = fuse

    def forward(self, x: Tensor, shared: nn.Module | None) -> Tensor:
        """(B, C, H, W) to the same shape; `shared` normalises every branch where it is given."""
        outputs = [_unchanged(branch, x) for branch in self.branches]
        if shared is not None:
            outputs = [shared(out) for out in outputs]
        elif len(self.norms):
            outputs = [norm(out) for norm, out in zip(self.norms, outputs, strict=True)]
        return self.fuse(x, outputs)


class Joint(nn.Module):
    """Joint blocks in sequence. A norm shared by all of them is owned here, once."""

    def __init__(self, blocks: Sequence[JointBlock], norm: nn.Module | None, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        for block in self.blocks:
            fused = block(x, self.norm)
            x = x + fused if self.residual else fused
        return x


def joint(
    *,
    parts: Sequence[Builder],
    channels: int,
    height: int,
    width: int,
    repeat: int = 1,
    norm: Literal["none", "branch", "shared"] = "none",
    fuse: Literal["sum", "mean", "weights", "gate", "concat"] = "sum",
    residual: bool = False,
) -> nn.Module:
    """Joint mixture: all parts take the same input, and their outputs are fused.

    Args:
        repeat: how many such blocks follow one another.
        norm: batch norm on the branches' outputs: none; one for each branch of each block; or one
            shared by all branches and blocks.
        fuse: "sum", "mean", "weights" (one learned weight a branch), "gate" (softmax over branches
            per image and channel), "concat" (1x1 convolution over all branches' channels).
        residual: add each block's input to its output.

    Raises:
        ShapeError: no part, or `repeat` below 1.

    Source:
        Mixture Models, the joint mixture (sum; the Perceiver's with one shared norm).
    """
    blocks = []
    for branches in _blocks("hybrid.joint", parts, channels, height, width, repeat):
        norms = [nn.BatchNorm2d(channels) for _ in branches] if norm == "branch" else []
        blocks.append(JointBlock(branches, norms, _fusion(fuse, channels, len(branches))))
    shared = nn.BatchNorm2d(channels) if norm == "shared" else None
    return Joint(blocks, shared, residual)


def _fusion(kind: str, channels: int, branches: int) -> nn.Module:
    if kind == "weights":
        return Weighted(branches)
    if kind == "gate":
        return Gate(channels, branches)
    if kind == "concat":
        return Concat(channels, branches)
    return Sum(1.0 / branches if kind == "mean" else 1.0)


def _blocks(
    who: str, parts: Sequence[Builder], channels: int, height: int, width: int, repeat: int
) -> list[list[nn.Module]]:
    if not parts:
        raise ShapeError(f"{who}: needs at least one part in `of`")
    if repeat < 1:
        raise ShapeError(f"{who}: repeat must be at least 1, given {repeat}")
    size = {"channels": channels, "height": height, "width": width}
    return [[part(**size) for part in parts] for _ in range(repeat)]
