"""Global filter layers: every pixel sees every other one through one product of spectra."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.errors import ShapeError


class GlobalFilter(nn.Module):
    """x + mlp(ifft(weight * fft(norm(x)))).

    Source:
        Rao et al., Global Filter Networks for Image Classification, 2021, section 3.2.
    """

    def __init__(self, channels: int, height: int, width: int, expand: int) -> None:
        super().__init__()
        self.size = (height, width)
        self.norm = nn.GroupNorm(1, channels)
        # Real and imaginary parts apart: optimizers and safetensors then need to know nothing of complex numbers.
        self.weight = nn.Parameter(0.02 * torch.randn(2, channels, height, width // 2 + 1))
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, expand * channels, 1), nn.GELU(), nn.Conv2d(expand * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        spectrum = torch.fft.rfft2(self.norm(x).float(), norm="ortho")  # there is no FFT in bfloat16
        filtered = spectrum * torch.complex(*self.weight.float().unbind(0))
        return x + self.mlp(torch.fft.irfft2(filtered, s=self.size, norm="ortho").to(x.dtype))


def fourier_filter(*, channels: int, height: int, width: int, depth: int = 2, expand: int = 2) -> nn.Module:
    """`depth` global filter layers.

    Args:
        channels: channels in and out.
        height: rows; the filters have as many.
        width: columns.
        depth: number of layers.
        expand: hidden channels of the MLP over channels.

    Raises:
        ShapeError: `depth` below 1.
    """
    if depth < 1:
        raise ShapeError(f"depth must be at least 1, given {depth}")
    return nn.Sequential(*(GlobalFilter(channels, height, width, expand) for _ in range(depth)))
