"""Several processes that train one model: who takes which rows, and all that they say to one another.

What one process would do stays the measure. Every process knows the order of the epoch and draws the
random numbers of whole batches; each works on its own rows, and gradients, losses and counts are summed
with the weight of their rows. With one process every method here gives back what it was given.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
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
    """The rows of a batch that one process takes: `first`, and their mirror images in the batch, `second`.

    Mixup and cutmix blend row i with row n-1-i: a process that takes both needs nobody else's images.
    """

    first: tuple[int, int]
    second: tuple[int, int]
    whole: bool = False

    def __call__(self, values: Tensor, dim: int = 0) -> Tensor:
        """What belongs to these rows, of a tensor with the whole batch along `dim`."""
        if self.whole:
            return values
        halves = [values.narrow(dim, begin, end - begin) for begin, end in (self.first, self.second)]
        return torch.cat(halves, dim)


class World:
    """This process among all that train the model; with `size` 1 there is nobody else.

    Attributes:
        rank: 0..size-1 over all machines; rank 0 alone writes and prints. local: the same on this machine.
        sharded: whether parameters, gradients and moments are divided among the processes (FSDP2).
        apart: what tells the random numbers that the model itself draws (dropout) from other ranks'.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0, *, sharded: bool = False) -> None:
        self.rank, self.size, self.local, self.sharded = rank, size, local, sharded
        self.first = rank == 0
        self.apart = (rank,) if rank else ()
        self.device = torch.device("cpu")
        self.store: Any = None
        self.folder: Path | None = None  # the run folder: named when another process is lost
        self.hosts = False  # whether the store ends with this process
        self.turns = 0
        self.wrapped: nn.parallel.DistributedDataParallel | None = None
        self.blocks: list[Any] = []
        self.asked: tuple[Tensor, Any] | None = None  # what the step before was asked, still on its way

    # ---- rows ---------------------------------------------------------------------------------

    def share(self, batch: int) -> Share:
        """The rows of a batch of that size that this process takes."""
        if self.size == 1:
            return Share((0, batch), (batch, batch), True)
        begin, end = self.bounds((batch + 1) // 2)
        return Share((begin, end), (max(end, batch - end), batch - begin))

    def bounds(self, count: int) -> tuple[int, int]:
        """(from, to) of this process's part of `count` things; all parts are disjoint and leave nothing out."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def check(self, batch: int, accumulate: int) -> None:
        """Refuse batches too small to divide.

        Raises:
            InputError: some process would have no row of a (micro-)batch.
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
        """The images of an evaluation that fall to this process.

        Raises:
            InputError: fewer images than processes, where all must take part (`--shard`).
        """
        if self.size == 1:
            return split
        if self.sharded and len(split) < self.size:
            raise InputError(
                f"a split of {plural(len(split), 'image')} is too small for {plural(self.size, 'process')} with --shard"
            )
        begin, end = self.bounds(len(split))
        if not isinstance(split.images, np.ndarray):
            return split.select(np.arange(begin, end))
        return replace(split, images=split.images[begin:end], labels=split.labels[begin:end], copies=1)

    def batches(self, own: BatchSource, total: int, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of this process's part of `total` images; as many as every other process has, where sharded."""
        if not self.sharded:
            yield from own.batches(size)
            return
        count = math.ceil(math.ceil(total / self.size) / size)  # each forward pass needs all processes
        rows = torch.arange(len(own), device=own.device)
        for number in range(count):
            chosen = rows[len(own) * number // count : len(own) * (number + 1) // count]
            yield chosen, *own.take(chosen)

    # ---- the model ----------------------------------------------------------------------------

    def build(self, plan: Plan) -> nn.Module:
        """The plan's module; with batch statistics over all processes' rows, where the recipe has them so."""
        if self.size == 1:
            return plan.build()
        if (
            self.sharded
        ):  # built on the CPU: the whole of it may not fit on a device; FSDP wants it contiguous
            hardware = plan.hardware._replace(device=torch.device("cpu"), channels_last=False)
            plan = replace(plan, hardware=hardware)
        from zoo.train.processes.batch_norm import synchronised

        module = plan.build()
        return synchronised(module, self.device) if plan.recipe.sync_batch_norm else module

    def shard(self, module: nn.Module, *copies: nn.Module) -> None:
        """Divide the parameters of the module and its averages, where asked to: a block at a time.

        Raises:
            InputError: a module that changes its own weights by what it is shown.
        """
        if not self.sharded:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if any(callable(getattr(m, "fit_to_images", None)) for m in module.modules()):
            raise InputError("--shard does not go with a model that is fitted to images; leave it out")
        mesh = init_device_mesh(self.device.type, (self.size,))
        for root in (*copies, module):
            self.blocks = [*blocks(root), root]
            for block in self.blocks:
                fully_shard(block, mesh=mesh)
            root.to(self.device)  # what is no parameter

    def wrap(self, module: nn.Module) -> nn.Module:
        """What is called for training: averages gradients over the processes as they come."""
        if self.size == 1 or self.sharded:
            return module
        kind = nn.parallel.DistributedDataParallel
        name = "forward_sync_buffers"  # as newer versions of torch call it
        own: dict[str, Any] = {name if name in signature(kind).parameters else "broadcast_buffers": False}
        devices = [self.device] if self.device.type == "cuda" else None
        self.wrapped = kind(module, device_ids=devices, gradient_as_bucket_view=True, **own)
        return self.wrapped

    def collecting(self, last: bool) -> AbstractContextManager[object]:
        """The context of a micro-batch: gradients are exchanged after the last one of a step."""
        if self.sharded:
            self.blocks[-1].set_requires_gradient_sync(last)  # and of all blocks inside
        return nullcontext() if last or self.wrapped is None else self.wrapped.no_sync()

    def align(self, module: nn.Module) -> None:
        """Give everybody rank 0's buffers: running statistics differ where they are not synchronised."""
        for buffer in module.buffers() if self.size > 1 else ():
            dist.broadcast(buffer, 0)

    # ---- state --------------------------------------------------------------------------------

    def full(self, state: Any) -> Any:
        """A state of nested dicts, lists and tuples with all parameters whole; every process must ask for it."""
        if not self.sharded:
            return state
        if isinstance(state, Tensor):
            return whole(state).cpu() if is_divided(state) else state
        if isinstance(state, dict):
            return {key: self.full(value) for key, value in state.items()}
        return type(state)(map(self.full, state)) if type(state) in (list, tuple) else state

    def parts(self, own: Any, state: Any) -> Any:
        """This process's parts of a state with whole parameters, divided as `own` is."""
        if not self.sharded:
            return state
        if isinstance(own, dict):
            return {key: self.parts(own.get(key), value) for key, value in state.items()}
        return like(own, state) if isinstance(own, Tensor) and is_divided(own) else state

    # ---- what is said -------------------------------------------------------------------------

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; no host waits for it where the values are on a GPU."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def total(self, values: Tensor) -> Tensor:
        """As `sum`, of values that may lie on another device."""
        return values if self.size == 1 else self.sum(values.to(self.device))

    def agree(self, asked: int) -> int:
        """What any process was asked (a signal's number, -1 for a checkpoint, or 0), the same for all.

        The answer is that of the step before, which came in meanwhile: nothing waits, on a GPU least of all.
        """
        if self.size == 1:
            return asked
        before = self.asked
        flag = torch.tensor([asked + 1 if asked > 0 else -asked], dtype=torch.int64)
        self.asked = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, async_op=True)
        if before is None:
            return 0
        before[1].wait()
        heard = int(before[0])
        return heard - 1 if heard > 1 else -heard

    def once(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, for everybody."""
        if self.size == 1:
            return make()
        made = [make() if self.first else None]
        dist.broadcast_object_list(made, 0, device=torch.device("cpu"))
        return made[0]  # type: ignore[return-value]

    def in_turn(self, make: Callable[[], T]) -> T:
        """What each process makes for itself, after rank 0 has (and has filled the caches).

        Raises:
            RunError: rank 0 ended.
        """
        self.turns += 1
        key = f"turn{self.turns}"
        while not self.first and not self.store.check([key]):
            if self.store.check(["said"]):
                raise RunError("another process of this run ended")
            time.sleep(0.05)
        made = make()
        if self.first and self.size > 1:
            self.store.set(key, "done")
        return made

    def placed(self, plan: Plan) -> Plan:
        """Rank 0's plan on this process's device.

        Raises:
            InputError: other data than rank 0's, or what sharding cannot be combined with.
            DeviceError: a device that cannot be one of several.
        """
        if self.size == 1:
            return plan
        record = self.once(lambda: plan.record)
        if record.data != plan.record.data:
            raise InputError(f"process {self.rank} has other images for {record.data.spec!r} than process 0")
        hardware = plan.hardware
        self.device = own_device(hardware.device, self.local)
        compiled = hardware.compile if self.first else record.compile
        if plan.recipe.compile == "graph":
            raise InputError("--compile graph is for one process; leave it out, or give --compile default")
        if self.sharded:
            _check_sharding(plan)
        if self.sharded or compiled == "graph":
            compiled = "off"
        environment = record.environment | ({"sharded": "yes"} if self.sharded else {})
        record = msgspec.structs.replace(record, compile=compiled, environment=environment)
        return replace(plan, record=record, hardware=hardware._replace(device=self.device, compile=compiled))

    # ---- the end ------------------------------------------------------------------------------

    def claim(self) -> bool:
        """Whether this process is the first to say why the run failed: one failure, one message."""
        try:
            return int(self.store.add("said", 1)) == 1
        except (RuntimeError, ValueError):
            return True  # whoever held the store is gone: better twice than not at all

    def somebody_said(self, seconds: float) -> bool:
        """Whether another process says why the run failed, within that time."""
        deadline = time.monotonic() + seconds
        try:
            while not self.store.check(["said"]):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
        except (RuntimeError, ValueError):
            return False
        return True

    def leave(self) -> None:
        """End together: nobody goes before rank 0 has written everything."""
        if self.size > 1:
            self.once(lambda: None)
            dist.destroy_process_group()


def join(device: str, *, sharded: bool) -> World:
    """The world of several processes that torchrun's environment variables describe.

    Raises:
        DeviceError: no such device for each process.
    """
    size = int(os.environ["WORLD_SIZE"])
    rank = int(os.environ["RANK"])
    local = int(os.environ.get("LOCAL_RANK", rank))
    where = own_device(pick_device(device), local)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    world = World(rank, size, local, sharded=sharded)
    store, *_ = next(dist.rendezvous("env://", rank, size, timeout=TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    world.hosts = world.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    world.store = dist.PrefixStore(f"zoo{attempt}", store)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo",
        store=dist.PrefixStore("group", world.store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    return world


def own_device(device: torch.device, local: int) -> torch.device:
    """The device of the process of that number on this machine.

    Raises:
        DeviceError: it cannot be one of several, or there are fewer GPUs than processes.
    """
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceError(f"device {str(device)!r} is one for one process; several need --device cuda or cpu")
    if device.index is not None:
        raise DeviceError(
            f"device {str(device)!r} is one GPU; several processes take one each: --device cuda"
        )
    if local >= torch.cuda.device_count():
        here = torch.cuda.device_count()
        raise DeviceError(f"process {local} of this machine has no GPU: {here} here; start as many processes")
    return torch.device("cuda", local)


def lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone, rather than what went wrong here."""
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
        return True
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def blocks(module: nn.Module) -> list[nn.Module]:
    """The parts of a model that are worth dividing on their own, inner ones first; without the model itself.

    They are members of sequences: blocks that are called one after another. A model in which a
    parameter stands in two places is left whole.
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
            raise InputError(
                f"optimizer {name!r} wants whole parameters, which --shard divides; allowed: {allowed}"
            )
    if plan.hardware.precision == "fp16":
        raise InputError("--shard does not go with precision fp16; use bf16 or fp32")
    if recipe.compile not in ("auto", "off"):
        raise InputError(f"--shard does not go with --compile {recipe.compile}; leave out one of them")
