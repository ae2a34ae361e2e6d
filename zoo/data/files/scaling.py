"""Crops that were cut from image files, scaled to the training size by torch."""

from __future__ import annotations

from zoo.data.types import Images


def scale_into(pixels: Images, out: Images) -> None:
    """Scale one crop by torch's bilinear filter for bytes, which averages when it shrinks.

    It computes as PIL's filter does, but with weights of 16 bits: a value differs from PIL's by 1 of 255 at most.

    Args:
        pixels: uint8 (h, w, 3), writable. out: uint8 (H, W, 3), written to.
    """
    import torch
    from torch.nn.functional import interpolate

    if pixels.shape == out.shape:
        out[...] = pixels
        return
    batch = torch.from_numpy(pixels[None]).permute(0, 3, 1, 2)
    scaled = interpolate(batch, out.shape[:2], mode="bilinear", antialias=True)
    out[...] = scaled[0].permute(1, 2, 0).numpy()
