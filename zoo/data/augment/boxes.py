"""Random crops of whole batches on the device: the numbers of `zoo.data.augment.crop`, drawn all at once."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.catalogue import augmentation
from zoo.data.augment.crop import ATTEMPTS, UNIT, Bounds, centre_box, crop_key
from zoo.data.augment.interface import Drawn, Operation, Operations, Samples
from zoo.errors import InputError


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


_GOLDEN, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shifted(state: Tensor, bits: int) -> Tensor:
    return (state >> bits) & ((1 << (64 - bits)) - 1)  # torch has no unsigned shift


def _mixed(state: Tensor, part: Tensor) -> Tensor:
    """One round of `zoo.data.seeds.mix_seed`, in int64 arithmetic that wraps."""
    state = state + part + _GOLDEN
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def uniforms(key: int, rows: Tensor, count: int) -> Tensor:
    """`crop.uniform` of each row: int64 (B,) to float64 (count, B), float32 where there is no other."""
    start = _mixed(torch.zeros_like(rows), torch.full_like(rows, _signed(key)))
    each = _mixed(start, rows)
    numbers = torch.arange(count, device=rows.device).view(-1, 1)
    wide = torch.float32 if rows.device.type == "mps" else torch.float64
    return _shifted(_mixed(each.expand(count, -1), numbers), 11).to(wide) * UNIT


def random_boxes(key: int, rows: Tensor, height: int, width: int, bounds: Bounds) -> Tensor:
    """`zoo.data.augment.crop.random_box` of each row.

    Args:
        rows: int64 (B,), sample numbers. height, width: of all images.
    Returns:
        int64 (B, 4): top, left, height, width.
    """
    drawn = uniforms(key, rows, 2 * ATTEMPTS + 2)
    low, high = math.log(bounds.ratio[0]), math.log(bounds.ratio[1])
    share = bounds.scale[0] + (bounds.scale[1] - bounds.scale[0]) * drawn[0 : 2 * ATTEMPTS : 2]
    aspect = torch.exp(low + (high - low) * drawn[1 : 2 * ATTEMPTS : 2])
    area = height * width * share
    wide, tall = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.int().argmax(0, keepdim=True)
    wide, tall = wide.gather(0, first)[0], tall.gather(0, first)[0]
    top = (drawn[-2] * (height - tall + 1)).long()
    left = (drawn[-1] * (width - wide + 1)).long()
    fit, centre = fits.any(0), centre_box(height, width, bounds.ratio)
    # Numbers, not a tensor of them: copying it to a GPU would wait for it.
    found = (top, left, tall, wide)
    return torch.stack([torch.where(fit, *sides) for sides in zip(found, centre, strict=True)], 1)


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut each image by its own box and scale that to the full size, bilinearly.

    A box is never larger than the image, so this enlarges: averaging (antialiasing) would change nothing.

    Args:
        images: (B, C, H, W), uint8 or float. boxes: int64 (B, 4), see `random_boxes`.
    Returns:
        (B, C, H, W) of the same type, in the memory format of `images`.
    """
    height, width = images.shape[-2:]
    rows = _places(boxes[:, 0], boxes[:, 2], height)
    columns = _places(boxes[:, 1], boxes[:, 3], width)
    grid = torch.stack(
        (
            columns[:, None, :].expand(-1, height, -1) * (2 / width) - 1,
            rows[:, :, None].expand(-1, -1, width) * (2 / height) - 1,
        ),
        dim=-1,
    )
    cut = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        cut = cut.contiguous(memory_format=torch.channels_last)
    return cut if images.is_floating_point() else cut.round().clamp_(0, 255).to(images.dtype)


def _places(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Where each of `side` pixels lies in the image, float32 (B, side), the first pixel's centre at 0.5."""
    step = (torch.arange(side, device=start.device) + 0.5) * (length[:, None] / side)
    inside = torch.minimum(step.clamp(min=0.5), length[:, None] - 0.5)  # its edge repeats, as in a cut image
    return (start[:, None] + inside).float()


class RandomResizedCrop(Operation[augmentation.RandomResizedCrop]):
    """Cut a random box and scale it to the full size."""

    def bounds(self, place: int) -> Bounds:
        """What may be cut.

        Args:
            place: of the step in its recipe, the first being 0.
        Raises:
            InputError: it is not the first step, or a range is the wrong way round.
        """
        if place:
            raise InputError("augment random-resized-crop must be the first step, and may be used once")
        for name in ("scale", "ratio"):
            low, high = getattr(self.step, name)
            if low > high:
                raise InputError(f"augment random-resized-crop.{name} is [{low}, {high}]; the smaller comes first")
        return Bounds(self.step.scale, self.step.ratio)

    def check(self, place: int, size: tuple[int, int]) -> None:
        """See `bounds`."""
        self.bounds(place)

    def rows(self) -> int:
        """None: what is cut depends on the sample number."""
        return 0

    def draw_by_sample(self, samples: Samples) -> Tensor | None:
        """int64 (B, 4): the box of each image."""
        if samples.indices is None:
            raise InputError("random-resized-crop needs the sample numbers of the batch (indices)")
        key, bounds = crop_key(samples.seed, samples.epoch), Bounds(self.step.scale, self.step.ratio)
        return random_boxes(key, samples.indices, *samples.size, bounds)

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Cut each image by its own box."""
        assert drawn.by_sample is not None
        return resized_crop(images, drawn.by_sample), targets


OPERATIONS: Operations = MappingProxyType({augmentation.RandomResizedCrop: RandomResizedCrop})
