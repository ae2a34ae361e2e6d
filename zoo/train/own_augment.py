"""A function of the user's own that changes the training batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.base.text import first_line
from zoo.catalogue.own_code import OwnCode, of_object
from zoo.data.split import Split
from zoo.errors import InputError, ZooError


@dataclass(frozen=True)
class OwnAugment:
    """Changes each training batch on the device, before the recipe's own steps and the normalisation.

    It gets uint8 images (B, 3, H, W) of values 0..255 and int64 labels (B,), B being the images of a micro-batch of
    this process, and returns images of the same shape, uint8 or floats of 0..1, and labels of the same shape; or the
    images alone. Where images are streamed and the recipe cuts at random, they are cut before. It is not compiled.
    Before each step the run seeds torch's generators by its seed, the epoch and the step, so that what it draws from
    them is the same each time, also after a resumption; what it draws from elsewhere (`random`, numpy) is not.

    Attributes:
        function: see above. code: its source.
    """

    function: Callable[..., Any]
    code: OwnCode

    @classmethod
    def of(cls, function: Callable[..., Any]) -> OwnAugment:
        """The function with its source.

        Raises:
            InputError: it cannot be called.
        """
        if not callable(function):
            raise InputError(f"augment: of type {type(function).__name__}; give a function of (images, labels)")
        return cls(function, of_object(function))

    def try_out(self, split: Split, device: torch.device, classes: int) -> None:
        """Change two images, so that what is wrong shows before the run begins; torch's generator stays as it is.

        Args:
            classes: how many there are.
        Raises:
            InputError: as `__call__`.
        """
        few = split.select(np.arange(min(2, len(split))))
        with torch.random.fork_rng(devices=[]):
            images, labels = torch.from_numpy(np.array(few.images[: len(few)])), torch.from_numpy(few.labels)
            self(images.to(device), labels.to(device), classes)

    def __call__(self, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Change one batch.

        Args:
            classes: how many there are; that no label is beyond them is seen where the device need not be waited for.
        Raises:
            InputError: it failed, or what it returned is no such batch.
        """
        try:
            with torch.no_grad():
                made = self.function(images.clone(), labels.clone())
        except ZooError:
            raise
        except (Exception, SystemExit) as error:
            raise self._wrong(f"failed: {type(error).__name__}: {first_line(error)}") from error
        changed, numbers = made if isinstance(made, tuple | list) and len(made) == 2 else (made, labels)
        if not isinstance(changed, Tensor) or not isinstance(numbers, Tensor):
            raise self._wrong(f"returned {_named(changed)}; give the images, or (images, labels), as tensors")
        if changed.shape != images.shape:
            raise self._wrong(f"made {tuple(changed.shape)} of images {tuple(images.shape)}; the shape must stay")
        if changed.dtype != torch.uint8 and not changed.is_floating_point():
            raise self._wrong(f"returned images of {changed.dtype}; give uint8, or floats of 0..1")
        if numbers.shape != labels.shape or numbers.dtype != labels.dtype:
            raise self._wrong(f"returned labels {tuple(numbers.shape)} of {numbers.dtype}; give int64 ({len(labels)},)")
        if numbers is not labels and numbers.device.type == "cpu" and len(numbers):
            low, high = int(numbers.min()), int(numbers.max())
            if low < 0 or high >= classes:
                raise self._wrong(f"returned labels from {low} to {high}; allowed: 0..{classes - 1}")
        if changed.is_meta or numbers.is_meta:
            raise self._wrong("returned tensors of the device meta, which have no values")
        return changed.to(images.device), numbers.to(labels.device)

    def _wrong(self, what: str) -> InputError:
        return InputError(f"augment {self.code.attribute}: {what}")


def code_of(augment: OwnAugment | None) -> OwnCode | None:
    """The source of a function for batches, where there is one."""
    return None if augment is None else augment.code


def _named(value: Any) -> str:
    return type(value).__name__
