"""Measures one model in this process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from zoo.base.heap import keep_heap
from zoo.base.text import plural
from zoo.errors import DeviceError
from zoo.models.compose import check, place
from zoo.models.denormals import denormals_as_zeros
from zoo.models.flops import flops
from zoo.models.precision import tf32
from zoo.runs.record import tree_of
from zoo.studies.bench.gauge import Effort, Peak, matrix_rate, rates, spread, timed
from zoo.studies.bench.rounds import BareStep, Job, loop_share, make_plan
from zoo.train.loop import Trainer
from zoo.train.out_of_memory import is_out_of_memory
from zoo.train.plan import Plan


def measure(job: Job) -> dict[str, Any]:
    """Measure one model in this process.

    Returns:
        A row: the model and the hardware, then a table for each of `job.what`, `memory` (bytes) and
        `matrix` (FLOP/s of a large matrix product in the same precision).
    Raises:
        ZooError: the model, the dataset or the device cannot be used, or memory does not suffice.
    """
    keep_heap()
    try:
        plan = make_plan(job, job.batch_size)
        row = described(job, plan)
        with denormals_as_zeros(plan.hardware.device):  # as while training
            with tf32(plan.hardware.device, True):
                row |= _measured(job, plan)
            if "loop" in job.what:
                row["loop"] = loop_share(job)
        matrix = row["matrix"]["flops_per_second"]["median"]
        for name, count in (("train", row["flops_step"]), ("infer", row["flops_forward"])):
            if name in row:
                achieved = count * row[name]["images_per_second"]["median"]
                row[name] |= {"flops_per_second": achieved, "share_of_matrix_rate": achieved / matrix}
        return row
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise DeviceError(_too_large(job)) from error
        raise


def described(job: Job, plan: Plan) -> dict[str, Any]:
    """The model, the hardware, and the FLOPs of one image."""
    record = plan.record
    sizes = msgspec.structs.asdict(record.sizes)
    tree = tree_of(record)
    outline = check(tree, plan.registry, where=place(plan.registry, record.model), **sizes)
    forward, step = flops(outline, sizes), flops(outline, sizes, backward=True)
    return {
        "model": record.model,
        "parameters": sum(p.numel() for p in outline.parameters()),
        "batch_size": job.batch_size,
        "height": sizes["height"],
        "width": sizes["width"],
        "device": record.device,
        "precision": record.precision,
        "layout": "channels-last" if record.channels_last else "contiguous",
        "compile": record.compile,
        "recipe": record.recipe,
        "optimizer": record.settings.optimizer,
        "flops_forward": forward,
        "flops_step": step,
        "environment": record.environment,
    }


def _measured(job: Job, plan: Plan) -> dict[str, Any]:
    """Measure everything but the loop. Inference comes first, because its peak memory is lower."""
    device, batch = plan.hardware.device, job.batch_size
    peak, memory = Peak(device), {}
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        trainer = Trainer(plan, Path(folder))
        bare = BareStep(trainer, batch)
        if "infer" in job.what:
            row["infer"] = rates(infer(trainer, bare.images, job.effort), batch)
            memory["infer"] = peak.growth()
        if "train" in job.what:
            row["train"] = rates(timed(bare, device, job.effort), batch)
            memory["train"] = peak.growth()
        if "latency" in job.what:
            seconds = infer(trainer, bare.images[:1], job.effort)
            row["latency"] = {"milliseconds": spread([1e3 * s for s in seconds])}
    matrix = spread(matrix_rate(device, plan.hardware.precision))
    return row | {"memory": memory, "matrix": {"flops_per_second": matrix}}


def infer(trainer: Trainer, images: Tensor, effort: Effort) -> list[float]:
    """Seconds of a forward pass in eval mode, with the trainer's precision, layout and compiler."""
    forward = trainer.compiler.whole(trainer.module, len(images))

    def call() -> None:
        with torch.inference_mode(), trainer.plan.hardware.autocast():
            forward(images)

    trainer.module.eval()
    try:
        return timed(call, trainer.device, effort)
    finally:
        trainer.module.train()


def _too_large(job: Job) -> str:
    size = f" of {job.image_size}x{job.image_size}" if job.image_size else ""
    return f"out of memory with batches of {plural(job.batch_size, 'image')}{size}; lower --batch-size or --image-size"
