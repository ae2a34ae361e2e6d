"""Geometric augmentation of whole batches, in any dtype: mirror, transpose, padded crop.

No function reads a value on the host, and none indexes with a mask: all can be compiled and queued.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.catalogue import augmentation
from zoo.data.augment.interface import Drawn, OfChosenImages, Operation, Operations, Samples, whole
from zoo.errors import InputError, ShapeError

_FORMATS = (torch.contiguous_format, torch.channels_last)
_HASH = 0x9E3779B1  # odd, so that multiplying permutes; its product's high bits depend on all low ones


def _is_channels_last(images: Tensor) -> bool:
    return images.shape[1] > 1 and images.is_contiguous(memory_format=torch.channels_last)


def choose(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """The changed image where chosen, else the image itself.

    Args:
        chosen: bool (B,). changed, images: (B, C, H, W), one shape and dtype.
    """
    if torch.compiler.is_compiling() or images.device.type != "cpu":
        return torch.where(chosen.view(-1, 1, 1, 1), changed, images)
    # On a CPU a select of whole images from both batches is 4 times as fast as an elementwise `where`.
    batch = len(images)
    last = _is_channels_last(images)
    both = torch.cat((images, changed)).contiguous(memory_format=_FORMATS[last])
    flat = both.permute(0, 2, 3, 1).view(2 * batch, -1) if last else both.view(2 * batch, -1)
    picked = flat.index_select(0, torch.arange(batch) + batch * chosen)
    channels, height, width = images.shape[1:]
    if last:
        return picked.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return picked.view(batch, channels, height, width)


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen images left-right: (B, C, H, W) and bool (B,) to (B, C, H, W)."""
    return choose(chosen, images.flip(-1), images)


def vertical_flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen images top-bottom: (B, C, H, W) and bool (B,) to (B, C, H, W)."""
    return choose(chosen, images.flip(-2), images)


def transpose(images: Tensor, chosen: Tensor) -> Tensor:
    """Exchange rows and columns of the chosen images: (B, C, S, S) and bool (B,) to the same."""
    return choose(chosen, images.transpose(-1, -2), images)


def alternating(indices: Tensor, epoch: int) -> Tensor:
    """Which images to mirror in this epoch when each is mirrored every second one.

    A hash of the sample's number decides which half begins, so nothing needs to be remembered.

    Args:
        indices: int64 (B,), sample numbers in the dataset.
    Returns:
        bool (B,); the opposite for epoch + 1.
    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds", section 3.6 (alternating flip).
    """
    half = ((indices * _HASH) >> 24) & 1
    return (half + epoch) % 2 == 1


def _mirrored(side: int, padding: int, device: torch.device) -> Tensor:
    """Source positions of a reflect-padded axis: 2 1 | 0 1 2 3 | 2 1 for side 4, padding 2."""
    place = torch.arange(-padding, side + padding, device=device).abs()
    return (side - 1) - ((side - 1) - place).abs()


def pad(images: Tensor, padding: int, mode: str) -> Tensor:
    """Pad the last two axes by `padding` on each side with zeros, or by reflection ("reflect")."""
    if mode == "zero":
        return F.pad(images, (padding, padding, padding, padding))
    height, width = images.shape[-2:]
    rows = images.index_select(2, _mirrored(height, padding, images.device))
    return rows.index_select(3, _mirrored(width, padding, images.device))


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int, mode: str = "zero") -> Tensor:
    """Pad each image, then cut the original size out at its own place.

    On a CPU, a row of the result is a run of contiguous elements of the padded batch, so one `index_select`
    over all (overlapping) runs copies whole rows: much faster than indexing pixels. Elsewhere see `gathered_crop`.

    Args:
        images: (B, C, H, W), contiguous or channels-last. top, left: int64 (B,), 0..2*padding.
    Returns:
        (B, C, H, W) in the memory format of `images`.
    """
    if images.device.type != "cpu":
        return gathered_crop(images, top, left, padding, mode)
    padded = pad(images, padding, mode)
    return _cut(padded, top, left, (images.shape[2], images.shape[3]), last=_is_channels_last(images))


def gathered_crop(images: Tensor, top: Tensor, left: Tensor, padding: int, mode: str = "zero") -> Tensor:
    """`crop` as one gather of pixels, without a padded batch: what suits a GPU, and what a compiler can fuse."""
    height, width = images.shape[-2:]
    rows, columns = (
        start.view(-1, 1) + torch.arange(-padding, side - padding, device=images.device)
        for start, side in ((top, height), (left, width))
    )
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & ((columns >= 0) & (columns < width)).unsqueeze(1)
    if mode == "zero":
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    else:
        rows, columns = ((s - 1) - ((s - 1) - p.abs()).abs() for p, s in ((rows, height), (columns, width)))
    image = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    if _is_channels_last(images):
        cut = images.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
    else:
        channel = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
        cut = images[image.unsqueeze(3), channel, rows.view(-1, 1, height, 1), columns.view(-1, 1, 1, width)]
    return cut.masked_fill_(~inside.unsqueeze(1), 0) if mode == "zero" else cut


def window(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut a part of each image out, at its own place.

    Args:
        images: (B, C, H, W), contiguous or channels-last. top, left: int64 (B,). size: (height, width) of the part.
    Returns:
        (B, C, *size) in the memory format of `images`.
    """
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        return _cut(images, top, left, size, last=_is_channels_last(images))
    rows, columns = (
        start.view(-1, 1) + torch.arange(side, device=images.device)
        for start, side in zip((top, left), size, strict=True)
    )
    image = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    cut = images.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
    return cut if _is_channels_last(images) else cut.contiguous()


def _cut(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int], *, last: bool) -> Tensor:
    """`window` on a CPU, channels-last or contiguous: a row of it is a run of elements of the batch."""
    batch, channels, rows, _ = images.shape
    height, width = size
    if not last:
        return _runs(images.contiguous(), top, left, height, width).view(batch, channels, height, width)
    wide = images.permute(0, 2, 3, 1).contiguous().view(batch, 1, rows, -1)
    cut = _runs(wide, top, left * channels, height, width * channels)
    return cut.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _runs(padded: Tensor, top: Tensor, left: Tensor, height: int, run: int) -> Tensor:
    """Runs of `run` elements, `height` rows per plane, from contiguous (B, P, H', W')."""
    batch, planes, rows, columns = padded.shape
    device = padded.device
    plane = torch.arange(batch * planes, device=device).view(batch, planes, 1) * rows
    row = plane + torch.arange(height, device=device) + top.view(-1, 1, 1)
    starts = (row * columns + left.view(-1, 1, 1)).view(-1)
    windows = padded.view(-1).as_strided((padded.numel() - run + 1, run), (1, 1))
    return windows.index_select(0, starts)


def cutout_mask(batch: int, height: int, width: int, side: int, at: tuple[Tensor, Tensor]) -> Tensor:
    """Where a square of `side` lies, centred at (row, column), clipped at the border.

    Args:
        at: two int64 (B,), centres.
    Returns:
        bool (B, 1, H, W), true inside.
    Source: DeVries and Taylor, "Improved Regularization of CNNs with Cutout", section 3.
    """

    def inside(length: int, centre: Tensor) -> Tensor:
        low = (centre - side // 2).view(batch, 1)
        place = torch.arange(length, device=centre.device)
        return (place >= low) & (place < low + side)

    return inside(height, at[0]).view(batch, 1, height, 1) & inside(width, at[1]).view(batch, 1, 1, width)


class Flip(OfChosenImages[augmentation.Flip]):
    """Mirror left-right."""

    def rows(self) -> int:
        """None where each image is mirrored every second epoch."""
        return 0 if self.step.alternate else 1

    def draw_by_sample(self, samples: Samples) -> Tensor | None:
        """bool (B,): which images an alternating flip mirrors."""
        if not self.step.alternate:
            return None
        if samples.indices is None:
            raise InputError("an alternating flip needs the sample numbers of the batch (indices)")
        return alternating(samples.indices, samples.epoch)

    def change(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Mirror the chosen images."""
        return flip(images, chosen)

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Mirror by chance, or every second epoch."""
        if drawn.by_sample is not None:
            return flip(images, drawn.by_sample), targets
        return super().apply(images, targets, drawn)


class VerticalFlip(OfChosenImages[augmentation.VerticalFlip]):
    """Mirror top-bottom."""

    def change(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Mirror the chosen images."""
        return vertical_flip(images, chosen)


class Transpose(OfChosenImages[augmentation.Transpose]):
    """Exchange rows and columns."""

    def check(self, place: int, size: tuple[int, int]) -> None:
        """Square images only."""
        height, width = size
        if height != width:
            raise ShapeError(f"augment transpose needs square images, these are {height}x{width}")

    def change(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Transpose the chosen images."""
        return transpose(images, chosen)


class Crop(Operation[augmentation.Crop]):
    """Pad, then cut at a random place."""

    def check(self, place: int, size: tuple[int, int]) -> None:
        """No reflection beyond the other side of the image."""
        step, (height, width) = self.step, size
        if step.mode == "reflect" and step.padding >= min(size):
            raise ShapeError(f"augment crop cannot reflect {step.padding} pixels of {height}x{width} images")

    def rows(self) -> int:
        """Top and left."""
        return 2

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Cut each image at its own place."""
        places = 2 * self.step.padding + 1
        top, left = whole(drawn.uniform[0], places), whole(drawn.uniform[1], places)
        return crop(images, top, left, self.step.padding, self.step.mode), targets


class Cutout(Operation[augmentation.Cutout]):
    """Zero a square; after normalisation, so that zero is the mean."""

    finished = True

    def rows(self) -> int:
        """Row and column of the centre."""
        return 2

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Zero one square of each image."""
        batch, _, height, width = images.shape
        at = whole(drawn.uniform[0], height), whole(drawn.uniform[1], width)
        return images.masked_fill(cutout_mask(batch, height, width, self.step.size, at), 0.0), targets


OPERATIONS: Operations = MappingProxyType(
    {
        augmentation.Flip: Flip,
        augmentation.VerticalFlip: VerticalFlip,
        augmentation.Transpose: Transpose,
        augmentation.Crop: Crop,
        augmentation.Cutout: Cutout,
    }
)
