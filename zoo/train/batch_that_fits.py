"""`--batch-size auto`: the recipe's batch, in as few micro-batches as fit in memory."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import torch
from torch import Tensor, nn

from zoo.base import children
from zoo.base.memory import host_memory
from zoo.base.text import plural
from zoo.errors import DeviceError, InputError
from zoo.models.device import Hardware
from zoo.train.optim.freeze import freeze
from zoo.train.optim.optimizers import make_optimizer
from zoo.train.out_of_memory import is_out_of_memory
from zoo.train.plan import Plan
from zoo.train.precise_bn import statistics_of
from zoo.train.smaller import give_back
from zoo.train.speed.recomputed import recomputed, segments

SHARE = 0.8
"""Of the free memory, what a training step may take; the rest is for augmentation, evaluation and other programs."""

PASSING = 1.5
"""What a step takes beside what it keeps for the backward pass, by the kept: gradients and outputs that pass by."""

FEW = (2, 4)
"""Images of the two small steps from which the memory of a larger one is estimated on a CPU."""


def with_micro_batches(plan: Plan) -> Plan:
    """The plan with the fewest micro-batches, a power of two, with which a step fits; its batch stays as it is.

    On a GPU real steps are tried, from the whole batch down. On a CPU nothing is tried out that might not fit: what
    steps of two and four images keep for the backward pass says what more would.

    Raises:
        DeviceError: not even the smallest micro-batch fits. InputError: several processes train together, whose
            memory differs.
    """
    if children.started_together() > 1:
        raise InputError("--batch-size auto is for one process; with several, set --batch-size and recipe.accumulate")
    batch = min(plan.recipe.batch_size, len(plan.train))
    parts, why = _fewest(plan, batch)
    line = (
        f"batch size auto: {plural(batch, 'image')} a step, {plural(-(-batch // parts), 'image')} at once "
        f"(recipe.accumulate = {parts}): {why}"
    )
    settings = msgspec.structs.replace(plan.recipe, accumulate=parts)
    return replace(plan, record=msgspec.structs.replace(plan.record, settings=settings), notes=(*plan.notes, line))


def _fewest(plan: Plan, batch: int) -> tuple[int, str]:
    """How many micro-batches, and why.

    Raises:
        DeviceError: none fits.
    """
    device = plan.hardware.device
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else host_memory()
    room, module = int(SHARE * free), _module(plan)
    fixed, each = (0, 0) if on_gpu else memory_of_a_step(module, plan)
    least, parts = 2 if statistics_of(module) else 1, 1
    while True:
        size = -(-batch // parts)  # of the largest part
        need = _tried(module, plan, size) if on_gpu else fixed + size * each
        if need is not None and need <= room:
            sure = "a step took" if on_gpu else "a step is estimated to take"
            return parts, f"{sure} {need / 1e6:,.0f} MB of {room / 1e6:,.0f} MB ({SHARE:.0%} of what is free)"
        parts *= 2
        if batch // parts < least:
            raise DeviceError(
                f"--batch-size auto: not even {plural(size, 'image')} at once fit in {room / 1e6:,.0f} MB on {device}; "
                "use --set recipe.checkpointing=true, a smaller --image-size or --precision bf16"
            )


def _module(plan: Plan) -> nn.Module:
    """The model as it is trained."""
    return recomputed(freeze(plan.build().train(), plan.recipe.freeze), plan.recipe.checkpointing)


def _loss(module: nn.Module, hardware: Hardware, count: int, shape: tuple[int, ...]) -> Tensor:
    images = torch.rand((count, *shape), device=hardware.device).to(memory_format=hardware.memory_format)
    with hardware.autocast():
        loss: Tensor = module(images).float().square().mean()
    return loss


def _shape(plan: Plan) -> tuple[int, ...]:
    sizes = plan.record.sizes
    return sizes.in_channels, sizes.height, sizes.width


def memory_of_a_step(module: nn.Module, plan: Plan) -> tuple[int, int]:
    """What a step takes on the CPU: bytes for any number of images, and bytes for each image.

    The first is the model with its gradients, the moments of its optimizer and its averages; the second follows from
    what two steps keep for the backward pass, by their difference.
    """
    each = _each(module, plan)
    if plan.recipe.checkpointing:  # one block at a time keeps what it computes again; the largest counts twice the mean
        plain = freeze(plan.build().train(), plan.recipe.freeze)
        each += 2 * _each(plain, plan) / max(1, len(segments(plain)))
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    copies = 4 + bool(plan.recipe.ema) + bool(plan.recipe.lookahead)
    return int(copies * weights), int(PASSING * each)


def _each(module: nn.Module, plan: Plan) -> float:
    """Bytes that each image keeps for the backward pass, by the difference of two steps."""
    few, more = (_kept(module, plan, count) for count in FEW)
    return (more - few) / (FEW[1] - FEW[0])


def _kept(module: nn.Module, plan: Plan, count: int) -> int:
    """Bytes that a forward pass of so many images keeps for the backward pass, without the parameters."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss(module, plan.hardware, count, _shape(plan))
    loss.backward()
    module.zero_grad(set_to_none=True)
    return sum(kept.values())


def _tried(module: nn.Module, plan: Plan, count: int) -> int | None:
    """The most bytes that a real step with so many images took on the GPU; None: they did not suffice."""
    device = plan.hardware.device
    give_back()
    torch.cuda.reset_peak_memory_stats(device)
    optimizer = make_optimizer(module, plan.recipe, device)
    try:
        _loss(module, plan.hardware, count, _shape(plan)).backward()
        optimizer.step()
        return int(torch.cuda.max_memory_reserved(device))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    finally:
        module.zero_grad(set_to_none=True)
        del optimizer
    return None
