"""Out of memory: one line that says which settings to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from zoo.base.text import plural
from zoo.errors import DeviceError
from zoo.runs.record import OUT_OF_MEMORY

if TYPE_CHECKING:
    from zoo.train.plan import Plan


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory did not suffice, by its type or the messages of torch's allocators."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("not enough memory", "can't allocate memory", "out of memory", "Storage size calculation")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


_ONEDNN = "could not create a primitive"
"""What oneDNN says of memory that does not suffice, and of much else."""


@contextmanager
def refusing_too_much(plan: Plan) -> Iterator[None]:
    """The context of a training; turns an out-of-memory error into one that says what to lower.

    Raises:
        DeviceError: memory does not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error) or (OUT_OF_MEMORY in plan.record.environment and _ONEDNN in str(error)):
            raise DeviceError(_too_much(plan)) from error
        raise


def _too_much(plan: Plan) -> str:
    record, recipe = plan.record, plan.recipe
    parts = f", each in {plural(recipe.accumulate, 'part')}," if recipe.accumulate > 1 else ""
    return (
        f"out of memory on {record.device} with batches of {recipe.batch_size} images{parts} of "
        f"{record.sizes.height}x{record.sizes.width} in {record.precision}; lower --batch-size or --image-size, "
        f"split each batch with --set recipe.accumulate=N, or use --precision bf16"
    )
