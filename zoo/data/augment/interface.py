"""What every operation of an augmentation answers: see `zoo.data.augment.pipeline`, which runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from zoo.catalogue.augmentation import Augmentation

StepT = TypeVar("StepT", bound=Augmentation)


class WithProbability(Protocol):
    """A step that changes an image with probability `p`."""

    @property
    def p(self) -> float:
        """Probability, 0..1."""


ChosenT = TypeVar("ChosenT", bound=WithProbability)


class Samples(NamedTuple):
    """Which images a batch holds.

    Attributes:
        indices: int64 (B,) on the device, sample numbers; None where the caller gave none.
        size: (height, width) of the images.
    """

    indices: Tensor | None
    epoch: int
    seed: int
    size: tuple[int, int]


class Drawn(NamedTuple):
    """The random numbers of one step for one batch.

    Attributes:
        uniform: float32 (rows, B) on the device, in 0..1. host: the same on the CPU.
        order: what `Operation.draw` returned.
        by_sample: what `Operation.draw_by_sample` returned.
    """

    uniform: Tensor
    host: Tensor
    order: int
    by_sample: Tensor | None


class Operation(Generic[StepT]):
    """How a step of a recipe is done; one subclass for each struct of `zoo.catalogue.augmentation`.

    Attributes:
        finished: whether it takes finished images (float, normalised), and so runs after the others.
        soft: whether it mixes targets, which are then class shares.
        compilable: whether `apply` can be compiled (it does not read `Drawn.host`).
    """

    finished: ClassVar[bool] = False
    soft: ClassVar[bool] = False
    compilable: ClassVar[bool] = True

    def __init__(self, step: StepT) -> None:
        """An operation for this step of a recipe."""
        self.step = step

    def check(self, place: int, size: tuple[int, int]) -> None:
        """Refuse a step that does not suit its place in the recipe (0: first) or the images' (height, width).

        Raises:
            ShapeError: the size. InputError: the place or the arguments.
        """

    def rows(self) -> int:
        """How many uniform numbers each image gets."""
        return 1

    def draw(self, numbers: Tensor, generator: torch.Generator | None, epoch: int) -> int:
        """Draw what is not uniform: change this step's `numbers` (rows, B) in place, or return an order.

        Args:
            epoch: from 0.
        """
        return 0

    def draw_by_sample(self, samples: Samples) -> Tensor | None:
        """What depends on the sample numbers and the epoch alone: (B, ...) on the device."""
        return None

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Change the images (B, 3, H, W) and, where `soft`, the targets (B, K)."""
        raise NotImplementedError


Operations = Mapping[type[Augmentation], type[Operation[Any]]]
"""A table of an op file: which operation does the steps of a struct."""


class OfChosenImages(Operation[ChosenT]):  # type: ignore[type-var]  # a struct, with a field `p`
    """An operation that changes each image with the probability `p` of its step."""

    def change(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Change the chosen images: (B, 3, H, W) and bool (B,)."""
        raise NotImplementedError

    def apply(self, images: Tensor, targets: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Choose by the first number of each image."""
        return self.change(images, drawn.uniform[0] < self.step.p), targets


def unit(images: Tensor) -> Tensor:
    """Float values in 0..1, of uint8 images or of such floats."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def whole(uniform: Tensor, count: int) -> Tensor:
    """Uniform in 0..1 to whole numbers 0..count-1."""
    return (uniform * count).long().clamp_(max=count - 1)
