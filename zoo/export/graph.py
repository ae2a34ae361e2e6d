"""From a module to the graph that every format is written from."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from zoo.errors import ZooError
from zoo.evaluate.classifier import Classifier
from zoo.evaluate.views import cooled, views
from zoo.export.facts import PIXEL_VALUES, PIXELS, PREPARED, Takes

EXAMPLES = 2
"""Images that a graph is traced with: one would be taken for a constant."""


class ExportError(ZooError):
    """A model cannot be exported, or what was exported does not give the same logits."""


class Pixels(nn.Module):
    """Scaling and normalisation before the model: bytes of images in, logits out, divided by the run's temperature.

    The arithmetic is that of `zoo.data.augment.pipeline`, so that both give the same floats.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model, self.temperature = classifier.module, classifier.temperature
        ones, given = torch.ones(classifier.sizes.in_channels), classifier.preprocessing
        std = torch.tensor(given.std) * ones if given.normalize else ones
        mean = torch.tensor(given.mean) * ones if given.normalize else ones * 0
        self.register_buffer("scale", (1 / std / 255).view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(-1, 1, 1), persistent=False)

    def prepare(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, C) to float32 (B, C, H, W), as the model takes them."""
        return pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, C) to (B, num_classes)."""
        return cooled(self.model(self.prepare(pixels)), self.temperature)


class PixelValues(Pixels):
    """The same for floats of 0 to 255, channels first, and over the test-time views of each image."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self.averaged = views(self.model, classifier.tta, classifier.tta_margin)

    def prepare(self, pixels: Tensor) -> Tensor:
        """float32 (B, C, H, W), 0 to 255, to the same as the model takes it."""
        return pixels * self.scale + self.shift

    def forward(self, pixel_values: Tensor) -> Tensor:
        """float32 (B, C, H, W), 0 to 255, to (B, num_classes)."""
        return cooled(self.averaged(self.prepare(pixel_values)), self.temperature)


class Prepared(nn.Module):
    """The model itself, its input under one name in every file."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model, self.temperature = classifier.module, classifier.temperature

    def forward(self, images: Tensor) -> Tensor:
        """float32 (B, C, H, W), prepared, to (B, num_classes)."""
        return cooled(self.model(images), self.temperature)


def wrapped(classifier: Classifier, takes: Takes) -> nn.Module:
    """The module that is traced, in eval mode."""
    kinds: dict[Takes, type[Pixels] | type[Prepared]]
    kinds = {PREPARED: Prepared, PIXELS: Pixels, PIXEL_VALUES: PixelValues}
    return kinds[takes](classifier).eval()


def sample(classifier: Classifier, count: int, *, takes: Takes, seed: int = 0) -> Tensor:
    """Random images as the graph takes them: smooth ones and noise by turns, so that no two are alike.

    Returns:
        uint8 (count, H, W, C), or float32 (count, C, H, W): the same values, or prepared from them.
    """
    sizes = classifier.sizes
    draw = torch.Generator().manual_seed(seed)
    shape = (count, sizes.in_channels, sizes.height, sizes.width)
    noise = torch.rand(shape, generator=draw)
    coarse = torch.rand((count, sizes.in_channels, 2, 2), generator=draw)
    smooth = nn.functional.interpolate(coarse, shape[2:], mode="bilinear", align_corners=True)
    even = (torch.arange(count) % 2 == 0).view(-1, 1, 1, 1)
    pixels = (torch.where(even, smooth, noise) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    if takes == PIXEL_VALUES:
        return pixels.permute(0, 3, 1, 2).float().contiguous()
    return pixels if takes == PIXELS else Pixels(classifier).prepare(pixels).contiguous()


def trace(
    classifier: Classifier, *, batch: int | None, takes: Takes, largest_batch: int | None = None
) -> ExportedProgram:
    """Trace the module with torch.export.

    Args:
        batch: how many images a call takes; None: any number, or up to `largest_batch`.
    Raises:
        ExportError: torch cannot trace it; says why.
    """
    module = wrapped(classifier, takes)
    example = sample(classifier, batch or EXAMPLES, takes=takes)
    shapes = None if batch else ({0: Dim("batch", max=largest_batch)},)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (example,), dynamic_shapes=shapes)
    except Exception as error:
        hint = "" if batch else "; with a fixed --batch N it may be"
        raise ExportError(f"{classifier.name}: cannot be traced by torch.export: {first(error)}{hint}") from error


def first(error: BaseException) -> str:
    """The first line of an error, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300]
