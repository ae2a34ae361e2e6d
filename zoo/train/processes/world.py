"""Several processes that train one model: the rows that each takes, and their communication.

The result is that of a single process. Every process knows the order of the epoch and draws the random
numbers of whole batches; each works on its own rows, and gradients, losses and counts are summed, weighted
by rows. With one process, every method here returns its argument unchanged.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from zoo.base.text import plural
from zoo.data.batches.open import BatchSource
from zoo.data.split import Split
from zoo.errors import DeviceError, InputError, RunError
from zoo.models.device import pick_device
from zoo.train.sharded import is_divided, like, whole

if TYPE_CHECKING:
    from zoo.train.plan import Plan

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
BLOCK_SHARE = 1 / 64
"""A block with at least this share of a model's parameters is gathered and freed on its own."""

SHARDING_OPTIMIZERS = ("adam", "adamw", "sgd", "nesterov")


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one process takes: `first`, and `second`, their mirror images in the batch.

    Mixup and cutmix blend row i with row n-1-i, so a process that takes both needs no images of others.
    """

    first: tuple[int, int]
    second: tuple[int, int]
    whole: bool = False

    def __call__(self, values: Tensor, dim: int = 0) -> Tensor:
        """Select these rows from a tensor that has the whole batch along `dim`."""
        if self.whole:
            return values
        halves = [values.narrow(dim, begin, end - begin) for begin, end in (self.first, self.second)]
        return torch.cat(halves, dim)


class World:
    """This process among the `size` processes that train the model together.

    Attributes:
        rank: 0..size-1 over all machines; only rank 0 writes and prints. local: the rank on this machine.
        sharded: whether parameters, gradients and moments are divided among the processes (FSDP2).
        apart: seed parts that make the model's own random numbers (dropout) differ between ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0, *, sharded: bool = False) -> None:
        self.rank, self.size, self.local, self.sharded = rank, size, local, sharded
        self.first = rank == 0
        self.apart = (rank,) if rank else ()
        self.device = torch.device("cpu")
        self.store: Any = None
        self.folder: Path | None = None  # the run folder, for the message when another process is lost
        self.hosts = False  # whether this process hosts the store
        self.turns = 0
        self.wrapped: nn.parallel.DistributedDataParallel | None = None
        self.blocks: list[Any] = []
        self.pending: tuple[Tensor, Any] | None = None  # the requests of the step before, being exchanged
        self.asked = 0

    # ---- rows ---------------------------------------------------------------------------------

    def share(self, batch: int) -> Share:
        """The rows of a batch of that size that this process takes."""
        if self.size == 1:
            return Share((0, batch), (batch, batch), True)
        begin, end = self.bounds((batch + 1) // 2)
        return Share((begin, end), (max(end, batch - end), batch - begin))

    def columns(self, batches: Tensor, accumulate: int) -> Tensor:
        """The columns of int64 (steps, B) row numbers that this process trains on, by micro-batch."""
        parts = batches.chunk(accumulate, 1)
        return torch.cat([self.share(part.shape[1])(part, 1) for part in parts], 1)

    def bounds(self, count: int) -> tuple[int, int]:
        """(begin, end) of this process's part of `count` items; together the parts cover all, without overlap."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def check(self, batch: int, accumulate: int) -> None:
        """Refuse batches that are too small to divide.

        Raises:
            InputError: a process would get no row of a (micro-)batch.
        """
        least = min(map(len, torch.empty(batch).chunk(accumulate)))
        if self.size > 1 and (least + 1) // 2 < self.size:
            micro = f" in {plural(accumulate, 'micro-batch')}" if accumulate > 1 else ""
            raise InputError(
                f"a batch of {plural(batch, 'image')}{micro} is too small for {plural(self.size, 'process')}, "
                f"which take at least two each; give --batch-size {2 * self.size * accumulate} or more, or "
                "fewer processes"
            )

    def part(self, split: Split) -> Split:
        """This process's part of the images of an evaluation.

        Raises:
            InputError: fewer images than processes, although all must take part (`--shard`).
        """
        if self.size == 1:
            return split
        if self.sharded and len(split) < self.size:
            raise InputError(
                f"a split of {len(split)} images is too small for "
                f"{plural(self.size, 'process')} with --shard; use fewer"
            )
        begin, end = self.bounds(len(split))
        if not isinstance(split.images, np.ndarray):
            return split.select(np.arange(begin, end))
        return replace(split, images=split.images[begin:end], labels=split.labels[begin:end], copies=1)

    def batches(self, source: BatchSource, total: int, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of this process's part of `total` images; with sharding, every process gets equally many batches."""
        if not self.sharded:
            yield from source.batches(size)
            return
        count = math.ceil(math.ceil(total / self.size) / size)  # each forward pass needs all processes
        rows = torch.arange(len(source), device=source.device)
        for number in range(count):
            chosen = rows[len(source) * number // count : len(source) * (number + 1) // count]
            yield chosen, *source.take(chosen)

    # ---- the model ----------------------------------------------------------------------------

    def build(self, plan: Plan) -> nn.Module:
        """The plan's module; its batch norms are synchronised over all processes if the recipe says so."""
        if self.size == 1:
            return plan.build()
        if self.sharded:  # built on the CPU, as all of it may not fit on a device; FSDP needs it contiguous
            hardware = plan.hardware._replace(device=torch.device("cpu"), channels_last=False)
            plan = replace(plan, hardware=hardware)
        from zoo.train.processes.batch_norm import synchronised

        module = plan.build()
        return synchronised(module, self.device) if plan.recipe.sync_batch_norm else module

    def shard(self, module: nn.Module, *copies: nn.Module) -> None:
        """With sharding, divide the parameters of the module and its averages, block by block.

        Raises:
            InputError: the module fits its own weights to images.
        """
        if not self.sharded:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if any(callable(getattr(m, "fit_to_images", None)) for m in module.modules()):
            raise InputError("--shard cannot be used with a model that fits its weights to the images; leave it out")
        mesh = init_device_mesh(self.device.type, (self.size,))
        for root in (*copies, module):
            self.blocks = [*blocks(root), root]
            for block in self.blocks:
                fully_shard(block, mesh=mesh)
            root.to(self.device)  # moves the buffers

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap the module for training, so that gradients are averaged over the processes during the backward pass."""
        if self.size == 1 or self.sharded:
            return module
        kind = nn.parallel.DistributedDataParallel
        name = "forward_sync_buffers"  # its name in newer versions of torch
        buffers: dict[str, Any] = {name if name in signature(kind).parameters else "broadcast_buffers": False}
        devices = [self.device] if self.device.type == "cuda" else None
        self.wrapped = kind(module, device_ids=devices, gradient_as_bucket_view=True, **buffers)
        return self.wrapped

    def collecting(self, last: bool) -> AbstractContextManager[object]:
        """The context of a micro-batch; gradients are exchanged only after the last one of a step."""
        if self.sharded:
            self.blocks[-1].set_requires_gradient_sync(last)  # it applies to all inner blocks too
        return nullcontext() if last or self.wrapped is None else self.wrapped.no_sync()

    def align(self, module: nn.Module) -> None:
        """Copy the buffers of rank 0 to all processes, as running statistics may differ."""
        for buffer in module.buffers() if self.size > 1 else ():
            dist.broadcast(buffer, 0)

    # ---- state --------------------------------------------------------------------------------

    def full(self, state: Any) -> Any:
        """A nested state with all divided tensors gathered; every process must call it."""
        if not self.sharded:
            return state
        if isinstance(state, Tensor):
            return whole(state).cpu() if is_divided(state) else state
        if isinstance(state, dict):
            return {key: self.full(value) for key, value in state.items()}
        return type(state)(map(self.full, state)) if type(state) in (list, tuple) else state

    def parts(self, divided: Any, state: Any) -> Any:
        """This process's parts of a state with whole parameters, divided as in `divided`."""
        if not self.sharded:
            return state
        if isinstance(divided, dict):
            return {key: self.parts(divided.get(key), value) for key, value in state.items()}
        return like(divided, state) if isinstance(divided, Tensor) and is_divided(divided) else state

    # ---- communication ------------------------------------------------------------------------

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; on a GPU, the host does not wait for it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def total(self, values: Tensor) -> Tensor:
        """As `sum`, for values that may be on another device."""
        return values if self.size == 1 else self.sum(values.to(self.device))

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """The rows of all processes, which have the parts of `count` rows that `bounds` says; on the CPU."""
        if self.size == 1:
            return rows
        begin, end = self.bounds(count)
        whole = torch.zeros((count, *rows.shape[1:]), dtype=rows.dtype)
        whole[begin:end] = rows
        return self.sum(whole)

    def agree(self, request: int) -> int:
        """The largest request of any process (a signal's number, -1 for a checkpoint, or 0), equal for all.

        The answer is that of the previous step, which has arrived meanwhile, so that no process waits.
        """
        if self.size == 1:
            return request
        # The answer to a request to save comes with the next step, in which the time to save has not been reset yet.
        request = 0 if request == self.asked == -1 else request
        self.asked = request
        before = self.pending
        flag = torch.tensor([request + 1 if request > 0 else -request], dtype=torch.int64)
        self.pending = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, async_op=True)
        if before is None:
            return 0
        before[1].wait()
        largest = int(before[0])
        return largest - 1 if largest > 1 else -largest

    def once(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 only, and return its result on all processes."""
        if self.size == 1:
            return make()
        made = [make() if self.first else None]
        dist.broadcast_object_list(made, 0, device=torch.device("cpu"))
        return made[0]  # type: ignore[return-value]

    def in_turn(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 first (which fills the caches), then on each other process.

        Raises:
            RunError: rank 0 failed.
        """
        self.turns += 1
        key = f"turn{self.turns}"
        while not self.first and not self.store.check([key]):
            if self.store.check(["reported"]):
                raise RunError("another process of this run failed")
            time.sleep(0.05)
        made = make()
        if self.first and self.size > 1:
            self.store.set(key, "done")
        return made

    def placed(self, plan: Plan) -> Plan:
        """The plan of rank 0, placed on this process's device.

        Raises:
            InputError: the data differs from rank 0's, or the plan cannot be combined with sharding.
            DeviceError: the device cannot be used by several processes.
        """
        if self.size == 1:
            return plan
        record = self.once(lambda: plan.record)
        if record.data != plan.record.data:
            raise InputError(
                f"process {self.rank} finds other images for {record.data.spec!r} than process 0; use the same data"
            )
        hardware = plan.hardware
        self.device = own_device(hardware.device, self.local)
        compiled = hardware.compile if self.first else record.compile
        if plan.recipe.compile == "graph":
            raise InputError("--compile graph works with one process only; leave it out, or give --compile default")
        if self.sharded:
            _check_sharding(plan)
        if self.sharded or compiled == "graph":
            compiled = "off"
        environment = record.environment | ({"sharded": "yes"} if self.sharded else {})
        record = msgspec.structs.replace(record, compile=compiled, environment=environment)
        return replace(plan, record=record, hardware=hardware._replace(device=self.device, compile=compiled))

    # ---- the end ------------------------------------------------------------------------------

    def claim(self) -> bool:
        """Whether this process is the first to report the failure, so that it is reported once."""
        try:
            return int(self.store.add("reported", 1)) == 1
        except (RuntimeError, ValueError):
            return True  # the process that hosts the store has ended: a second report is better than none

    def somebody_reported(self, seconds: float) -> bool:
        """Whether another process reports the failure within that time."""
        deadline = time.monotonic() + seconds
        try:
            while not self.store.check(["reported"]):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
        except (RuntimeError, ValueError):
            return False
        return True

    def leave(self) -> None:
        """End together, after rank 0 has written everything."""
        if self.size > 1:
            self.once(lambda: None)
            dist.destroy_process_group()


def join(device: str, *, sharded: bool) -> World:
    """Join the processes that torchrun's environment variables describe.

    Raises:
        DeviceError: there is no such device for each process.
    """
    size = int(os.environ["WORLD_SIZE"])
    rank = int(os.environ["RANK"])
    local = int(os.environ.get("LOCAL_RANK", rank))
    where = own_device(pick_device(device), local)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    world = World(rank, size, local, sharded=sharded)
    store, attempt = _meeting_place(rank, size), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    number = store.add(f"zoo{attempt}/joined/{rank}", 1)  # a script may train again and again
    if number > 1 and dist.is_initialized():  # the training before has failed
        dist.destroy_process_group()
    world.hosts = world.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    world.store = dist.PrefixStore(f"zoo{attempt}/{number}", store)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo",
        store=dist.PrefixStore("group", world.store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    return world


@cache
def _meeting_place(rank: int, size: int) -> dist.Store:
    """The store in which torchrun's processes find each other; kept, as the process that hosts it ends it otherwise."""
    store, *_ = next(dist.rendezvous("env://", rank, size, timeout=TIMEOUT))
    return store


def own_device(device: torch.device, local: int) -> torch.device:
    """The device of the process with the rank `local` on this machine.

    Raises:
        DeviceError: the device cannot be used by several processes, or there are fewer GPUs than processes.
    """
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceError(f"device {str(device)!r} works with one process only; several need --device cuda or cpu")
    if device.index is not None:
        raise DeviceError(f"device {str(device)!r} is a single GPU, but each process needs its own; give --device cuda")
    if local >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceError(
            f"process {local} of this machine has no GPU: there are {count} GPUs; start {plural(count, 'process')}"
        )
    return torch.device("cuda", local)


def lost(error: BaseException) -> bool:
    """Whether an error only means that another process has ended."""
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
        return True
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def blocks(module: nn.Module) -> list[nn.Module]:
    """The parts of a model that are divided one by one, inner ones first, without the model itself.

    They are members of sequences, that is, blocks that are called one after another. A model in which a
    parameter occurs in two places has none.
    """
    count = sum(p.numel() for p in module.parameters())
    if count != sum(p.numel() for _, p in module.named_parameters(remove_duplicate=False)):
        return []
    members = {
        id(child)
        for parent in module.modules()
        if isinstance(parent, nn.Sequential | nn.ModuleList)
        for child in parent.children()
        if sum(p.numel() for p in child.parameters()) >= BLOCK_SHARE * count
        and not isinstance(child, nn.ModuleList | nn.ModuleDict)
    }
    return [part for part in reversed(list(module.modules())) if id(part) in members and part is not module]


def _check_sharding(plan: Plan) -> None:
    recipe = plan.recipe
    for name in (recipe.optimizer, *(rule.optimizer for rule in recipe.groups)):
        if name not in (*SHARDING_OPTIMIZERS, None):
            allowed = ", ".join(SHARDING_OPTIMIZERS)
            raise InputError(f"optimizer {name!r} needs whole parameters, which --shard divides; allowed: {allowed}")
    if plan.hardware.precision == "fp16":
        raise InputError("--shard cannot be combined with precision fp16; use bf16 or fp32")
    if recipe.compile not in ("auto", "off"):
        raise InputError(f"--shard cannot be combined with --compile {recipe.compile}; leave out one of them")
    if recipe.tta != "none" and recipe.tta_margin is not None:  # a process would wait for passes that others spare
        raise InputError(
            "--shard cannot be combined with recipe.tta_margin; leave it out to see all views of each image"
        )
