"""The loss of images with several labels: each class is a question of its own, answered yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.catalogue.recipe import Recipe
from zoo.data.label_sets import has_sets
from zoo.data.split import Split
from zoo.data.split_findings import class_counts
from zoo.train.loss import Loss, make_loss


class SetLoss(Loss):
    """Binary cross entropy with logits ("bce"), averaged over classes and images.

    "focal" counts less what the model is sure of: each term is scaled by the probability of the wrong answer to the
    power gamma. Smoothing s makes the targets s/2 and 1 - s/2, since yes and no are two classes.

    Source: Lin et al., "Focal Loss for Dense Object Detection", equation 4.
    """

    shares: ClassVar[bool] = False

    def each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image, float32 (B,).

        Args:
            logits: float32 (B, K). targets: (B, K), 0 and 1, or between them where images were mixed.
        """
        truth = targets.float()
        smooth = truth * (1 - self.smoothing) + self.smoothing / 2 if self.smoothing else truth
        each = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        if self.kind != "focal":
            return each.mean(1)
        sure = logits.sigmoid()
        wrong = torch.lerp(sure, 1 - sure, truth).clamp(min=torch.finfo(sure.dtype).tiny)
        return (wrong**self.gamma * each).mean(1)


def loss_of(recipe: Recipe, train: Split, classes: Sequence[str], device: torch.device) -> Loss:
    """The loss of a recipe for training images, whose labels are one class an image (N,), or sets (N, K).

    Raises:
        InputError: as `zoo.train.loss.make_loss`.
    """
    if has_sets(train.labels):
        return SetLoss(recipe.loss, recipe.focal_gamma, recipe.label_smoothing)
    return make_loss(recipe, class_counts(train, len(classes)), classes, device)


def hits_of(logits: Tensor, labels: Tensor) -> Tensor:
    """How many images are right: the class (B,) has the largest logit, or exactly the classes (B, K) are above 0."""
    if labels.ndim == 2:
        return ((logits > 0) == (labels > 0.5)).all(1).sum()
    return (logits.argmax(1) == labels).sum()
