"""From a picture of any size and kind to the floats that a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from io import IOBase
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.base.paths import local_path
from zoo.data.augment import pipeline as augment
from zoo.data.files.decode import Rule, image_array
from zoo.data.files.deep_colour import unread_file
from zoo.data.types import Images, Item
from zoo.errors import InputError
from zoo.models.precision import usual_torch

CPU = torch.device("cpu")

Picture: TypeAlias = Path | str | bytes | Image.Image | NDArray[np.uint8]
"""An image of any size: a file, the bytes of one, an opened one, or a uint8 array of (H, W[, 1, 3 or 4])."""

KINDS = (Path, str, bytes, Image.Image, np.ndarray)
TAKEN = "a path, the bytes of a file, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4)"


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a model sees it.

    Attributes:
        rule: how it is brought to the model's size.
        mean, std: of each channel (or one for all), of pixel values in 0..1.
        normalize: whether the model takes (x/255 - mean)/std; else x/255.
    """

    rule: Rule
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    normalize: bool = False

    def floats(self, size: tuple[int, int], num_classes: int, device: torch.device = CPU) -> augment.Augment:
        """What makes floats of uint8 (B, 3, H, W): training's pipeline without any step."""
        return augment.build((), self.mean, self.std, self.normalize, size=size, num_classes=num_classes, device=device)


@dataclass(frozen=True)
class ImageTransform:
    """One picture to what a model takes, as an evaluation prepares it: for datasets, loaders and their workers.

    It is a function of its fields, can be pickled, and stands where torchvision takes a `transform`.

    Attributes:
        preprocessing: how it is scaled, cut and normalised. size: (height, width) of what comes out.

    Example:
        >>> model = zoo.load("last")  # doctest: +SKIP
        >>> torchvision.datasets.ImageFolder("photos", transform=model.transform)  # doctest: +SKIP
    """

    preprocessing: Preprocessing
    size: tuple[int, int]

    def __call__(self, picture: Picture) -> Tensor:
        """Prepare one picture.

        Args:
            picture: a path, an encoded image's bytes, a PIL image, or uint8 of (H, W[, 1, 3 or 4]).
        Returns:
            float32 (3, height, width) on the CPU.
        Raises:
            DataError: it cannot be read; names it. InputError: it is no picture.
        """
        item, where = as_item(picture)
        pixels = image_array(item, self.preprocessing.rule, where)
        prepared: Tensor = self._floats.prepare(torch.from_numpy(np.array(pixels))[None])[0]
        return prepared

    @cached_property
    def _floats(self) -> augment.Augment:
        with usual_torch():
            return self.preprocessing.floats(self.size, num_classes=1)

    def __getstate__(self) -> dict[str, Any]:
        """Only the fields: what was made of them is made again where it is unpickled."""
        return {"preprocessing": self.preprocessing, "size": self.size}

    def __repr__(self) -> str:
        """What is done, as a formula."""
        given = self.preprocessing
        how = f"(x/255 - {list(given.mean)})/{list(given.std)}" if given.normalize else "x/255"
        return f"ImageTransform({given.rule or f'{self.size[0]}x{self.size[1]}'}; {how})"


def each(pictures: Picture | Iterable[Picture]) -> Iterator[Picture]:
    """The pictures that were given: one, or several; an array of four axes is several.

    Raises:
        InputError: it is neither; an open file too, which would be taken for its lines.
    """
    if isinstance(pictures, KINDS) and not (isinstance(pictures, np.ndarray) and pictures.ndim == 4):
        return iter([pictures])
    # What has no length, such as a tensor of no axes, says so only when it is asked.
    if isinstance(pictures, bytearray | memoryview | IOBase) or not _is_iterable(pictures):
        raise InputError(f"{type(pictures).__name__} is no image; give {TAKEN}, or several of them")
    return iter(pictures)


def numbered(pictures: Picture | Iterable[Picture]) -> Iterator[tuple[Item, str]]:
    """The pictures as the decoder takes them, each with its name in an error: its path, or "images[2]".

    Raises:
        InputError: one of them is no picture.
    """
    return (as_item(picture, f"images[{number}]") for number, picture in enumerate(each(pictures)))


def _is_iterable(value: object) -> bool:
    try:
        iter(value)  # type: ignore[call-overload]
    except TypeError:
        return False
    return True


def as_item(picture: Picture, where: str = "the image") -> tuple[Item, str]:
    """A picture as the decoder takes it, and its name in an error: the path of a file, else `where`.

    Raises:
        InputError: it is no picture.
    """
    if isinstance(picture, Image.Image):
        # The decoder closes what it opened.
        return unread_file(picture) or picture.copy, where
    if isinstance(picture, bytes):
        return picture, where
    if isinstance(picture, np.ndarray):
        image = _of_array(picture, where)
        return image.copy, where
    if not isinstance(picture, Path | str):
        raise InputError(f"{where}: {type(picture).__name__} is no image; give {TAKEN}")
    return local_path(picture), str(picture)


def _of_array(array: Images, where: str) -> Image.Image:
    """A PIL image of uint8 (H, W[, C])."""
    pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not fits or array.dtype != np.uint8 or 0 in array.shape:
        raise InputError(f"{where}: an array of {array.dtype} {array.shape} is no image; give {TAKEN}")
    return Image.fromarray(np.ascontiguousarray(pixels))
