"""Several classifiers that answer together, as one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import InputError

Builder = Callable[..., nn.Module]


def ensemble(
    *,
    in_channels: int,
    height: int,
    width: int,
    num_classes: int,
    members: list[Builder],
    mean: list[list[float]] | None = None,
    std: list[list[float]] | None = None,
    temperature: list[float] | None = None,
    order: list[list[int]] | None = None,
    several_labels: bool = False,
) -> nn.Module:
    """What stands for the logits of the mean of the members' probabilities: its softmax (or sigmoid) is the mean.

    Args:
        members: classifiers of the same images and classes.
        mean: for each member, one number a channel (or one for all) that it subtracts from an image; none: 0.
        std: for each member, one number a channel (or one for all) that it divides an image by; none: 1.
        temperature: for each member, what its logits are divided by; none: 1.
        order: for each member, which of its logits stands for the first class, the second, ...; none: as they come.
        several_labels: an image may have several labels, so that each class has a probability of its own, by the
            sigmoid of its logit.

    Raises:
        InputError: a list has another length than `members`.

    Source:
        Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles", NeurIPS 2017, section 2.4.
    """
    lists: dict[str, Sequence[object] | None] = {"mean": mean, "std": std, "temperature": temperature, "order": order}
    for name, values in lists.items():
        if values is not None and len(values) != len(members):
            raise InputError(f"{name} has {len(values)} entries for {len(members)} members; give one for each, or none")
    sizes = {"in_channels": in_channels, "height": height, "width": width, "num_classes": num_classes}
    made = Ensemble([build(**sizes) for build in members])
    for number in range(len(members)):
        if mean or std:
            made.normalise(number, mean[number] if mean else [0.0], std[number] if std else [1.0])
        if order:
            made.register_buffer(f"order{number}", torch.tensor(order[number]), persistent=False)
    if temperature:
        made.temperatures = tuple(temperature)
    made.several_labels = several_labels
    return made


class Ensemble(nn.Module):
    """See `ensemble`."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.temperatures: tuple[float, ...] = (1.0,) * len(members)
        self.several_labels = False

    def normalise(self, number: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Let a member subtract a mean from an image and divide it by a standard deviation, channel by channel."""
        self.register_buffer(f"mean{number}", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer(f"std{number}", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, num_classes)."""
        found = []
        for number, (member, temperature) in enumerate(zip(self.members, self.temperatures, strict=True)):
            mean, std = getattr(self, f"mean{number}", None), getattr(self, f"std{number}", None)
            logits = member(x if mean is None else (x - mean) / std).float() / temperature
            order = getattr(self, f"order{number}", None)
            found.append(logits if order is None else logits[:, order])
        logits = torch.stack(found)
        if self.several_labels:  # the logit of the mean of sigmoids; the number of members cancels out
            return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)
        return logits.log_softmax(2).logsumexp(0) - math.log(len(found))
