"""Memory that does not suffice: one line that says what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from zoo.base.text import plural
from zoo.errors import DeviceError

if TYPE_CHECKING:
    from zoo.train.plan import Plan


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, in the words of torch's allocators."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("not enough memory", "can't allocate memory", "out of memory", "Storage size calculation")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def refusing_too_much(plan: Plan) -> Iterator[None]:
    """Training by this plan.

    Raises:
        DeviceError: memory does not suffice; says what to lower.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise DeviceError(_too_much(plan)) from error
        raise


def _too_much(plan: Plan) -> str:
    record, recipe = plan.record, plan.recipe
    return (
        f"out of memory on {record.device} with batches of {plural(recipe.batch_size, 'image')} of "
        f"{record.sizes.height}x{record.sizes.width} in {record.precision}; lower --batch-size (with "
        f"--set recipe.accumulate=N the steps stay the same) or --image-size, or use --precision bf16"
    )
