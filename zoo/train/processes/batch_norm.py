"""Batch norm with the statistics of the whole batch, which is divided among processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class WholeBatchNorm(_BatchNorm):
    """SyncBatchNorm for processes on the CPU; torch's own works on GPUs only.

    Statistics, gradients and running averages are those of a batch norm over the rows of all processes.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, ...), of any floating dtype; the result has the same shape and dtype."""
        normalised = self._normalised(images) if self.training else super().forward(images)
        for name in ("drop", "act"):  # timm's batch norms contain dropout and activation
            normalised = getattr(self, name)(normalised) if hasattr(self, name) else normalised
        return normalised

    def _normalised(self, images: Tensor) -> Tensor:
        wide = images.float()
        dims = [d for d in range(wide.ndim) if d != 1]
        shape = [1, -1, *[1] * (wide.ndim - 2)]
        count = torch.tensor([wide.numel() / wide.shape[1]], dtype=torch.float64)
        dist.all_reduce(count)
        rows = count.item()
        mean = _SumOfAll.apply(wide.sum(dims)) / rows
        centred = wide - mean.view(shape)
        variance = _SumOfAll.apply(centred.square().sum(dims)) / rows
        self._remember(mean.detach(), variance.detach() * (rows / max(1.0, rows - 1)))
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        done = centred * scale.view(shape)
        return (done if self.bias is None else done + self.bias.view(shape)).to(images.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)
        weight = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm needs a tensor with at least 2 axes, given {input.ndim}")


def synchronised(module: nn.Module, device: torch.device) -> nn.Module:
    """Synchronise the batch norms of a module over all processes: torch's on GPUs, ours on the CPU.

    Names and parameters do not change. A batch norm that is neither torch's nor timm's keeps the
    statistics of its own rows.
    """
    made: dict[int, nn.Module] = {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, _BatchNorm) or not _is_known(child):
                continue
            if id(child) not in made:
                made[id(child)] = _replacement(child, device)
            parent.add_module(name, made[id(child)])
    return module


def _is_known(norm: _BatchNorm) -> bool:
    return type(norm) in KNOWN or type(norm).__name__ == "BatchNormAct2d"


def _replacement(norm: _BatchNorm, device: torch.device) -> nn.Module:
    if device.type != "cpu":
        from timm.layers import convert_sync_batchnorm  # torch's conversion drops timm's activations

        converted: nn.Module = convert_sync_batchnorm(norm)
        return converted
    made = WholeBatchNorm(norm.num_features, norm.eps, norm.momentum, False, norm.track_running_stats)
    made.affine, made.weight, made.bias = norm.affine, norm.weight, norm.bias
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(made, name, buffer)
    for name, child in norm.named_children():
        made.add_module(name, child)
    return made.train(norm.training)
