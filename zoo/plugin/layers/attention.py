"""One attention function for all parts, with the kernel chosen by device and sizes."""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.plugin.layers.drop import dropout

CPU_HALF: Final = 2**20
"""On a CPU in 16 bits: up to this many weights per head, matmul-softmax-matmul trains 1.5 to 9 times faster."""

CPU_FULL: Final = 2**13
"""On a CPU in 32 bits: above this many weights per head, the fused kernel is not slower and needs less memory."""


def attention(q: Tensor, k: Tensor, v: Tensor, *, dropout_p: float = 0.0, training: bool = False) -> Tensor:
    """Scaled dot-product attention: softmax(q k^T / sqrt(width)) v.

    The choice of kernel depends only on device, dtype and static sizes, so that it can be compiled and
    exported. On a CPU, torch has no fused kernel with dropout, and our dropout is cheaper than torch's.

    Args:
        q: (..., M, D) queries, float.
        k: (..., N, D) keys.
        v: (..., N, E) values.
        dropout_p: share of the attention weights dropped while training.
        training: whether dropout is on.

    Returns:
        (..., M, E), of v's dtype.

    Source:
        "Attention Is All You Need", equation 1.
    """
    rate = dropout_p if training else 0.0
    if not _by_matmul(q, k, rate):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
    weights = ((q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)).softmax(-1)
    return dropout(weights, rate, training) @ v


def _by_matmul(q: Tensor, k: Tensor, rate: float) -> bool:
    if q.device.type != "cpu":
        return False
    half = q.dtype in (torch.bfloat16, torch.float16)
    return rate > 0 or q.shape[-2] * k.shape[-2] <= (CPU_HALF if half else CPU_FULL)
