"""A recipe's augmentation as one pure function of whole batches on the device.

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
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.catalogue import augmentation
from zoo.data.augment import boxes, colour, geometry, mix
from zoo.data.augment.crop import Bounds, crop_key
from zoo.errors import InputError, ShapeError

_JITTERS: tuple[tuple[str, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("brightness", colour.adjust_brightness),
    ("contrast", colour.adjust_contrast),
    ("saturation", colour.adjust_saturation),
    ("hue", colour.adjust_hue),
)
_LATE = (augmentation.Cutout, augmentation.Mixup, augmentation.CutMix)


class Draws(NamedTuple):
    """All random numbers of one batch.

    Attributes:
        uniform: float32 (K, B) on the device, in 0..1; each step owns some rows.
        host: the same on the CPU, for RandAugment.
        orders: per jitter step, which of its operations comes first.
        flips: bool (B,), which images the alternating flip mirrors, where a step alternates.
        boxes: int64 (B, 4), what a random-resized-crop cuts out, where it is a step.
    """

    uniform: Tensor
    host: Tensor
    orders: tuple[int, ...]
    flips: Tensor | None
    boxes: Tensor | None = None

    def of(self, rows: Callable[..., Tensor]) -> Draws:
        """What was drawn for some images of the batch; `rows(tensor, dim)` takes them along an axis."""
        flips, cut = (None if t is None else rows(t) for t in (self.flips, self.boxes))
        return Draws(rows(self.uniform, 1), rows(self.host, 1), self.orders, flips, cut)


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
    height, width = size
    for step in steps:
        if isinstance(step, augmentation.Transpose) and height != width:
            raise ShapeError(f"augment transpose needs square images, these are {height}x{width}")
        if isinstance(step, augmentation.Crop) and step.mode == "reflect" and step.padding >= min(size):
            raise ShapeError(f"augment crop cannot reflect {step.padding} pixels of {height}x{width} images")
        if isinstance(step, augmentation.RandAugment) and step.magnitude > 30:
            raise InputError(f"augment randaugment.magnitude is {step.magnitude}; allowed: 0..30")
    crop_bounds(steps)
    return Augment(tuple(steps), mean, std, normalize, size, num_classes, torch.device(device), dtype, seed)


def crop_bounds(steps: Sequence[augmentation.Step]) -> Bounds | None:
    """What the recipe's random-resized-crop may cut; None where it has none.

    Raises:
        InputError: it is not the first step, or a range of it is the wrong way round.
    """
    crops = [step for step in steps if isinstance(step, augmentation.RandomResizedCrop)]
    if not crops:
        return None
    if len(crops) > 1 or steps[0] is not crops[0]:
        raise InputError("augment random-resized-crop must be the first step, and can be there once")
    for name in ("scale", "ratio"):
        low, high = getattr(crops[0], name)
        if low > high:
            raise InputError(
                f"augment random-resized-crop.{name} is [{low}, {high}]; the smaller comes first"
            )
    return Bounds(crops[0].scale, crops[0].ratio)


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
        self.size, self.seed, self.bounds = size, seed, crop_bounds(steps)
        self.steps = tuple(sorted(steps, key=lambda step: isinstance(step, _LATE)))
        self.device, self.dtype, self.num_classes = device, dtype, num_classes
        self.soft = any(isinstance(s, augmentation.Mixup | augmentation.CutMix) for s in steps)
        self.compilable = not any(isinstance(s, augmentation.RandAugment) for s in steps)
        self.rows = sum(map(_rows, self.steps))
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
        host = torch.rand(self.rows, batch, generator=generator)
        orders, row = [], 0
        for step in self.steps:
            if isinstance(step, augmentation.Mixup | augmentation.CutMix):
                host[row] = _share(step.alpha, generator)
                rest = slice(row + 1, row + _rows(step))
                host[rest] = host[rest, :1].clone()  # one draw for all, whichever rows are taken
            if isinstance(step, augmentation.Jitter):
                first = torch.randint(max(1, _rows(step)), (), generator=generator)
                orders.append(int(first))
            row += _rows(step)
        flips = None
        if any(isinstance(step, augmentation.Flip) and step.alternate for step in self.steps):
            if indices is None:
                raise InputError("an alternating flip needs the sample numbers of the batch (indices)")
            flips = geometry.alternating(indices.to(self.device), epoch)
        cut = None if self.bounds is None else self._boxes(self.bounds, indices, epoch)
        uniform = host if self.device.type == "cpu" else host.to(self.device, non_blocking=True)
        return Draws(uniform, host, tuple(orders), flips, cut)

    def _boxes(self, bounds: Bounds, indices: Tensor | None, epoch: int) -> Tensor:
        if indices is None:
            raise InputError("random-resized-crop needs the sample numbers of the batch (indices)")
        return boxes.random_boxes(crop_key(self.seed, epoch), indices.to(self.device), *self.size, bounds)

    def apply(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Change the images by the numbers drawn: a pure function, the same on every device."""
        targets = mix.soft_targets(labels, self.num_classes) if self.soft else labels
        row, jitters, finished = 0, 0, False
        for step in self.steps:
            own = slice(row, row + _rows(step))
            row = own.stop
            if isinstance(step, _LATE):
                images = images if finished else self._finish(images)
                finished = True
                images, targets = _late(step, images, targets, draws.uniform[own])
            elif isinstance(step, augmentation.Jitter):
                images = _jitter(step, _unit(images), draws.uniform[own], draws.orders[jitters])
                jitters += 1
            elif isinstance(step, augmentation.RandAugment):
                images = _randaugment(step, images, draws.host[own])
            elif isinstance(step, augmentation.Flip) and step.alternate and draws.flips is not None:
                images = geometry.flip(images, draws.flips)
            elif isinstance(step, augmentation.RandomResizedCrop) and draws.boxes is not None:
                images = boxes.resized_crop(images, draws.boxes)
            else:
                images = _early(step, images, draws.uniform[own])
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


def _rows(step: augmentation.Step) -> int:
    """How many rows of uniform numbers a step uses."""
    if isinstance(step, augmentation.Jitter):
        return sum(getattr(step, name) > 0 for name, _ in _JITTERS)
    if isinstance(step, augmentation.RandAugment):
        return 2 * step.n
    if isinstance(step, augmentation.Flip):
        return 0 if step.alternate else 1
    if isinstance(step, augmentation.RandomResizedCrop):
        return 0
    return {augmentation.Crop: 2, augmentation.Cutout: 2, augmentation.Mixup: 2, augmentation.CutMix: 4}.get(
        type(step), 1
    )


def _unit(images: Tensor) -> Tensor:
    """Float values in 0..1."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _whole(uniform: Tensor, count: int) -> Tensor:
    """Uniform in 0..1 to whole numbers 0..count-1."""
    return (uniform * count).long().clamp_(max=count - 1)


def _share(alpha: float, generator: torch.Generator | None) -> Tensor:
    """One draw of Beta(alpha, alpha), as the ratio of two gamma draws."""
    gamma = torch._standard_gamma(torch.full((2,), alpha), generator=generator)
    return gamma[0] / gamma.sum().clamp(min=torch.finfo(torch.float32).tiny)


def _early(step: augmentation.Step, images: Tensor, uniform: Tensor) -> Tensor:
    """Flips, transpose, crop, brightness, grayscale."""
    if isinstance(step, augmentation.Crop):
        places = 2 * step.padding + 1
        top, left = _whole(uniform[0], places), _whole(uniform[1], places)
        return geometry.crop(images, top, left, step.padding, step.mode)
    chosen = uniform[0] < getattr(step, "p", 1.0)
    if isinstance(step, augmentation.Flip):
        return geometry.flip(images, chosen)
    if isinstance(step, augmentation.VerticalFlip):
        return geometry.vertical_flip(images, chosen)
    if isinstance(step, augmentation.Transpose):
        return geometry.transpose(images, chosen)
    if isinstance(step, augmentation.Grayscale):
        return colour.grayscale(_unit(images), chosen)
    if isinstance(step, augmentation.Brightness):
        return colour.adjust_brightness(_unit(images), torch.where(chosen, step.factor, 1.0))
    raise InputError(f"no augmentation for {type(step).__name__}")


def _jitter(step: augmentation.Jitter, images: Tensor, uniform: Tensor, first: int) -> Tensor:
    """Colour jitter; the operations keep their cyclic order, and a draw says which is the first.

    torchvision draws any order; a rotation gives each operation the same chance to be first, and keeps
    the number of graphs that the compiler sees at four or fewer.
    """
    active = [(name, change) for name, change in _JITTERS if getattr(step, name) > 0]
    for number in range(len(active)):
        place = (number + first) % len(active)
        name, change = active[place]
        width = getattr(step, name)
        low, high = (-width, width) if name == "hue" else (max(0.0, 1 - width), 1 + width)
        images = change(images, low + (high - low) * uniform[place])
    return images


def _randaugment(step: augmentation.RandAugment, images: Tensor, host: Tensor) -> Tensor:
    from zoo.data.augment.randaugment import randaugment  # torchvision is slow to import

    if images.dtype != torch.uint8:
        images = (images * 255).round().to(torch.uint8)
    return randaugment(images, host, step.magnitude)


def _late(step: augmentation.Step, images: Tensor, targets: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Cutout, mixup, cutmix: on finished images."""
    if isinstance(step, augmentation.Cutout):
        batch, _, height, width = images.shape
        at = _whole(uniform[0], height), _whole(uniform[1], width)
        mask = geometry.cutout_mask(batch, height, width, step.size, at)
        return images.masked_fill(mask, 0.0), targets
    share = torch.where(uniform[1, 0] < getattr(step, "p", 1.0), uniform[0, 0], 1.0)
    if isinstance(step, augmentation.Mixup):
        return mix.mixup(images, targets, share)
    return mix.cutmix(images, targets, share, uniform[2, 0], uniform[3, 0])
