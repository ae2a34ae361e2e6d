"""Refuse training without trainable weights, or with too few images in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from zoo.base.text import plural
from zoo.errors import InputError

ONE_VALUE = "Expected more than 1 value per channel when training"
"""torch's error for a batch from which batch normalisation cannot compute a variance."""


def refuse_untrainable(module: nn.Module, name: str) -> None:
    """Refuse a model that no optimizer can train.

    Raises:
        InputError: it has no parameters, only frozen ones, or complex ones.
    """
    parameters = dict(module.named_parameters())
    if not parameters:
        raise InputError(f"{name}: the model has no parameters, so there is nothing to train")
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise InputError(f"{name}: all parameters are frozen, so there is nothing to train; change `freeze`")
    for key, parameter in parameters.items():
        if parameter.is_complex():
            raise InputError(
                f"{name}: the parameter {key} is complex, which is not supported; keep real and imaginary parts in "
                "separate parameters, and join them in forward (torch.view_as_complex)"
            )


@contextmanager
def refusing_too_few_images(batch: int, accumulate: int) -> Iterator[None]:
    """Run a training with batches of `batch` images, each in `accumulate` parts.

    Raises:
        InputError: a batch is too small for the model's batch normalisation.
    """
    try:
        yield
    except ValueError as error:
        if ONE_VALUE not in str(error):
            raise
        parts = f" in {plural(accumulate, 'part')}" if accumulate > 1 else ""
        raise InputError(
            f"batches of {plural(batch, 'image')}{parts} are too small for batch normalisation, which needs two "
            f"images at a time; give --batch-size {2 * accumulate} or more"
        ) from error
