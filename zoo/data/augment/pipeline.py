"""A recipe's augmentation as one pure function of whole batches on the device.

To add a step, write its struct in `zoo.catalogue.augmentation` and its operation in a file beside this one, with a
line in that file's `OPERATIONS`.

Randomness is drawn apart from its use: `Augment.draw` takes all numbers of a batch from one CPU generator
(made afresh from seed, epoch and step, see `zoo.data.batches.resident.generator`) and brings them to the device
in one copy; `Augment.apply` is a function of tensors only, which torch.compile can fuse.

Steps run in the recipe's order, except that cutout, mixup and cutmix run after normalisation (cutout's
zero is then the mean). A random-resized-crop comes first; what it cuts is a function of (seed, epoch, sample
number), so that a source which cuts before it gives images to this size (see `zoo.data.batches.stream`) cuts the
same. Geometric steps work on the uint8 batch as long as no colour step came before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.base.structs import Decoding
from zoo.catalogue import augmentation
from zoo.data.augment import boxes, colour, geometry, mix, progressive, randaugment
from zoo.data.augment.crop import Bounds
from zoo.data.augment.interface import Drawn, Operations, Samples

OPERATIONS: Operations = MappingProxyType(
    {
        **geometry.OPERATIONS,
        **progressive.OPERATIONS,
        **colour.OPERATIONS,
        **mix.OPERATIONS,
        **boxes.OPERATIONS,
        **randaugment.OPERATIONS,
    }
)
"""Which operation does the steps of each struct of `zoo.catalogue.augmentation`."""


class Draws(NamedTuple):
    """All random numbers of one batch.

    Attributes:
        uniform: float32 (K, B) on the device, in 0..1; each step has some of the rows.
        host: the same on the CPU, for RandAugment.
        orders: per step, what it drew besides (colour jitter: which of its changes comes first).
        by_sample: per step, what depends on the sample numbers and the epoch: (B, ...), or None.
    """

    uniform: Tensor
    host: Tensor
    orders: tuple[int, ...]
    by_sample: tuple[Tensor | None, ...]

    def of(self, rows: Callable[..., Tensor]) -> Draws:
        """What was drawn for some images of the batch; `rows(tensor, dim)` takes them along an axis."""
        by_sample = tuple(None if tensor is None else rows(tensor) for tensor in self.by_sample)
        return Draws(rows(self.uniform, 1), rows(self.host, 1), self.orders, by_sample)


def build(
    steps: Sequence[augmentation.Step],
    mean: Sequence[float],
    std: Sequence[float],
    normalize: bool = True,
    *,
    size: tuple[int, int],
    num_classes: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Augment:
    """The function for a recipe's steps on a dataset.

    Args:
        mean, std: per channel, of values in 0..1. normalize: whether to use them; else values stay in 0..1.
        size: (height, width). num_classes: for the soft targets of mixup and cutmix.
        dtype: of the images that come out; all arithmetic before is float32.
        seed: of random-resized-crop.
    Raises:
        ShapeError: a step does not suit the size. InputError: RandAugment's magnitude is above 30.
    """
    for place, step in enumerate(steps):
        OPERATIONS[type(step)](step).check(place, size)
    return Augment(tuple(steps), mean, std, normalize, size, num_classes, torch.device(device), dtype, seed)


def crop_bounds(steps: Sequence[augmentation.Step], decoding: Decoding | None = None) -> Bounds | None:
    """What the recipe's random-resized-crop may cut; None where it has none.

    Args:
        decoding: how the run that cuts decodes, see `zoo.data.augment.crop.Bounds`.
    Raises:
        InputError: it is not the first step, or a range of it is the wrong way round.
    """
    bounds = None
    for place, step in enumerate(steps):
        if isinstance(step, augmentation.RandomResizedCrop):
            bounds = boxes.RandomResizedCrop(step).bounds(place)
            bounds = bounds._replace(reduced=decoding is not None, by_torch=decoding == "reduced-torch")
    return bounds


class Augment:
    """uint8 batches in, float batches and targets out; made by `build`.

    Attributes:
        soft: whether targets are class shares (B, K); else they are the labels.
        compilable: whether `apply` can be compiled whole (RandAugment groups images on the host).
    """

    def __init__(
        self,
        steps: tuple[augmentation.Step, ...],
        mean: Sequence[float],
        std: Sequence[float],
        normalize: bool,
        size: tuple[int, int],
        num_classes: int,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        """See `build`."""
        self.size, self.seed = size, seed
        self.operations = sorted((OPERATIONS[type(step)](step) for step in steps), key=lambda op: op.finished)
        self.device, self.dtype, self.num_classes = device, dtype, num_classes
        self.soft = any(operation.soft for operation in self.operations)
        self.compilable = all(operation.compilable for operation in self.operations)
        ends = list(accumulate((operation.rows() for operation in self.operations), initial=0))
        self.rows = tuple(slice(start, end) for start, end in pairwise(ends))
        spread = torch.tensor(std if normalize else [1.0] * len(std), dtype=torch.float32)
        centre = torch.tensor(mean if normalize else [0.0] * len(mean), dtype=torch.float32)
        self.scale = (1 / spread).view(-1, 1, 1).to(device)
        self.shift = (-centre / spread).view(-1, 1, 1).to(device)

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
        *,
        indices: Tensor | None = None,
        epoch: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Draw and apply.

        Args:
            images: uint8 (B, 3, H, W). labels: int64 (B,). generator: on the CPU; not needed without steps.
            indices: int64 (B,), sample numbers, and epoch: for the alternating flip and random-resized-crop.
        Returns:
            float (B, 3, H, W), and int64 (B,) or, where `soft`, float32 (B, num_classes).
        """
        return self.apply(images, labels, self.draw(len(images), generator, indices=indices, epoch=epoch))

    def draw(
        self, batch: int, generator: torch.Generator | None, *, indices: Tensor | None = None, epoch: int = 0
    ) -> Draws:
        """All random numbers of a batch of `batch` images; a function of the generator's seed alone."""
        host = torch.rand(self.rows[-1].stop if self.rows else 0, batch, generator=generator)
        parts = list(zip(self.operations, self.rows, strict=True))
        orders = tuple(operation.draw(host[rows], generator, epoch) for operation, rows in parts)
        samples = Samples(None if indices is None else indices.to(self.device), epoch, self.seed, self.size)
        by_sample = tuple(operation.draw_by_sample(samples) for operation in self.operations)
        uniform = host if self.device.type == "cpu" else host.to(self.device, non_blocking=True)
        return Draws(uniform, host, orders, by_sample)

    def apply(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Change the images by the numbers drawn: a pure function, the same on every device."""
        targets = mix.soft_targets(labels, self.num_classes) if self.soft else labels
        finished = False
        for place, (operation, rows) in enumerate(zip(self.operations, self.rows, strict=True)):
            if operation.finished and not finished:
                images, finished = self._finish(images), True
            drawn = Drawn(draws.uniform[rows], draws.host[rows], draws.orders[place], draws.by_sample[place])
            images, targets = operation.apply(images, targets, drawn)
        images = images if finished else self._finish(images)
        return images.to(self.dtype), targets

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to what the model takes, without any step: for evaluation."""
        return self._finish(images).to(self.dtype)

    def _finish(self, images: Tensor) -> Tensor:
        """To float and normalised, in one pass over uint8 images."""
        scale = self.scale / 255 if images.dtype == torch.uint8 else self.scale
        if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
            # A vector as long as an image row: three channels alone leave the inner loop too short.
            batch, channels, height, width = images.shape
            rows = images.permute(0, 2, 3, 1).view(batch, height, width * channels).float()
            done = rows * scale.view(-1).repeat(width) + self.shift.view(-1).repeat(width)
            return done.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return images.float() * scale + self.shift
