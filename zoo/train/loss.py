"""The loss of a recipe: what an image costs, and what it counts in the mean.

Whatever the loss, a class weight or a weight of its own makes an image count more or less: the loss of a batch is
sum(weight * loss) / sum(weight), and so the same whether the batch is computed at once, in micro-batches, or by
several processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base.did_you_mean import did_you_mean
from zoo.catalogue.recipe import Recipe
from zoo.data.augment.mix import soft_targets
from zoo.data.split import Split
from zoo.data.types import WEIGHT
from zoo.errors import InputError


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Class shares (B, K) of which `smoothing` is spread evenly over all classes."""
    return targets if smoothing == 0 else targets * (1 - smoothing) + smoothing / targets.shape[1]


def focal(logits: Tensor, targets: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Cross entropy whose terms are scaled down by (1 - p)**gamma, p being the probability of the term's class.

    Args:
        logits, targets: float (B, K), targets class shares. weights: float (K,), of the classes.
    Returns:
        float (B,).
    Source: Lin et al., "Focal Loss for Dense Object Detection", equation 4, with softmax in place of sigmoid.
    """
    logs = logits.log_softmax(1)
    rest = (-torch.expm1(logs)).clamp(min=torch.finfo(logs.dtype).tiny)  # of 0, a power below 1 has no gradient
    terms = targets * rest**gamma * -logs
    return (terms if weights is None else terms * weights).sum(1)


def binary(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of each class against all others, averaged over the classes.

    Args:
        logits, targets: float (B, K), targets in 0..1.
    Returns:
        float (B,).
    Source: Wightman et al., "ResNet strikes back", section 3; averaged over classes as in timm.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


class Mixing(Protocol):
    """An augmentation: whether it gives class shares (`soft`), of how many classes."""

    soft: bool
    num_classes: int


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of one recipe for one set of classes; made by `make_loss`.

    Attributes:
        kind, gamma, smoothing: as in the recipe.
        class_weights: float32 (K,), on the device; None where all classes count the same.
    """

    kind: str = "cross-entropy"
    gamma: float = 2.0
    smoothing: float = 0.0
    class_weights: Tensor | None = None

    shares: ClassVar[bool] = True
    """Whether targets that are no labels are shares of an image's classes, which sum to 1."""

    def __call__(self, logits: Tensor, targets: Tensor, count: float | Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean loss of some images, a scalar.

        Args:
            logits: float32 (B, K). targets: int64 (B,), or class shares, float32 (B, K).
            count: what `count` gave for these images. weights: float32 (B,), of the images; class shares are
                `weighed` by them already.
        """
        if weights is not None and self.shares and targets.is_floating_point():
            weights = targets.sum(1)
            targets = targets / weights.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        if not isinstance(count, Tensor) and self.kind == "cross-entropy":
            return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)
        each = self.each(logits, targets)
        return (each if weights is None else each * weights).sum() / count

    @property
    def weighted(self) -> bool:
        """Whether classes count differently."""
        return self.class_weights is not None

    def count(self, labels: Tensor, weights: Tensor | None = None) -> float | Tensor:
        """What images count together: their number, or the sum of their weights, a scalar on the device.

        Mixup and cutmix blend pairs of a batch with each other, which leaves the sum as it is.

        Args:
            labels: int64 (B,), or sets (B, K). weights: float32 (B,), of the images.
        """
        each = self.importance(labels, weights)
        if each is None:
            return len(labels)
        return each.sum().clamp(min=torch.finfo(torch.float32).tiny)  # where all count 0, the loss is 0

    def importance(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | None:
        """What each image counts in the mean, float32 (B,); None where all count 1.

        Args:
            targets: int64 (B,), sets (B, K), or class shares, float (B, K), which are `weighed` already.
            weights: float32 (B,), of the images.
        """
        if self.class_weights is None and weights is None:
            return None
        if self.shares and targets.is_floating_point():
            return targets.sum(1) if self.class_weights is None else targets @ self.class_weights
        each = torch.ones(len(targets), device=targets.device) if weights is None else weights
        return each if self.class_weights is None else self.class_weights.index_select(0, targets) * each

    def each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image times the weight of its class, float32 (B,); arguments as of a call."""
        if self.kind == "cross-entropy":
            weights, smoothing = self.class_weights, self.smoothing
            return F.cross_entropy(logits, targets, weights, reduction="none", label_smoothing=smoothing)
        shares = soft_targets(targets, logits.shape[1])
        if self.kind == "focal":
            return focal(logits, smoothed(shares, self.smoothing), self.gamma, self.class_weights)
        each = binary(logits, smoothed(shares, self.smoothing))
        return each if self.class_weights is None else each * (shares @ self.class_weights)


class ImageWeights:
    """What each image of a split counts in the loss, where its dataset says that."""

    def __init__(self, split: Split, device: torch.device) -> None:
        given = split.columns.get(WEIGHT)
        self.given = None if given is None else torch.tensor(given, dtype=torch.float32, device=device)

    def of(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The weights of some samples, float32 (B,), where there are any.

        Args:
            rows: int64 (B,); images that come again in an epoch are counted on from the number of images.
        """
        return () if self.given is None else (self.given[rows % len(self.given)],)


def weighed(labels: Tensor, weights: tuple[Tensor, ...], mixing: Mixing) -> Tensor:
    """Class shares times the weight of each image, float32 (B, K), which keep both weights when images are mixed.

    Args:
        labels: int64 (B,), or class shares, float (B, K). weights: float32 (B,), where images have weights.
        mixing: whether images are mixed with each other later; labels that are not need no shares.
    """
    if not weights or not (mixing.soft or labels.is_floating_point()):
        return labels
    return soft_targets(labels, mixing.num_classes) * weights[0][:, None]


def make_loss(
    recipe: Recipe, counts: Sequence[int], classes: Sequence[str], device: torch.device | str = "cpu"
) -> Loss:
    """The loss of a recipe.

    Args:
        counts: training images per class. classes: their names.
    Raises:
        InputError: as `weights_of_classes`.
    """
    weights = weights_of_classes(recipe, counts, classes)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
    return Loss(recipe.loss, recipe.focal_gamma, recipe.label_smoothing, tensor)


def weights_of_classes(recipe: Recipe, counts: Sequence[int], classes: Sequence[str]) -> list[float] | None:
    """The weight of each class by the recipe's `class_weights`; None where all count the same.

    "balanced" is N / (K * n) for a class of n among N images of K classes, as in scikit-learn, so that the weights of
    all images have the mean 1. A class without images counts 1.

    Raises:
        InputError: a key is no class, two keys are the same one, or a weight cannot be used.
    """
    given = recipe.class_weights
    if given == "none":
        return None
    if isinstance(given, str):
        present = sum(n > 0 for n in counts)
        return [sum(counts) / (present * n) if n else 1.0 for n in counts]
    named = _by_number(given, classes)
    weights = [float(given[named[row]]) if row in named else 1.0 for row in range(len(classes))]
    if not any(weight for weight, n in zip(weights, counts, strict=True) if n):
        raise InputError("class_weights: every class with training images counts 0; give one of them a weight above 0")
    return weights


def _by_number(given: Mapping[str, float], classes: Sequence[str]) -> dict[int, str]:
    """The key of each class that has one, by the class's number."""
    keys: dict[int, str] = {}
    for key, weight in given.items():
        row = _number(key, classes)
        if row in keys:
            raise InputError(f"class_weights: {keys[row]!r} and {key!r} are the same class; give one of them")
        if not math.isfinite(weight):
            raise InputError(f"class_weights: {key!r} counts {weight}; give a finite number, 0 or above")
        keys[row] = key
    return keys


def _number(key: str, classes: Sequence[str]) -> int:
    """The number of the class that a key names: by its name, or by its number where no class is called by one."""
    if key in classes:
        return list(classes).index(key)
    numbered = not any(name.isdecimal() for name in classes)
    if numbered and key.isdecimal() and int(key) < len(classes):
        return int(key)
    allowed = f"{_shown(classes)}{f', or numbers from 0 to {len(classes) - 1}' if numbered else ''}"
    hint = did_you_mean(key, classes, 1) or f"allowed: {allowed}"
    raise InputError(f"class_weights: no class is called {key!r}; {hint}")


def _shown(classes: Sequence[str], most: int = 10) -> str:
    return ", ".join(classes[:most]) + (", ..." if len(classes) > most else "")
