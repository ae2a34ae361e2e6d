"""Going on after memory did not suffice: once, with micro-batches of half the size."""

from __future__ import annotations

import gc
from dataclasses import replace

import msgspec
import torch

from zoo.base.heap import trim_heap
from zoo.base.text import plural
from zoo.runs.record import OUT_OF_MEMORY
from zoo.train.loop import Trainer
from zoo.train.out_of_memory import is_out_of_memory
from zoo.train.plan import Plan
from zoo.train.precise_bn import statistics_of


def halved(plan: Plan, trainer: Trainer, error: BaseException) -> Plan | None:
    """The plan with micro-batches of half the size, if a training can go on with it.

    The step that failed has not changed the weights: what its forward passes changed is undone, and a checkpoint
    before it is written, from which the training goes on as after an interruption.

    Returns:
        None where it cannot: another error, several processes, a failure outside of a step's passes, or micro-batches
        that cannot be halved.
    """
    batch, parts = trainer.batch, 2 * plan.recipe.accumulate
    least = 2 if statistics_of(trainer.module) else 1  # batch norm needs two images at a time
    possible = is_out_of_memory(error) and trainer.world.size == 1 and batch // parts >= least
    if not possible or not (trainer.guard.open or not trainer.started):
        return None
    if trainer.guard.open and trainer.at.total:
        trainer.guard.undo()
        trainer.save()
    return _in_parts(plan, parts, f"in step {trainer.at.total + 1}")


def _in_parts(plan: Plan, parts: int, when: str) -> Plan:
    """The plan with so many micro-batches; a recorded graph cannot add up their gradients."""
    record, before = plan.record, plan.recipe.accumulate
    mode = "off" if record.compile == "graph" else record.compile
    line = f"{when} with recipe.accumulate = {before}; went on with {parts}"
    record = msgspec.structs.replace(
        record,
        settings=msgspec.structs.replace(record.settings, accumulate=parts),
        compile=mode,
        environment={**record.environment, OUT_OF_MEMORY: line},
    )
    return replace(plan, record=record, hardware=plan.hardware._replace(compile=mode))


def line_of(plan: Plan) -> str:
    """What people are told of a plan that `halved` gave."""
    batch, parts = min(plan.recipe.batch_size, len(plan.train)), plan.recipe.accumulate
    when = plan.record.environment[OUT_OF_MEMORY].partition(" with")[0]
    return (
        f"out of memory {when}; the step is repeated, and each batch of {plural(batch, 'image')} is now "
        f"computed in {plural(parts, 'part')} (recipe.accumulate = {parts})"
    )


def give_back() -> None:
    """Return memory that nothing refers to any more, to the system and to the GPU."""
    gc.collect()
    trim_heap()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
